"""Writes the golden of the embedded backbone: an image's pixels and the student's tokens in PyTorch.

    python golden.py assets/demo_vit_tiny16.safetensors crates/backbone/tests/demo_golden.safetensors
"""

import sys

import numpy
import torch
from safetensors.torch import load_file, save_file

import networks
import textures


def main() -> None:
    weights, output = sys.argv[1:]
    net = networks.Student().eval()
    net.load(load_file(weights))
    picture = textures.picture((64, 1), 64, [])
    pixels = networks.normalise(torch.from_numpy(picture)[None])
    with torch.inference_mode():
        tokens = net(pixels)
    save_file({"pixels": pixels.contiguous(), "tokens": tokens.contiguous()}, output,
              metadata={"torch": torch.__version__, "numpy": numpy.__version__, "script": "tools/distill/golden.py"})


if __name__ == "__main__":
    main()
