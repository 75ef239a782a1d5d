"""Every peer as a list of candidates: ways to run the same network, of which the fastest on this machine speaks for the peer.

`ENGINES[name](case, tried)` gives `(label, build)` of each candidate, in a worker process; `build()` gives `run`, and `run(least)`
computes for at least `least` seconds and returns images/s. `tried` holds what the candidates before it reached.
"""
import os
import statistics
import time

import network


class Skipped(Exception):
    """An engine that is not there, with the reason."""


class Case:
    """One row of the table, as a worker needs it: model `s` or `b`, image side, batch, threads, folder of built models."""

    def __init__(self, model, side, batch, threads, folder):
        self.model, self.side, self.batch, self.threads, self.folder = model, side, batch, threads, folder

    def pixels(self, batch=None):
        import numpy as np

        shape = (batch or self.batch, 3, self.side, self.side)
        return np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def file(self, kind, build, batch=None, end=".onnx"):
        name = f"vit_{self.model}16_{self.side}_{batch or self.batch}_{kind}{end}"
        return network.built(os.path.join(self.folder, name), build)

    def onnx(self, attention, batch=None):
        export = lambda path: network.export(path, self.model, self.side, batch or self.batch, attention)
        return self.file(attention, export, batch)


def timed(call, images):
    """Images/s of `call`, by the median of its times. Short calls are preceded by one that is not counted: it warms up."""
    start = time.perf_counter()
    call()
    last = [time.perf_counter() - start]

    def run(least):
        if last[0] < 0.25:
            call()
        times, start = [], time.perf_counter()
        while not times or time.perf_counter() - start < least:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        last[0] = statistics.median(times)
        return images / last[0]

    return run


def onnxruntime_session(path, threads, spinning=True):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # threads may spin between operators of a run, never between runs: other engines' turns come then
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fastest_of(files, tried, prefix=""):
    """The file whose candidate was the fastest so far: what is varied next is varied on it alone."""
    rates = {(kind, path): tried.get(prefix + kind) for kind, path in files}
    known = [file for file, rate in rates.items() if isinstance(rate, float)]
    return [max(known, key=rates.get)] if known else []


def onnxruntime_candidates(case, tried, files):
    pixels = case.pixels()

    def build(path, spinning):
        session = onnxruntime_session(path(), case.threads, spinning)
        return timed(lambda: session.run(None, {"pixels": pixels}), case.batch)

    for kind, path in files:
        yield kind, lambda: build(path, True)
    # one thread has nobody to wait for
    for kind, path in fastest_of(files, tried) if case.threads > 1 else []:
        yield f"{kind}, no spinning", lambda: build(path, False)


def spellings(case, *kinds, batch=None):
    return [(kind, lambda kind=kind: case.onnx(kind, batch)) for kind in kinds]


def onnxruntime_f32(case, tried):
    return onnxruntime_candidates(case, tried, spellings(case, "plain", "fused", "mha"))


def onnxruntime_int8(case, tried):
    import quantise

    return onnxruntime_candidates(case, tried, list(quantise.onnxruntime_files(case)))


def openvino_model(path, settings):
    import openvino as ov

    return ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **settings})


def openvino_request(case, files):
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": case.threads}
    pixels = case.pixels()

    def build(path):
        request = openvino_model(path(), settings).create_infer_request()
        return timed(lambda: request.infer({"pixels": pixels}), case.batch)

    for kind, path in files:
        yield kind, lambda: build(path)


def queued(model, pixels, requests):
    """Images/s of a queue kept full, with as many requests as there are streams (0: as many as OpenVINO asks for)."""
    import openvino as ov

    queue = ov.AsyncInferQueue(model, requests)

    def turns(count):
        start = time.perf_counter()
        for _ in range(count * len(queue)):
            queue.start_async({"pixels": pixels})
        queue.wait_all()
        return time.perf_counter() - start

    last = [turns(1)]

    def run(least):
        if last[0] < 0.25:
            last[0] = turns(1)
        # drained once, at the end
        count = max(1, round(least / last[0]))
        last[0] = turns(count) / count
        return len(queue) * len(pixels) / last[0]

    return run


def openvino_queue(case, settings, files, requests=0, batch=None):
    settings = {"INFERENCE_NUM_THREADS": case.threads, **settings}
    for kind, path in files:
        yield kind, lambda: queued(openvino_model(path(), settings), case.pixels(batch), requests)


def openvino_latency(case, _tried):
    return openvino_request(case, spellings(case, "plain", "fused"))


def openvino_throughput(case, _tried):
    return openvino_queue(case, {"PERFORMANCE_HINT": "THROUGHPUT"}, spellings(case, "plain", "fused"))


def openvino_streams(case, tried):
    """One stream a core, with the case's batch a request, or one image a request."""
    settings = {"NUM_STREAMS": case.threads}
    files = spellings(case, "plain", "fused")
    yield from openvino_queue(case, settings, files, case.threads)
    if case.batch > 1:
        singles = spellings(case, *(kind for kind, _ in fastest_of(files, tried)), batch=1)
        for kind, build in openvino_queue(case, settings, singles, case.threads, 1):
            yield f"{kind}, one image a request", build


def openvino_int8(case, tried):
    import quantise

    files = quantise.openvino_files(case)
    for kind, build in openvino_request(case, files):
        yield f"latency, {kind}", build
    files = fastest_of(files, tried, "latency, ")
    for kind, build in openvino_queue(case, {"NUM_STREAMS": case.threads}, files, case.threads):
        yield f"streams, {kind}", build


def pytorch(case, _tried):
    import torch_network

    return torch_network.candidates(case)


ENGINES = {
    "ort": onnxruntime_f32,
    "ov-latency": openvino_latency,
    "ov-throughput": openvino_throughput,
    "ov-streams": openvino_streams,
    "torch": pytorch,
    "ort-int8": onnxruntime_int8,
    "ov-int8": openvino_int8,
}


def fastest(case, name):
    """`(label, run, {label: images/s or why not})` of the fastest: all are timed once, those near the best once more."""
    tried, runs = {}, {}
    for label, build in ENGINES[name](case, tried):
        try:
            run = build()
            tried[label] = run(0.15)
        # a spelling that this runtime cannot read leaves the others
        except Exception as error:  # noqa: BLE001
            tried[label] = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            continue
        runs[label] = run
        best = max(tried[known] for known in runs)
        runs = {known: kept for known, kept in runs.items() if tried[known] > 0.85 * best}
    if not runs:
        raise Skipped("; ".join(f"{label}: {why}" for label, why in tried.items()) or "nothing to run")
    for label, run in runs.items() if len(runs) > 1 else ():
        tried[label] = max(tried[label], run(0.15))
    best = max(runs, key=tried.get)
    return best, runs[best], tried
