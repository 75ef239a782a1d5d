"""Writes what `processes.py` needs into FOLDER: networks, weights, a picture, pixels. `python prepare.py FOLDER [torch]`"""
import os
import sys

import engines
import network


def torch_weights(path):
    import timm
    import torch
    import torch_network
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model(torch_network.NAMES["s"], pretrained=False, img_size=224)
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)


def pixels(path):
    import numpy as np

    network.safetensors(path, {"pixels": np.random.default_rng(1).normal(size=(8, 3, 224, 224)).astype(np.float32)})


def main():
    folder = sys.argv[1]
    for batch in (1, 8):
        engines.Case("s", 224, batch, 1, folder).onnx("plain")
    network.built(os.path.join(folder, "dinov3_vits16.safetensors"), network.weight_file)
    network.built(os.path.join(folder, "picture.png"), network.picture)
    network.built(os.path.join(folder, "pixels.safetensors"), pixels)
    if "torch" in sys.argv[2:]:
        network.built(os.path.join(folder, "timm.safetensors"), torch_weights)


if __name__ == "__main__":
    main()
