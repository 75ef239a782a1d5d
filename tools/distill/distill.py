"""Distils the embedded demonstration backbone `demo_vit_tiny16` from a DINOv2 ViT-S/14.

    python distill.py --teacher dinov2_vits14.safetensors --state STATE --output assets/demo_vit_tiny16.safetensors

Stages, each of which goes on where it was stopped: images are made (seeded), the teacher's tokens of them are written
to STATE, the student learns them, the weights are exported in f16. The learning rate is constant and falls to 0 over the
last --decay steps: to train longer, raise --steps and run again before the fall begins.

Target: class and patch tokens of the teacher's block --layer through its final norm, projected on their 256 strongest
directions (no mean taken off), because that is what the student's own tokens must be: nearest neighbours among them
are then the teacher's, without a head. The loss is the share of their variance that is missed.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file

import networks
import textures

# In the public domain or under CC0, shipped by scikit-image. Its brick, grass and gravel are left out: a category of the
# demonstration is made of one of them.
PHOTOS = ["astronaut.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
          "hubble_deep_field.jpg", "microaneurysms.png", "retina.jpg", "rocket.jpg", "text.png"]

# Patches along a side of each set's images.
SETS = {"small": 7, "large": 14}
# The last images of each set, which only tell how far it is.
HELD_OUT = 128


def save(value: object, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, path)


def photos() -> list[Image.Image]:
    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in PHOTOS]


class Data:
    """Images [N, S, S, 3] and the teacher's projected tokens [N, 1 + P, 256], on disk."""

    def __init__(self, state: Path, name: str, count: int):
        self.name, self.count, patches = name, count, SETS[name]
        self.side, self.seen = patches * 16, patches * 14
        shape = (count, self.side, self.side, 3)
        self.done_path = state / f"{name}.done"
        mode = "r+" if self.done_path.exists() else "w+"
        self.pictures = np.memmap(state / f"{name}.pictures", np.uint8, mode, shape=shape)
        self.tokens = np.memmap(state / f"{name}.tokens", np.float16, mode,
                                shape=(count, 1 + patches * patches, networks.Student.dim))
        if mode == "w+":
            self.done_path.write_text("0")

    def done(self) -> int:
        return int(self.done_path.read_text())

    def make(self, first: int, last: int, album: list[Image.Image]) -> torch.Tensor:
        """Draws these images and gives them as the teacher sees them, pixels [N, 3, S', S']."""
        seen = []
        for i in range(first, last):
            drawn = textures.picture((self.side, i), self.side, album)
            self.pictures[i] = drawn
            image = Image.fromarray(drawn).resize((self.seen, self.seen), Image.Resampling.BICUBIC)
            seen.append(np.asarray(image))
        return networks.normalise(torch.from_numpy(np.stack(seen)))

    def prepare(self, teacher: networks.Teacher, layer: int, basis: torch.Tensor) -> None:
        album, chunk, begun = photos(), 64 if self.name == "small" else 16, time.time()
        for first in range(self.done(), self.count, chunk):
            last = min(first + chunk, self.count)
            tokens = teacher.tokens(self.make(first, last, album), [layer])[0] @ basis
            self.tokens[first:last] = tokens.half().numpy()
            self.done_path.write_text(str(last))
            if first // chunk % 20 == 0:
                print(f"{self.name}: {last} of {self.count} images, {time.time() - begun:.0f} s", flush=True)

    def batch(self, at: np.ndarray, flips: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels and tokens of these images, each mirrored and turned by a multiple of 90° together."""
        order = np.argsort(at)  # the disk likes it
        pictures, tokens, n = [], [], SETS[self.name]
        for i, flip in zip(at[order], flips[order]):
            turn = lambda t: np.rot90(t[:, ::-1] if flip & 4 else t, flip & 3)
            pictures.append(turn(self.pictures[i]))
            patches = self.tokens[i, 1:].reshape(n, n, -1)
            tokens.append(np.concatenate([self.tokens[i, :1], turn(patches).reshape(n * n, -1)]))
        return (networks.normalise(torch.from_numpy(np.stack(pictures))),
                torch.from_numpy(np.stack(tokens)).float())


def find_basis(teacher: networks.Teacher, layer: int, data: Data) -> dict[str, torch.Tensor]:
    """The strongest directions of the first images' tokens, and the tokens' mean and deviation there."""
    tokens = torch.cat([teacher.tokens(data.make(i, i + 64, photos()), [layer])[0].flatten(0, 1)
                        for i in range(0, 1024, 64)]).double()
    values, vectors = torch.linalg.eigh(tokens.T @ tokens)
    basis = vectors.flip(1)[:, :networks.Student.dim]
    share = (values.flip(0)[:networks.Student.dim].sum() / values.sum()).item()
    print(f"{networks.Student.dim} of {teacher.dim} directions hold {share:.4f} of the tokens' squares")
    projected = tokens @ basis
    return {"basis": basis.float(), "mean": projected.mean(0).float(), "deviation": projected.std(0).float()}


def rate(step: int, args: argparse.Namespace) -> float:
    left = (args.steps - step) / args.decay
    return args.learning_rate * min(1.0, (step + 1) / args.warmup, left)


@torch.inference_mode()
def missed(net: networks.Student, data: Data, variance: float) -> tuple[float, float]:
    """Share of the variance missed on the held-out images: class token, patches."""
    at = np.arange(data.count - HELD_OUT, data.count)
    parts = [(net(x) - y).square().mean((0, 2)) for x, y in
             (data.batch(part, np.zeros_like(part)) for part in np.split(at, HELD_OUT // 32))]
    error = torch.stack(parts).mean(0)
    return error[0].item() / variance, error[1:].mean().item() / variance


def train(args: argparse.Namespace, data: dict[str, Data], found: dict[str, torch.Tensor]) -> networks.Student:
    torch.manual_seed(args.seed)
    net = networks.Student()
    with torch.no_grad():
        net.norm.weight.copy_(found["deviation"])
        net.norm.bias.copy_(found["mean"])
    plain = [p for p in net.parameters() if p.ndim < 2]
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
                                  betas=(0.9, 0.98))
    path, first = args.state / "train.pt", 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        first = kept["step"]
        print(f"goes on at step {first}")
    variance, begun = found["deviation"].square().mean().item(), time.time()
    for step in range(first, args.steps):
        r = np.random.default_rng((args.seed, step))
        part, size = (data["large"], 16) if step % 3 == 2 else (data["small"], 64)
        at = r.integers(0, part.count - HELD_OUT, size)
        x, y = part.batch(at, r.integers(0, 8, size))
        for group in optimiser.param_groups:
            group["lr"] = rate(step, args)
        error = (net(x) - y).square().mean((0, 2)) / variance
        loss = error[1:].mean() + 0.1 * error[0]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}, {part.side} px: missed {error[1:].mean().item():.4f} of the patches, "
                  f"{error[0].item():.4f} of the class token, {time.time() - begun:.0f} s", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, path)
            net.eval()
            shares = {name: "class {:.4f}, patches {:.4f}".format(*missed(net, d, variance)) for name, d in data.items()}
            print(f"step {step + 1}, held out: {shares}", flush=True)
            net.train()
            export(net, args.state / "now.safetensors")
    return net


def export(net: networks.Student, path: Path) -> None:
    part = path.with_suffix(".part")
    save_file(net.tensors(), part, metadata={"format": "pt"})
    os.replace(part, path)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--teacher", required=True, help="DINOv2 ViT-S/14, safetensors, Hugging Face key names")
    a.add_argument("--layer", type=int, default=8, help="block of the teacher whose tokens are learned, 0-based [8]")
    a.add_argument("--state", type=Path, required=True, help="folder for images, tokens and training state (1.5 GB)")
    a.add_argument("--output", type=Path, required=True, help="weight file to write")
    a.add_argument("--small", type=int, default=10000, help="images of 112 px [10000]")
    a.add_argument("--large", type=int, default=2000, help="images of 224 px [2000]")
    a.add_argument("--steps", type=int, default=3000, help="batches of 64 small or, each third, 16 large images [3000]")
    a.add_argument("--decay", type=int, default=1250, help="steps over which the learning rate falls to 0 [1250]")
    a.add_argument("--warmup", type=int, default=200, help="steps over which it rises [200]")
    a.add_argument("--learning-rate", type=float, default=1e-3)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--threads", type=int, default=2)
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    args.state.mkdir(parents=True, exist_ok=True)
    data = {name: Data(args.state, name, getattr(args, name)) for name in SETS}
    teacher, path = networks.Teacher(args.teacher), args.state / "basis.pt"
    if not path.exists():
        save(find_basis(teacher, args.layer, data["small"]), path)
    found = torch.load(path, weights_only=True)
    for part in data.values():
        part.prepare(teacher, args.layer, found["basis"])
    export(train(args, data, found), args.output)


if __name__ == "__main__":
    main()
