#!/usr/bin/env python3
"""anomalib's AnomalyDINO beside `flawtune predict`: images/s and peak memory with a bank of 62,720 patches of 384 numbers.

    python bench/peers/anomaly_dino.py [--threads 2] [--rounds 3] [--json FILE]
    python bench/peers/anomaly_dino.py --weights FILE --model-name dinov2_vits14 --image-size 196

anomalib, torch, timm and onnx (for our random weights) come from PyPI into target/peers. No weights are fetched:
AnomalyDINO's extractor is timm's ViT with random numbers (anomalib's own class, `pretrained` switched off), its bank random unit rows; its time depends on neither. It
gets images that are decoded already, in batches of 1, 8 and 32, and the fastest counts; PCA masks and coreset are off, as
by default on both sides. flawtune reads and decodes its images; it is timed as a whole process on 64 images less a whole
process on one, so that the start is in neither. It needs `cargo build --release -p flawtune-cli` (or FLAWTUNE_BINARY) and
draws its images itself. Rounds take turns, after one that is not counted; medians.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile

import bundle
import environment
import processes
import report

PACKAGES = ["torch", "timm", "anomalib", "onnx"]
GOOD, PATCHES, DIM, PICTURES = 320, 196, 384, 64
ENCODERS = {"dinov3_vits16": "vit_small_patch16_dinov3", "dinov2_vits14": "vit_small_patch14_dinov2"}


def peer(encoder, side, batch, images, threads):
    """In a process of its own: builds AnomalyDINO, fills its bank, prints seconds an image."""
    import time

    import timm
    import torch
    from anomalib.models.image.anomaly_dino import torch_model

    create = timm.create_model
    # the one change to anomalib: no download of weights
    timm.create_model = lambda *a, **k: create(*a, **{**k, "pretrained": False})
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch_model.AnomalyDINOModel(encoder_name=encoder).eval()
    model.memory_bank = torch.nn.functional.normalize(torch.randn(GOOD * PATCHES, DIM), dim=1)
    pixels = torch.randn(batch, 3, side, side)
    with torch.inference_mode():
        model(pixels)
        start = time.perf_counter()
        for _ in range(max(1, images // batch)):
            result = model(pixels)
        seconds = time.perf_counter() - start
    assert result.pred_score.shape[0] == batch
    print(seconds / (max(1, images // batch) * batch))


def main():
    if sys.argv[1:2] == ["--peer"]:
        peer(sys.argv[2], *(int(n) for n in sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=32, help="images a round for anomalib, at least a batch")
    parser.add_argument("--batches", type=lambda t: [int(b) for b in t.split(",")], default=[1, 8, 32], help="of anomalib")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--model-name", default="dinov3_vits16", choices=ENCODERS)
    parser.add_argument("--image-size", type=int, default=224, help="16 or 14 times 14")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--environment", default=environment.FOLDER, metavar="DIR")
    args = parser.parse_args()
    patch = int(args.model_name[-2:])
    if (args.image_size // patch) ** 2 != PATCHES:
        parser.error(f"--image-size {args.image_size} gives {args.model_name} not {PATCHES} patches but "
                     f"{(args.image_size // patch) ** 2}: use {14 * patch}")
    if args.model_name == "dinov2_vits14" and not args.weights:
        parser.error("dinov2_vits14 needs --weights: random ones are written for dinov3_vits16 only")
    environment.enter(PACKAGES, args.environment)
    folder = os.path.join(args.environment, "predict")
    os.makedirs(folder, exist_ok=True)

    found = {f"anomalib AnomalyDINO, batch {b}": [] for b in args.batches}
    commands = {}
    if bundle.available():
        weights = args.weights
        if not weights:
            environment.run_script("prepare.py", folder, log=os.path.join(folder, "prepare.log"))
            weights = os.path.join(folder, "dinov3_vits16.safetensors")
        backbone = ["--model-name", args.model_name, "--weights", weights]
        model, train = bundle.build(folder, GOOD, args.image_size, backbone)
        few = os.path.join(folder, "few")
        shutil.rmtree(few, ignore_errors=True)
        os.makedirs(few)
        names = sorted(os.listdir(train))[:PICTURES]
        for name in names:
            shutil.copy(os.path.join(train, name), few)
        whole = [bundle.binary(), "--quiet", "--threads", str(args.threads), "predict", model, "--weights", weights,
                 "--format", "jsonl"]
        commands = {1: [*whole, os.path.join(few, names[0])], len(names): [*whole, few]}
        found["flawtune predict"] = []
    else:
        print("skipped: flawtune predict (this binary has none)")

    for turn in range(args.rounds + 1):
        for label, values in found.items():
            if label == "flawtune predict":
                (_, one, _), (text, many, memory) = (processes.measured(command) for command in commands.values())
                if len(text.strip().splitlines()) != max(commands):
                    raise SystemExit(f"flawtune predict printed no line an image:\n{text[:500]}")
                pair = ((many - one) / (max(commands) - 1), memory)
            else:
                command = [sys.executable, os.path.abspath(__file__), "--peer", ENCODERS[args.model_name],
                           str(args.image_size), label.split()[-1], str(args.images), str(args.threads)]
                text, _, memory = processes.measured(command)
                pair = (float(text.strip().splitlines()[-1]), memory)
            # the first turn brings files into memory
            if turn:
                values.append(pair)

    result = {
        label: {"images_per_s": statistics.median(1 / s for s, _ in values),
                "peak_mib": statistics.median(m for _, m in values), "rounds": values}
        for label, values in found.items()
    }
    rates = {label: r["images_per_s"] for label, r in result.items()}
    fastest = max((label for label in rates if label.startswith("anomalib")), key=rates.get)
    rows = [
        [label, report.number(r["images_per_s"]), report.number(r["images_per_s"] / rates[fastest]),
         report.number(r["peak_mib"], 0), report.number(r["peak_mib"] / result[fastest]["peak_mib"])]
        for label, r in result.items()
    ]
    header = ["engine", "images/s", "/ fastest of anomalib (≥ 2.5)", "peak resident MiB", "/ the same (≤ 0.25)"]
    print(report.table(header, rows))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"machine": report.machine(), "threads": args.threads, "engines": result}, file, indent=1)


if __name__ == "__main__":
    main()
