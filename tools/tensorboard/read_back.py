"""Trains a few epochs with --tensorboard and reads the curves back with the Python package.

usage: read_back.py FLAWTUNE   (in the root of the repository; the package is tensorboard, see requirements.txt)

Each curve must be that of the history in 32 bits, a second training in the folder must replace the first, and a record that a killed
process left half written must cost that record only.
"""

import json
import logging
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# that a training replaces another is wanted here, and no warning
logging.getLogger("tensorboard").setLevel(logging.ERROR)
CURVES = ("loss", "separability", "mu_nn", "mu_nd", "hold_out", "learning_rate", "grad_norm")
flawtune = pathlib.Path(sys.argv[1]).resolve()
weights = pathlib.Path("golden/ckpt/tiny_mlp/hf.safetensors").resolve()


def train(folder, epochs, *more):
    command = [flawtune, "train", "--category", "flange", "--root-dir", "data", "--weights", weights, "--image-size", "64"]
    command += ["--num-epochs", str(epochs), "--patience", "0", "--batch-size", "4", "--cache-dir", "cache", "--quiet"]
    subprocess.run([*command, "--tensorboard", "runs", *more], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "outputs/flange_history.json").read_text())


def read(folder, run):
    found = EventAccumulator(str(folder / "runs" / run), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def expected(history, curve):
    values = history[curve]
    if curve != "hold_out":  # which is not measured after every epoch; what is not finite is null in the others
        values = [math.nan if v is None else v for v in values]
    return [(epoch + 1, float(np.float32(v))) for epoch, v in enumerate(values) if v is not None]


def same(found, wanted):
    return len(found) == len(wanted) and all(
        a == b or (a[0] == b[0] and math.isnan(a[1]) and math.isnan(b[1])) for a, b in zip(found, wanted)
    )


def compare(folder, history):
    curves = read(folder, "flange")
    assert sorted(curves.Tags()["scalars"]) == sorted(CURVES), curves.Tags()
    points = 0
    for curve in CURVES:
        found = [(e.step, e.value) for e in curves.Scalars(curve)]
        wanted = expected(history, curve)
        assert wanted and same(found, wanted), f"{curve}: {found} is not {wanted}"
        points += len(found)
    return curves, points


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    synth = "--category flange --size 64 --train-good 10 --test-good 4 --test-per-type 5 --output-dir data".split()
    subprocess.run([flawtune, "synth", *synth, "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    _, points = compare(folder, train(folder, 6))
    again = train(folder, 4, "--seed", "1", "--guard-folds", "2")
    assert len(list((folder / "runs/flange").glob("events.out.tfevents.*"))) == 2
    # the cross-validation chooses the epoch, and the last training holds nothing out
    curves = read(folder, "flange")
    found = [(e.step, e.value) for e in curves.Scalars("loss")]
    assert same(found, expected(again, "loss")), f"the second training does not replace the first: {found}"
    settings = curves.Tensors("settings")
    # this reader withdraws numbers only, so that the first training's text is there too
    assert b"| num_epochs | 4 |" in settings[-1].tensor_proto.string_val[0], settings
    for part in ("part_1", "part_2"):
        assert [e.step for e in read(folder, f"flange/{part}").Scalars("hold_out")] == [1, 2, 3, 4], part

    last = max((folder / "runs/flange").glob("events.out.tfevents.*"))
    last.write_bytes(last.read_bytes()[:-5])
    found = [(e.step, e.value) for e in read(folder, "flange").Scalars("loss")]
    assert same(found, expected(again, "loss")[:-1]), f"half a record costs more than that record: {found}"
print(f"TensorBoard reads {points} points of {len(CURVES)} curves, and the text, as they were written")
