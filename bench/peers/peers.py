#!/usr/bin/env python3
"""Forward throughput of a ViT-S/16 (DINOv3 shape, random weights): flawtune beside ONNX Runtime and OpenVINO.

    python bench/peers/peers.py [--threads 2] [--rounds 7] [--cases 224x1,224x8,448x1]

Makes its own virtual environment beside the given folder on first use (onnxruntime, openvino, onnx, numpy from PyPI; torch
is not needed: the network is written to ONNX directly). flawtune is `cargo build --release -p flawtune-kernels --example
speed`, found in target/ or by FLAWTUNE_SPEED. Every engine runs the same shapes with the same number of threads; rounds
are interleaved, engine after engine, and the table shows medians of images/s.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PACKAGES = ["numpy", "onnx", "onnxruntime", "openvino"]
DIM, HEADS, DEPTH, PATCH, PREFIX = 384, 6, 12, 16, 5


def enter_environment(folder):
    """Restarts this script inside a virtual environment that has the peers."""
    if os.environ.get("FLAWTUNE_PEERS") or "FLAWTUNE_PEERS_PYTHON" in os.environ:
        python = os.environ.get("FLAWTUNE_PEERS_PYTHON")
        if python and os.path.realpath(sys.prefix) != os.path.realpath(os.path.dirname(os.path.dirname(python))):
            os.execv(python, [python, *sys.argv])
        return
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", *PACKAGES])
    os.environ["FLAWTUNE_PEERS"] = "1"
    os.execv(python, [python, *sys.argv])


def export(path, side, batch):
    """Writes the network with random weights to ONNX (opset 20: LayerNormalization and Gelu are single operators)."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    grid = side // PATCH
    tokens = PREFIX + grid * grid
    head = DIM // HEADS

    def const(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def random(name, *shape, scale=0.05):
        return const(name, rng.normal(0, scale, shape).astype(np.float32))

    def op(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def linear(x, name, inputs, outputs):
        y = op("MatMul", [x, random(f"{name}.w", inputs, outputs)], f"{name}.mm")
        return op("Add", [y, random(f"{name}.b", outputs)], f"{name}.y")

    def norm(x, name):
        gain, bias = const(f"{name}.g", np.ones(DIM, np.float32)), random(f"{name}.b", DIM)
        return op("LayerNormalization", [x, gain, bias], f"{name}.y", axis=-1, epsilon=1e-5)

    def ints(name, *values):
        return const(name, np.array(values, np.int64))

    angles = rng.uniform(-3, 3, (tokens, head // 2)).astype(np.float32)
    angles[:PREFIX] = 0
    cos = const("cos", np.tile(np.cos(angles), 2)[None, None])
    sin = const("sin", np.tile(np.sin(angles), 2)[None, None])
    split_heads = ints("split_heads", batch, tokens, HEADS, head)
    merge_heads = ints("merge_heads", batch, tokens, DIM)
    halves = ints("halves", head // 2, head // 2)

    def rotate(x, name):
        nodes.append(helper.make_node("Split", [x, halves], [f"{name}.a", f"{name}.c"], axis=-1))
        turned = op("Concat", [op("Neg", [f"{name}.c"], f"{name}.n"), f"{name}.a"], f"{name}.turned", axis=-1)
        return op("Add", [op("Mul", [x, cos], f"{name}.xc"), op("Mul", [turned, sin], f"{name}.ts")], f"{name}.r")

    x = op("Conv", ["pixels", random("patch.w", DIM, 3, PATCH, PATCH), random("patch.b", DIM)], "conv",
           kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    x = op("Reshape", [x, ints("flat", batch, DIM, grid * grid)], "conv.flat")
    x = op("Transpose", [x], "patches", perm=[0, 2, 1])
    x = op("Concat", [random("prefix", batch, PREFIX, DIM), x], "tokens", axis=1)
    scale = const("scale", np.array(head ** -0.5, np.float32))
    for i in range(DEPTH):
        n = f"b{i}"
        y = norm(x, f"{n}.n1")
        q, k, v = (
            op("Transpose", [op("Reshape", [linear(y, f"{n}.{p}", DIM, DIM), split_heads], f"{n}.{p}.h")], f"{n}.{p}.t",
               perm=[0, 2, 1, 3])
            for p in "qkv"
        )
        q, k = rotate(q, f"{n}.q"), rotate(k, f"{n}.k")
        s = op("MatMul", [op("Mul", [q, scale], f"{n}.qs"), op("Transpose", [k], f"{n}.kt", perm=[0, 1, 3, 2])], f"{n}.s")
        a = op("MatMul", [op("Softmax", [s], f"{n}.p", axis=-1), v], f"{n}.a")
        a = op("Reshape", [op("Transpose", [a], f"{n}.at", perm=[0, 2, 1, 3]), merge_heads], f"{n}.am")
        a = op("Mul", [linear(a, f"{n}.o", DIM, DIM), random(f"{n}.ls1", DIM)], f"{n}.as")
        x = op("Add", [x, a], f"{n}.x1")
        y = linear(norm(x, f"{n}.n2"), f"{n}.fc1", DIM, 4 * DIM)
        y = linear(op("Gelu", [y], f"{n}.gelu"), f"{n}.fc2", 4 * DIM, DIM)
        x = op("Add", [x, op("Mul", [y, random(f"{n}.ls2", DIM)], f"{n}.ms")], f"{n}.x2")
    x = norm(x, "final")
    graph = helper.make_graph(
        nodes, "vit",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, tokens, DIM])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def onnxruntime_engine(path, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})


def openvino_engine(path, threads, hint):
    import openvino as ov

    model = ov.Core().compile_model(path, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"})
    if hint == "LATENCY":
        request = model.create_infer_request()
        return lambda pixels: request.infer({"pixels": pixels})
    queue = ov.AsyncInferQueue(model)

    def run(pixels):
        for _ in range(len(queue)):
            queue.start_async({"pixels": pixels})
        queue.wait_all()
        return len(queue)

    return run


def seconds_per_call(run, pixels, least=0.4):
    """Median seconds of a call (of one batch), over at least `least` seconds."""
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < least or len(times) < 3:
        t = time.perf_counter()
        calls = run(pixels)
        times.append((time.perf_counter() - t) / (calls if isinstance(calls, int) else 1))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", default="224x1,224x8,448x1")
    parser.add_argument("--environment", default=os.path.join(ROOT, "target", "peers"))
    arguments = parser.parse_args()
    enter_environment(arguments.environment)
    import numpy as np

    speed = os.environ.get("FLAWTUNE_SPEED", os.path.join(ROOT, "target", "release", "examples", "speed"))
    work = os.path.join(arguments.environment, "models")
    os.makedirs(work, exist_ok=True)
    print(f"{arguments.threads} threads, f32, medians of {arguments.rounds} interleaved rounds, images/s", flush=True)
    for case in arguments.cases.split(","):
        side, batch = (int(x) for x in case.split("x"))
        path = os.path.join(work, f"vit_s16_{side}_{batch}.onnx")
        export(path, side, batch)
        pixels = np.random.default_rng(1).normal(size=(batch, 3, side, side)).astype(np.float32)
        engines = {
            "ONNX Runtime": onnxruntime_engine(path, arguments.threads),
            "OpenVINO latency": openvino_engine(path, arguments.threads, "LATENCY"),
            "OpenVINO throughput": openvino_engine(path, arguments.threads, "THROUGHPUT"),
        }
        rates = {name: [] for name in ["flawtune", *engines]}
        for run in engines.values():
            run(pixels)
        yards = []
        for _ in range(arguments.rounds):
            report = subprocess.run([speed, "s", str(side), str(batch), str(arguments.threads), "5"],
                                    capture_output=True, text=True, check=True).stdout
            rates["flawtune"].append(float(re.search(r"([\d.]+) images/s", report)[1]))
            yards.append(float(re.search(r"attainable ([\d.]+)", report)[1]))
            for name, run in engines.items():
                rates[name].append(batch / seconds_per_call(run, pixels))
        medians = {name: statistics.median(r) for name, r in rates.items()}
        best = max(v for n, v in medians.items() if n != "flawtune")
        line = "  ".join(f"{name} {value:.2f}" for name, value in medians.items())
        print(f"{side} px, batch {batch}: {line}  | flawtune / best peer {medians['flawtune'] / best:.2f}, "
              f"attainable {statistics.median(yards):.0f} GFLOP/s", flush=True)


if __name__ == "__main__":
    main()
