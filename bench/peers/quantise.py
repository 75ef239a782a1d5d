"""The same network in int8, as ONNX Runtime's and OpenVINO's own tools make it from the f32 file."""
import os

import network

# onnx.TensorProto.FLOAT: what tensors are whose type cannot be inferred (behind MultiHeadAttention)
FLOAT = 1


class Reader:
    """A few batches of noise; speed does not depend on what the ranges are."""

    def __init__(self, batches):
        self.batches = iter([{"pixels": b} for b in batches])

    def get_next(self):
        return next(self.batches, None)


def dynamic(case, attention="plain"):
    """Weights per channel, activations measured as they come; products of two activations stay f32."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    build = lambda path: quantize_dynamic(
        case.onnx(attention), path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": FLOAT})
    return case.file(f"dynamic_{attention}", build)


def static(case, attention="plain", signed=False, everything=False):
    """QDQ with weights per channel; `everything`: the products of attention too."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    attention_products = [f"b{i}.{p}" for i in range(network.DEPTH) for p in "sa"] if attention == "plain" else []
    build = lambda path: quantize_static(
        case.onnx(attention), path, Reader([case.pixels()]), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        op_types_to_quantize=["MatMul"], nodes_to_exclude=[] if everything else attention_products,
        extra_options={"ActivationSymmetric": signed, "WeightSymmetric": True, "DefaultTensorType": FLOAT})
    kind = "s8" if signed else "u8"
    return case.file(f"static_{kind}{'_all' if everything else ''}_{attention}", build)


def onnxruntime_files(case):
    """`(label, path())` of each way to quantise."""
    yield "dynamic", lambda: dynamic(case)
    yield "dynamic, mha", lambda: dynamic(case, "mha")
    yield "static U8", lambda: static(case)
    yield "static U8, mha", lambda: static(case, "mha")
    yield "static S8", lambda: static(case, signed=True)
    yield "static U8 with attention", lambda: static(case, everything=True)


def nncf_file(case):
    """OpenVINO's own quantisation, by nncf."""
    import logging

    import nncf
    import openvino as ov

    logging.getLogger("nncf").setLevel(logging.ERROR)

    def build(path):
        data = nncf.Dataset([case.pixels()], lambda pixels: {"pixels": pixels})
        model = nncf.quantize(ov.Core().read_model(case.onnx("plain")), data, subset_size=1,
                              model_type=nncf.ModelType.TRANSFORMER)
        ov.save_model(model, path, compress_to_fp16=False)
        # the weights lie beside the .xml; its own name is what readers look for
        os.replace(path[:-4] + ".bin", os.path.join(case.folder, name + ".bin"))

    name = f"vit_{case.model}16_{case.side}_{case.batch}_nncf"
    return case.file("nncf", build, end=".xml")


def openvino_files(case):
    """nncf's, and the QDQ files of ONNX Runtime's tool, which OpenVINO reads as int8 too."""
    return [
        ("nncf", lambda: nncf_file(case)),
        ("QDQ S8", lambda: static(case, signed=True)),
        ("QDQ U8", lambda: static(case)),
    ]
