"""Whole processes: peak memory of a batch of 8 images of 224 px, and time from the start to the first result."""
import os
import statistics
import subprocess
import sys
import tempfile
import time

import bundle
import environment

ONESHOT = os.path.join(environment.HERE, "oneshot.py")
FILES = {"ort": "vit_s16_224_{}_plain.onnx", "ov": "vit_s16_224_{}_plain.onnx", "torch": "timm.safetensors"}
LABELS = {"ort": "ONNX Runtime", "ov": "OpenVINO", "torch": "PyTorch, timm"}


def run(command, until_first, out=None):
    """`(seconds, peak MiB)` of a process; the seconds end at its line `first`, or with it. `out`: a file for what it prints."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out or subprocess.PIPE, stderr=errors, text=True)
        seconds = None
        for line in process.stdout or ():
            if until_first and seconds is None and line.strip() == "first":
                seconds = time.perf_counter() - start
        # the kernel's own account of this child; the parent has to stay smaller than any child for it to hold
        _, status, usage = os.wait4(process.pid, 0)
        seconds = seconds or time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError((errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    return seconds, usage.ru_maxrss / 1024


def measured(command):
    """`(standard output, seconds, peak MiB)`"""
    with tempfile.TemporaryFile("w+") as out:
        seconds, memory = run(command, False, out)
        out.seek(0)
        return out.read(), seconds, memory


def commands(folder, batch, threads, runs, engines, weights, predict):
    """`{label: (command, ends at its line "first")}`"""
    at = lambda name: os.path.join(folder, name)
    out = {}
    for engine in engines:
        file = at(FILES[engine].format(batch))
        line = [sys.executable, ONESHOT, engine, file, str(batch), str(threads), str(runs)]
        out[LABELS[engine]] = (line, True)
    flawtune = environment.program("flawtune", "FLAWTUNE_BINARY", example=False)
    whole = [flawtune, "--quiet", "--threads", str(threads)]
    features = [*whole, "features", *weights, "--no-cache", "--batch-size", str(batch), "--output", at("tokens.safetensors")]
    if batch == 1:
        out["flawtune features"] = ([*features, at("image.png")], False)
        if predict:
            out["flawtune predict"] = ([*whole, "predict", *predict, at("image.png")], False)
    else:
        out["flawtune features"] = ([*features, "--pixels", at("pixels.safetensors")], False)
        speed = environment.program("speed", "FLAWTUNE_SPEED")
        out["flawtune, example speed"] = ([speed, "s", "224", str(batch), str(threads), str(runs - 1)], False)
    return out


def measure(folder, threads, rounds, parts, with_torch, weights, predict, note):
    """`{part: {label: {median, values}}}` of `memory` in MiB and `start` in seconds, the processes taking turns."""
    extras = ["torch"] if with_torch else []
    weights = weights or ["--model-name", "dinov3_vits16", "--weights", os.path.join(folder, "dinov3_vits16.safetensors")]
    if predict is None and "start" in parts and bundle.available():
        try:
            model, _ = bundle.build(folder, 320, 224, weights)
            predict = [model, *weights[2:]]
        except RuntimeError as error:
            note(f"skipped: flawtune predict ({error})")
    engines = ["ort", "ov", *extras]
    results = {}
    for part, batch, runs, column, times in (("memory", 8, 3, 1, min(rounds, 3)), ("start", 1, 1, 0, rounds)):
        if part not in parts:
            continue
        found = {}
        work = commands(folder, batch, threads, runs, engines, weights, predict)
        # the first turn, which is not counted, brings the files into memory
        for turn in range(times + 1):
            for label, (command, until_first) in list(work.items()):
                try:
                    value = run(command, until_first)[column]
                except (RuntimeError, OSError) as error:
                    note(f"skipped: {label} ({error})")
                    del work[label]
                    continue
                if turn:
                    found.setdefault(label, []).append(value)
        results[part] = {k: {"median": statistics.median(v), "values": v} for k, v in found.items() if k in work}
    return results
