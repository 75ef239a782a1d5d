"""The network that every engine runs, with random weights: DINOv3's ViT-S/16 or ViT-B/16, as ONNX or as safetensors.

Three spellings of the attention are written, since engines differ in which one they run fastest: `plain` (three products for q,
k and v, softmax between two products), `fused` (one product for q, k and v, and ONNX's Attention operator) and `mha` (the same
with ONNX Runtime's own MultiHeadAttention, which only that engine reads).
Imports numpy and onnx only inside functions, so that the measuring process stays small.
"""
import json
import os
import struct
import zlib

PATCH, PREFIX, DEPTH = 16, 5, 12
WIDTHS = {"s": (384, 6), "b": (768, 12)}


def tokens(side):
    return PREFIX + (side // PATCH) ** 2


class Graph:
    """Collects nodes and weights of an ONNX graph; every method returns the name of what it made."""

    def __init__(self):
        import numpy as np

        self.rng = np.random.default_rng(0)
        self.nodes, self.weights = [], []

    def const(self, name, value):
        import numpy as np
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, name, *values):
        import numpy as np

        return self.const(name, np.array(values, np.int64))

    def random(self, name, *shape, scale=0.05):
        import numpy as np

        return self.const(name, self.rng.normal(0, scale, shape).astype(np.float32))

    def op(self, kind, inputs, *names, domain="", **attributes):
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, list(names), name=names[0], domain=domain, **attributes))
        return names[0]

    def linear(self, x, name, inputs, outputs):
        y = self.op("MatMul", [x, self.random(f"{name}.w", inputs, outputs)], f"{name}.mm")
        return self.op("Add", [y, self.random(f"{name}.b", outputs)], f"{name}.y")

    def norm(self, x, name, dim):
        import numpy as np

        gain, bias = self.const(f"{name}.g", np.ones(dim, np.float32)), self.random(f"{name}.b", dim)
        return self.op("LayerNormalization", [x, gain, bias], f"{name}.y", axis=-1, epsilon=1e-5)


def export(path, model, side, batch, attention="plain"):
    """Writes the network to ONNX; LayerNormalization and Gelu are single operators (opset 20; 23 with `fused`)."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    dim, heads = WIDTHS[model]
    count, grid, head = tokens(side), side // PATCH, dim // heads
    fused, mha = attention == "fused", attention == "mha"
    g = Graph()
    angles = g.rng.uniform(-3, 3, (count, head // 2)).astype(np.float32)
    angles[:PREFIX] = 0
    # beside [batch, heads, tokens, head], or [batch, tokens, heads, head] with `mha`
    one = (None, slice(None), None) if mha else (None, None)
    cos = g.const("cos", np.tile(np.cos(angles), 2)[one])
    sin = g.const("sin", np.tile(np.sin(angles), 2)[one])
    split_heads = g.ints("split_heads", batch, count, heads, head)
    merge_heads = g.ints("merge_heads", batch, count, dim)
    halves = g.ints("halves", head // 2, head // 2)
    if fused or mha:
        thirds = g.ints("thirds", dim, dim, dim)
    else:
        scale = g.const("scale", np.array(head**-0.5, np.float32))

    def by_heads(x, name):
        return g.op("Transpose", [g.op("Reshape", [x, split_heads], f"{name}.h")], f"{name}.t", perm=[0, 2, 1, 3])

    def rotate(x, name):
        g.op("Split", [x, halves], f"{name}.a", f"{name}.c", axis=-1)
        turned = g.op("Concat", [g.op("Neg", [f"{name}.c"], f"{name}.n"), f"{name}.a"], f"{name}.turned", axis=-1)
        return g.op("Add", [g.op("Mul", [x, cos], f"{name}.xc"), g.op("Mul", [turned, sin], f"{name}.ts")], f"{name}.r")

    def joined(a, n):
        return g.op("Reshape", [g.op("Transpose", [a], f"{n}.at", perm=[0, 2, 1, 3]), merge_heads], f"{n}.am")

    def attend(y, n):
        if fused or mha:
            g.op("Split", [g.linear(y, f"{n}.qkv", dim, 3 * dim), thirds], f"{n}.q.y", f"{n}.k.y", f"{n}.v.y", axis=-1)
        if mha:
            q, k = (
                g.op("Reshape", [rotate(g.op("Reshape", [f"{n}.{p}.y", split_heads], f"{n}.{p}.h"), f"{n}.{p}"), merge_heads],
                     f"{n}.{p}.m")
                for p in "qk"
            )
            return g.op("MultiHeadAttention", [q, k, f"{n}.v.y"], f"{n}.am", domain="com.microsoft", num_heads=heads)
        if fused:
            q, k, v = (by_heads(f"{n}.{p}.y", f"{n}.{p}") for p in "qkv")
            q, k = rotate(q, f"{n}.q"), rotate(k, f"{n}.k")
            return joined(g.op("Attention", [q, k, v], f"{n}.a"), n)
        q, k, v = (by_heads(g.linear(y, f"{n}.{p}", dim, dim), f"{n}.{p}") for p in "qkv")
        q, k = rotate(q, f"{n}.q"), rotate(k, f"{n}.k")
        k = g.op("Transpose", [k], f"{n}.kt", perm=[0, 1, 3, 2])
        s = g.op("MatMul", [g.op("Mul", [q, scale], f"{n}.qs"), k], f"{n}.s")
        return joined(g.op("MatMul", [g.op("Softmax", [s], f"{n}.p", axis=-1), v], f"{n}.a"), n)

    x = g.op("Conv", ["pixels", g.random("patch.w", dim, 3, PATCH, PATCH), g.random("patch.b", dim)], "conv",
             kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    x = g.op("Reshape", [x, g.ints("flat", batch, dim, grid * grid)], "conv.flat")
    x = g.op("Transpose", [x], "patches", perm=[0, 2, 1])
    x = g.op("Concat", [g.random("prefix", batch, PREFIX, dim), x], "tokens", axis=1)
    for i in range(DEPTH):
        n = f"b{i}"
        a = attend(g.norm(x, f"{n}.n1", dim), n)
        a = g.op("Mul", [g.linear(a, f"{n}.o", dim, dim), g.random(f"{n}.ls1", dim)], f"{n}.as")
        x = g.op("Add", [x, a], f"{n}.x1")
        y = g.linear(g.norm(x, f"{n}.n2", dim), f"{n}.fc1", dim, 4 * dim)
        y = g.linear(g.op("Gelu", [y], f"{n}.gelu"), f"{n}.fc2", 4 * dim, dim)
        x = g.op("Add", [x, g.op("Mul", [y, g.random(f"{n}.ls2", dim)], f"{n}.ms")], f"{n}.x2")
    x = g.norm(x, "final", dim)
    graph = helper.make_graph(
        g.nodes, "vit",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, count, dim])], g.weights)
    opset, ir = (23, 11) if fused else (20, 9)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), path)


def safetensors(path, tensors):
    """Writes `{name: array}` in f32 (the format: length of the header, header, data)."""
    import numpy as np

    header, offset = {}, 0
    for name, array in tensors.items():
        end = offset + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, np.float32).tobytes())


def weight_file(path, model="s"):
    """Random weights of dinov3_vits16 (or vitb16) as `flawtune --weights` reads them, in Hugging Face's spelling."""
    import numpy as np

    rng = np.random.default_rng(0)
    dim, _ = WIDTHS[model]

    def random(*shape):
        return rng.normal(0, 0.05, shape).astype(np.float32)

    out = {
        "embeddings.cls_token": random(1, 1, dim),
        "embeddings.register_tokens": random(1, PREFIX - 1, dim),
        "embeddings.patch_embeddings.weight": random(dim, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.bias": random(dim),
        "norm.weight": np.ones(dim), "norm.bias": random(dim),
    }
    for i in range(DEPTH):
        n = f"layer.{i}"
        for part, rows, columns in (
            ("attention.q_proj", dim, dim), ("attention.k_proj", dim, dim), ("attention.v_proj", dim, dim),
            ("attention.o_proj", dim, dim), ("mlp.up_proj", 4 * dim, dim), ("mlp.down_proj", dim, 4 * dim),
        ):
            out[f"{n}.{part}.weight"] = random(rows, columns)
            if part != "attention.k_proj":
                out[f"{n}.{part}.bias"] = random(rows)
        for part in ("norm1", "norm2"):
            out[f"{n}.{part}.weight"], out[f"{n}.{part}.bias"] = np.ones(dim), random(dim)
        out[f"{n}.layer_scale1.lambda1"], out[f"{n}.layer_scale2.lambda1"] = random(dim), random(dim)
    safetensors(path, out)


def picture(path, side=224):
    """Writes a PNG of noise on a gradient (RGB, 8 bits)."""
    import numpy as np

    ramp = np.linspace(0, 200, side)[:, None, None]
    pixels = (ramp + np.random.default_rng(2).integers(0, 56, (side, side, 3))).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    whole = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", whole) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def built(path, build):
    """`path`, made by `build(temporary path)` unless it is there; never half a file under its own name."""
    if not os.path.exists(path):
        # the suffix stays: exporters look at it
        part = os.path.join(os.path.dirname(path), f"part-{os.getpid()}-{os.path.basename(path)}")
        build(part)
        os.replace(part, path)
    return path
