#!/usr/bin/env python3
"""What anomalib's AnomalyDINO and PatchCore find with the same backbone and images, beside flawtune.

    python bench/peers/detection.py ROOT WEIGHTS [--categories screw,transistor] [--image-size 224] [--shots 0,5,10,20]
        [--seeds 0,1,2] [--peers anomaly_dino,patchcore] [--coreset 0.1] [--threads 2] [--json FILE]

ROOT holds categories in the layout of MVTec AD, WEIGHTS is a DINOv2 ViT-S/14 (safetensors, Hugging Face key names). anomalib, torch,
timm and safetensors come from PyPI into target/peers; no weights are fetched: timm's network gets those of WEIGHTS. Each peer is
its own torch model with its own scores, on images squashed to the same square. AnomalyDINO takes the last block, as it does by
itself; `--block 9` (counted from 1) takes another. PatchCore takes blocks 7 and 9, and thins its bank to `--coreset`.

Peers learn from train/good alone, so they are measured once, on every test image. flawtune is measured by `fit` and
`evaluate` of the held-out protocol, whose test leaves out the pool of 20 defects: with 0 shots nearly the same images, and the mean
over seeds. Seconds are of fitting (features included, nothing cached) and an image of the test; memory is the peak of the process.
It needs `cargo build --release -p flawtune-cli` (or FLAWTUNE_BINARY).
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import environment
import processes

PACKAGES = ["torch", "timm", "anomalib", "safetensors", "scipy"]
ENCODER = "vit_small_patch14_dinov2"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights(path):
    """The network's tensors under timm's names."""
    import torch
    from safetensors.torch import load_file

    given = {name.removeprefix("dinov2."): tensor.float() for name, tensor in load_file(path).items()}
    named = {
        "cls_token": given["embeddings.cls_token"],
        "pos_embed": given["embeddings.position_embeddings"],
        "patch_embed.proj.weight": given["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": given["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": given["layernorm.weight"],
        "norm.bias": given["layernorm.bias"],
    }
    for i in range(12):
        old, new = f"encoder.layer.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            attention = [given[f"{old}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            named[f"{new}attn.qkv.{kind}"] = torch.cat(attention)
            named[f"{new}attn.proj.{kind}"] = given[f"{old}attention.output.dense.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                named[f"{new}{part}.{kind}"] = given[f"{old}{part}.{kind}"]
        for part in ("1", "2"):
            named[f"{new}ls{part}.gamma"] = given[f"{old}layer_scale{part}.lambda1"]
    return named


def images(folder):
    names = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return [name for name in names if name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp"))]


def pixels(paths, side):
    import numpy as np
    import torch
    from PIL import Image

    squares = [Image.open(p).convert("RGB").resize((side, side), Image.BICUBIC) for p in paths]
    values = torch.from_numpy(np.stack([np.asarray(s) for s in squares])).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (values - mean) / deviation


def mask_of(path, side):
    """The mask of a defect as it lies beside it, or none."""
    import numpy as np
    from PIL import Image

    folder, name = os.path.split(path)
    test, kind = os.path.split(folder)
    beside = os.path.join(os.path.dirname(test), "ground_truth", kind)
    stem = os.path.splitext(name)[0]
    for name in (f"{stem}_mask.png", f"{stem}.png"):
        if os.path.exists(os.path.join(beside, name)):
            mask = Image.open(os.path.join(beside, name)).convert("L").resize((side, side), Image.NEAREST)
            return np.asarray(mask) > 127
    return None


def auroc(labels, scores):
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def aupro(maps, masks, limit=0.3):
    """Mean overlap of the regions over the false positive rate up to `limit`, over that limit."""
    import numpy as np
    from scipy import ndimage

    values = np.stack(maps)
    good = np.sort(values[~np.stack(masks)])[::-1]
    rates = np.linspace(0, limit, 201)
    thresholds = good[np.minimum((rates * len(good)).astype(int), len(good) - 1)]
    overlaps = []
    for one, mask in zip(values, masks):
        regions, count = ndimage.label(mask)
        for region in range(1, count + 1):
            inside = np.sort(one[regions == region])
            overlaps.append(1 - np.searchsorted(inside, thresholds) / len(inside))
    return float(np.trapezoid(np.mean(overlaps, axis=0), rates) / limit)


def peer(name, root, path, side, options):
    """One peer on one category: a row."""
    import numpy as np
    import timm
    import torch
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    create, named = timm.create_model, weights(path)

    def ours(*arguments, **given):
        network = create(*arguments, **{**given, "pretrained": False})
        network.load_state_dict(named)
        return network

    # the one change to anomalib: our weights
    timm.create_model = ours
    if name == "anomaly_dino":
        model = AnomalyDINOModel(encoder_name=ENCODER)
        model.last_layer = f"blocks.{options.block - 1}"
        extractor = model.feature_encoder
        extractor.layers, extractor.idx = [model.last_layer], [options.block - 1]
    else:
        model = PatchcoreModel(layers=["blocks.6", "blocks.8"], backbone=ENCODER)
    start = time.perf_counter()
    good = images(os.path.join(root, "train", "good"))
    model.train()
    model.feature_encoder.eval() if name == "anomaly_dino" else model.feature_extractor.eval()
    with torch.inference_mode():
        for at in range(0, len(good), 8):
            model(pixels(good[at : at + 8], side))
        model.fit() if name == "anomaly_dino" else model.subsample_embedding(options.coreset)
    fit = time.perf_counter() - start
    model.eval()
    tested = images(os.path.join(root, "test"))
    labels = [os.path.basename(os.path.dirname(p)) != "good" for p in tested]
    scores, maps, masks = [], [], []
    start = time.perf_counter()
    with torch.inference_mode():
        for one, defect in zip(tested, labels):
            found = model(pixels([one], side))
            scores.append(float(found.pred_score.flatten()[0]))
            mask = mask_of(one, side) if defect else np.zeros((side, side), bool)
            if mask is not None:
                maps.append(found.anomaly_map[0, 0].numpy())
                masks.append(mask)
    each = (time.perf_counter() - start) / len(tested)
    marked = any(mask.any() for mask in masks)
    flat = (np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps]))
    return {
        "scorer": name,
        "shots": 0,
        "auroc": auroc(labels, scores),
        "pixel_auroc": auroc(*flat) if marked else None,
        "aupro": aupro(maps, masks) if marked else None,
        "fit_s": fit,
        "image_s": each,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def ours(binary, root, category, path, shots, seeds, options):
    """`fit` and `evaluate`, means over seeds: a row."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "one.flaw")
        base = ["--root-dir", root, "--threads", str(options.threads)]
        for seed in seeds:
            fit = [binary, "fit", *base, "--category", category, "--weights", path, "--seed", str(seed), "--no-cache"]
            fit += ["--image-size", options.flawtune_size, "--output", file]
            if shots:
                fit += ["--num-defect-samples", str(shots)]
            if os.path.exists(file):
                os.remove(file)
            _, seconds, memory = processes.measured(fit)
            said, judging, _ = processes.measured([binary, "evaluate", file, *base, "--weights", path, "--json", "--output-dir", folder, "--force"])
            found = json.loads(said)
            row, pixel = found["rows"][0]["metrics"], found["rows"][0]["pixels"] or {}
            tested = found["split"]["good"] + found["split"]["defects"]
            rows.append((row["auroc"], pixel.get("auroc"), pixel.get("aupro"), seconds, judging / tested, memory))
    names = ("auroc", "pixel_auroc", "aupro", "fit_s", "image_s", "peak_mib")
    means = {n: None if v[0] is None else sum(v) / len(v) for n, v in zip(names, zip(*rows))}
    return {"scorer": "flawtune", "shots": shots, "seeds": len(seeds), **means}


def table(category, size, rows):
    print(f"\n{category}, {size} px\n")
    print("| | shots | AUROC | pixel AUROC | AUPRO | fit, s | an image, s | peak, MiB |\n|---|---|---|---|---|---|---|---|")
    for row in rows:
        three = [f"{row[n]:.3f}" if row[n] is not None else "–" for n in ("auroc", "pixel_auroc", "aupro")]
        costs = f"{row['fit_s']:.1f} | {row['image_s']:.2f} | {row['peak_mib']:.0f}"
        print(f"| {row['scorer']} | {row['shots']} | {' | '.join(three)} | {costs} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("weights")
    parser.add_argument("--categories", default="screw,transistor,elpv_poly,elpv_mono,magnetic_tile")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--flawtune-size", help="as --image-size of fit [default: the same]")
    parser.add_argument("--shots", default="0,5,10,20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--peers", default="anomaly_dino,patchcore")
    parser.add_argument("--block", type=int, default=12)
    parser.add_argument("--coreset", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.flawtune_size = options.flawtune_size or str(options.image_size)
    environment.enter(PACKAGES)
    if options.one:
        # a process of its own, whose memory is only the peer's
        print(json.dumps(peer(options.one, options.root, options.weights, options.image_size, options)))
        return
    binary = environment.program("flawtune", "FLAWTUNE_BINARY", example=False)
    everything = {}
    numbers = lambda text: [int(n) for n in text.split(",") if n]
    for category in options.categories.split(","):
        rows = []
        for name in filter(None, options.peers.split(",")):
            command = [sys.executable, __file__, os.path.join(options.root, category), options.weights, "--one", name]
            command += ["--image-size", str(options.image_size), "--threads", str(options.threads)]
            command += ["--block", str(options.block), "--coreset", str(options.coreset)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{name} on {category}: {done.stderr.strip().splitlines()[-1]}")
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        for shots in numbers(options.shots):
            seeds = numbers(options.seeds) if shots else numbers(options.seeds)[:1]
            rows.append(ours(binary, options.root, category, options.weights, shots, seeds, options))
        table(category, options.image_size, rows)
        everything[category] = rows
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
