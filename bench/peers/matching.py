#!/usr/bin/env python3
"""Scores of test images by their most similar support image: flawtune, with and without bounds, beside vectorised PyTorch.

    python bench/peers/matching.py SUPPORT.safetensors TEST.safetensors [--tests 32] [--k 1] [--threads 2] [--rounds 5]

The files are what `flawtune features -o FILE PICTURES` writes for train/good and for test pictures; both engines read the
same ones. flawtune is `cargo build --release -p flawtune --example matching`, found in target/ or by FLAWTUNE_MATCHING. Needs
torch, numpy and safetensors. Rounds take turns, engine after engine; the table shows medians. The time with bounds
includes preparing them.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Flawtune:
    def __init__(self, support, test, k, threads):
        program = os.environ.get("FLAWTUNE_MATCHING", os.path.join(ROOT, "target", "release", "examples", "matching"))
        command = [program, support, test, "--k", str(k), "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.supports, self.tests, self.patches = (int(n) for n in self.process.stdout.readline().split()[1:])

    def ask(self, work):
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"flawtune ended while asked for {work!r}")
        return float(answer)


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
        flawtune = Flawtune(args.support, path, args.k, args.threads)
        tests, supports = unit(tests), unit(load_file(args.support)["patch_tokens"])
        # the fastest of three sizes of product speaks for PyTorch
        sizes = {}
        for size in (1, 4, 16):
            start = time.perf_counter()
            torch_scores(tests[:2], supports, args.k, size)
            sizes[size] = time.perf_counter() - start
        size = min(sizes, key=sizes.get)
        pairs = flawtune.tests * flawtune.supports
        compared = flawtune.ask("check")
        seconds = {"pruned": [], "plain": [], "bank": [], "torch": []}
        for _ in range(args.rounds):
            for work in ("pruned", "plain", "bank"):
                seconds[work].append(flawtune.ask(work))
            start = time.perf_counter()
            torch_scores(tests, supports, args.k, size)
            seconds["torch"].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    flops = 2.0 * pairs * flawtune.patches**2 * supports.shape[2]
    print(f"{flawtune.tests} tests, {flawtune.supports} support images, {flawtune.patches} patches, k = {args.k}, {args.threads} threads")
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
