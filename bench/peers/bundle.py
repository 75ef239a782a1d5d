"""A model of `flawtune fit` on drawn images, for timing `flawtune predict`; none where the binary has no such commands."""
import os
import shutil
import subprocess

import environment

CATEGORY = "flange"


def binary():
    return environment.program("flawtune", "FLAWTUNE_BINARY", example=False)


def available():
    return all(subprocess.run([binary(), command, "--help"], capture_output=True).returncode == 0
               for command in ("fit", "predict"))


def _run(*arguments):
    done = subprocess.run([binary(), "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"flawtune {arguments[0]}: {reason}")


def pictures(folder, good, side):
    """Drawn images, `good` of them to learn from: the folder of the category's train/good."""
    root = os.path.join(folder, f"drawn_{good}_{side}")
    if not os.path.exists(root):
        part = f"{root}.part"
        shutil.rmtree(part, ignore_errors=True)
        _run("synth", "--output-dir", part, "--category", CATEGORY, "--size", str(side), "--train-good", str(good))
        os.rename(part, root)
    return os.path.join(root, CATEGORY, "train", "good")


def build(folder, good, side, weights):
    """`(model file, folder of its images)`; made again when the binary is newer. `weights`: options naming the backbone."""
    train = pictures(folder, good, side)
    model = os.path.join(folder, f"drawn_{good}_{side}_{'_'.join(map(os.path.basename, weights))}.flaw")
    if not os.path.exists(model) or os.path.getmtime(model) < os.path.getmtime(binary()):
        root = os.path.dirname(os.path.dirname(os.path.dirname(train)))
        _run("fit", "--category", CATEGORY, "--root-dir", root, *weights, "--image-size", str(side), "--no-cache",
             "--output", model)
    return model, train
