#!/usr/bin/env python3
"""How many false alarms a threshold from good images raises on good images it has not seen: train/good alone, split many times.

    flawtune features ROOT/CATEGORY/train/good/* --layers 8 --output tokens.safetensors
    python tools/results/threshold.py tokens.safetensors [--splits 100] [--rate 0.01]

Needs numpy. Each split makes a bank of one half of the images, chooses the threshold from their leave-one-out scores as
`flawtune fit` does (the conformal quantile), and counts the images of the other half at or above it. `fold` leaves out a
fifth at once instead of one image. No test image is read.
"""
import argparse
import json
import math
import struct

import numpy as np


def patches(path):
    """Unit patch tokens `[images, patches, dim]`."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])["patch_tokens"]
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    tokens = np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])
    return tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)


def similarities(tokens):
    """`[image, other, patch]`: the largest cosine of a patch to any patch of another image; -1 to its own."""
    images, count, dim = tokens.shape
    rows = tokens.reshape(-1, dim)
    found = np.stack([(t @ rows.T).reshape(count, images, count).max(2).T for t in tokens])
    found[np.arange(images), np.arange(images)] = -1
    return found


def scores(best):
    """Mean of the top 1 % of patch distances, from `[images, patches]` largest cosines."""
    top = max(1, round(0.01 * best.shape[1]))
    return np.sort(1 - best, 1)[:, ::-1][:, :top].mean(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found = similarities(patches(args.tokens))
    random = np.random.default_rng(args.seed)
    rates = {"leave one out": [], "fold": []}
    for _ in range(args.splits):
        order = random.permutation(len(found))
        bank, others = np.split(order, [len(order) // 2])
        own, unseen = found[np.ix_(bank, bank)], scores(found[np.ix_(others, bank)].max(1))
        fold = np.arange(len(bank)) % 5
        folds = [scores(own[fold == k][:, fold != k].max(1)) for k in range(5)]
        for name, chosen in (("leave one out", scores(own.max(1))), ("fold", np.concatenate(folds))):
            rank = min(math.ceil((len(chosen) + 1) * (1 - args.rate)), len(chosen))
            rates[name].append((unseen >= np.sort(chosen)[rank - 1]).mean())
    for name, values in rates.items():
        print(f"{name}: mean {100 * np.mean(values):.2f} %, nine of ten splits up to {100 * np.quantile(values, 0.9):.1f} %")


if __name__ == "__main__":
    main()
