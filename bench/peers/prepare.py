"""Writes every file that the measurements read, so that none is built between them. `peers.py` starts it.

    python prepare.py FOLDER [LIST [CASES]]   (LIST of int8, torch, nncf; CASES as JSON)
"""
import importlib.util
import json
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


def networks(case, int8):
    """All spellings of a case, and the int8 files; what a tool cannot write is named where it is missed, by its candidate."""
    for attention in ("plain", "fused", "mha"):
        case.onnx(attention)
    for attention in ("plain", "fused"):
        case.onnx(attention, 1)
    if not int8:
        return
    import quantise

    files = [*quantise.onnxruntime_files(case), *quantise.openvino_files(case)]
    for label, write in files:
        if label == "nncf" and importlib.util.find_spec("nncf") is None:
            continue
        try:
            write()
        except Exception as error:  # noqa: BLE001
            print(f"{label}: {error}", file=sys.stderr)


def main():
    folder, wanted = sys.argv[1], sys.argv[2].split(",") if len(sys.argv) > 2 else []
    for case in json.loads(sys.argv[3]) if len(sys.argv) > 3 else []:
        networks(engines.Case(**case, folder=folder), "int8" in wanted)
    for batch in (1, 8):
        engines.Case("s", 224, batch, 1, folder).onnx("plain")
    network.built(os.path.join(folder, "dinov3_vits16.safetensors"), network.weight_file)
    network.built(os.path.join(folder, "image.png"), network.picture)
    network.built(os.path.join(folder, "pixels.safetensors"), pixels)
    if "torch" in wanted:
        network.built(os.path.join(folder, "timm.safetensors"), torch_weights)


if __name__ == "__main__":
    main()
