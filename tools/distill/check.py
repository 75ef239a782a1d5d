"""kNN AUROC of a backbone's patch tokens on a category in MVTec layout: patch bank, mean of the top 1 % of patches.

    python check.py CATEGORY_DIR --teacher FILE [--layer N] | --student FILE | --random SEED

Support: the first 100 images of train/good, sorted by path; test: every image of test. Nothing is chosen here.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

import networks


def pictures(folder: Path, side: int) -> torch.Tensor:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".bmp"})
    return torch.from_numpy(np.stack([
        np.asarray(Image.open(f).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)) for f in files
    ]))


@torch.inference_mode()
def patches(tokens, batch: torch.Tensor) -> torch.Tensor:
    """Unit patch tokens [N, P, D]."""
    parts = [tokens(networks.normalise(part))[:, 1:] for part in batch.split(16)]
    return torch.nn.functional.normalize(torch.cat(parts).float(), dim=-1)


@torch.inference_mode()
def auroc(tokens, category: Path, side: int, support: int = 100) -> float:
    bank = patches(tokens, pictures(category / "train" / "good", side)[:support]).flatten(0, 1)
    labels, scores = [], []
    for folder in sorted((category / "test").iterdir()):
        for image in patches(tokens, pictures(folder, side)):
            distance = 1 - (image @ bank.T).amax(1)
            top = max(1, math.ceil(len(distance) * 0.01))
            scores.append(distance.topk(top).values.mean().item())
            labels.append(folder.name != "good")
    return roc_auc_score(labels, scores)


def student(path: str | None, seed: int = 0) -> networks.Student:
    torch.manual_seed(seed)
    net = networks.Student().eval()
    if path is not None:
        net.load(load_file(path))
    return net


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("category", type=Path, nargs="+")
    a.add_argument("--teacher", help="weight file of the teacher")
    a.add_argument("--layer", type=int, default=11, help="block of the teacher, 0-based [11, the last]")
    a.add_argument("--student", help="weight file of the student")
    a.add_argument("--random", type=int, default=0, help="seed of random weights, where no file is named")
    a.add_argument("--side", type=int, default=224)
    args = a.parse_args()
    if args.teacher:
        net = networks.Teacher(args.teacher)
        tokens = lambda pixels: net.tokens(pixels, [args.layer])[0]
    else:
        tokens = student(args.student, args.random)
    for category in args.category:
        print(f"{category.name} {auroc(tokens, category, args.side):.4f}", flush=True)


if __name__ == "__main__":
    main()
