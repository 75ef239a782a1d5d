#!/usr/bin/env python3
"""Scores of test images by their most similar support image: flawtune, with and without bounds, beside vectorised PyTorch.

    python bench/peers/matching.py SUPPORT.safetensors TEST.safetensors [--tests 32] [--k 1] [--threads 2] [--rounds 5]

The files are what `flawtune features -o FILE IMAGES` writes for train/good and for test images; both engines read the
same ones. flawtune is `cargo build --release -p flawtune --example matching`, found in target/ or by FLAWTUNE_MATCHING. torch,
numpy and safetensors come from PyPI into target/peers unless they are there. Rounds take turns, engine after engine; the
table shows medians. The time with bounds includes preparing them.
"""
import argparse
import os
import statistics
import tempfile
import time

import environment


def torch_scores(tests, supports, k, images_at_once):
    """`1 - mean of the k largest sim(test -> support)`; a product of one test with several images at a time."""
    import torch

    patches, dim = supports.shape[1:]
    out = []
    for test in tests:
        parts = []
        for part in supports.split(images_at_once):
            products = test @ part.reshape(-1, dim).T
            parts.append(products.view(patches, -1, patches).amax(2).mean(0))
        out.append(1 - torch.cat(parts).topk(k).values.mean())
    return torch.stack(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("support")
    parser.add_argument("test")
    parser.add_argument("--tests", type=int, default=32, help="test images, spread evenly over the file")
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    environment.enter(["torch", "numpy", "safetensors"])

    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(args.threads)

    def unit(tokens):
        return tokens / (tokens.norm(dim=-1, keepdim=True) + 1e-8)

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        tests = load_file(args.test)["patch_tokens"]
        tests = tests[:: -(-len(tests) // args.tests)].contiguous()
        path = os.path.join(folder, "tests.safetensors")
        save_file({"patch_tokens": tests}, path)
        matching = environment.program("matching", "FLAWTUNE_MATCHING")
        command = [matching, args.support, path, "--k", str(args.k), "--threads", str(args.threads)]
        flawtune = environment.Answering(command)
        support_count, test_count, patches = (int(n) for n in flawtune.line().split()[1:])
        tests, supports = unit(tests), unit(load_file(args.support)["patch_tokens"])
        # the fastest of three sizes of product speaks for PyTorch
        sizes = {}
        for size in (1, 4, 16):
            start = time.perf_counter()
            torch_scores(tests[:2], supports, args.k, size)
            sizes[size] = time.perf_counter() - start
        size = min(sizes, key=sizes.get)
        pairs = test_count * support_count
        compared = float(flawtune.ask("check"))
        seconds = {"pruned": [], "plain": [], "bank": [], "torch": []}
        for _ in range(args.rounds):
            for work in ("pruned", "plain", "bank"):
                seconds[work].append(float(flawtune.ask(work)))
            start = time.perf_counter()
            torch_scores(tests, supports, args.k, size)
            seconds["torch"].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    flops = 2.0 * pairs * patches**2 * supports.shape[2]
    print(f"{test_count} tests, {support_count} support images, {patches} patches, k = {args.k}, {args.threads} threads")
    print(f"compared in full: {compared:.0f} of {pairs} pairs, pruned {100 * (1 - compared / pairs):.1f} % (same bits)")
    print("| engine | seconds | GFLOP/s of the plain work | times PyTorch |\n|---|---|---|---|")
    for name, label in (
        ("torch", f"PyTorch {torch.__version__}, {size} images at once"),
        ("plain", "flawtune, all pairs"),
        ("pruned", "flawtune, with bounds"),
        ("bank", "flawtune, patch bank"),
    ):
        print(f"| {label} | {middle[name]:.3f} | {flops / middle[name] / 1e9:.0f} | {middle['torch'] / middle[name]:.2f} |")


if __name__ == "__main__":
    main()
