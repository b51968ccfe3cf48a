"""Models of one site, written node by node in the form that the lowering gives islands; without any lowering."""

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from backends.hopper.numerics import HopperArithmetic, site_weight
from calibrate.calibration import Calibration
from precision.policy import Scheme
from voice.site_call import ConvOptions, SiteCall

KINDS = {
    "fp32": TensorProto.FLOAT,
    "bf16": TensorProto.BFLOAT16,
    "fp16": TensorProto.FLOAT16,
    "fp8_e4m3": TensorProto.FLOAT8E4M3FN,
    "fp8_e5m2": TensorProto.FLOAT8E5M2,
}
LARGEST = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}
NAME = "site"


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call_of(op, x, weight, bias=None, options=None):
    return SiteCall(NAME, op, x, weight, bias, options, is_product=op == "matmul", index=0)


def calls() -> list[SiteCall]:
    """One of each op; k is up to 200."""

    def randoms(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
        return [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]

    strided, grouped = ConvOptions((2,), (1,), (2,)), ConvOptions((1,), (1,), (1,), 2)
    plane, up = ConvOptions((1, 2), (1, 0), (1, 1)), ConvOptions((4,), (2,), (1,), 2, (1,))
    return [
        call_of("linear", *randoms((2, 5, 48), (32, 48), (32,))),
        call_of("linear", *randoms((7, 33), (9, 33))),
        call_of("conv1d", *randoms((2, 40, 30), (32, 40, 5), (32,)), strided),
        call_of("conv1d", *randoms((1, 8, 30), (6, 4, 3)), None, grouped),
        call_of("conv2d", *randoms((1, 6, 9, 8), (5, 6, 3, 3), (5,)), plane),
        call_of("conv_transpose1d", *randoms((2, 40, 9), (40, 12, 7), (24,)), up),
        call_of("matmul", *randoms((2, 3, 7, 40), (2, 3, 40, 9))),
    ]


def calibration_of(call: SiteCall) -> Calibration:
    """A little below the largest, so that some values saturate."""
    operands = {"left": call.x, "right": call.weight} if call.is_product else {"input": call.x}
    return Calibration.of("amax", {NAME: {name: 0.9 * float(x.abs().amax()) for name, x in operands.items()}})


class _Island:
    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, role: str, *inputs: str, **attributes) -> str:
        name = f"site/{NAME}/{role}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, what: str, values: torch.Tensor, fmt: str = "fp32") -> str:
        name = f"{NAME}.{what}"
        if fmt == "fp32":
            tensor = numpy_helper.from_array(values.numpy(), name)
        else:  # values that the format holds
            tensor = helper.make_tensor(name, KINDS[fmt], values.shape, values.flatten().tolist())
        self.constants.append(tensor)
        return name

    def quantized(self, value: str, role: str, amax: float, fmt: str) -> str:
        scale = np.float32(amax) / np.float32(LARGEST[fmt])
        held = self.constant(f"{role}_scale", torch.tensor(float(scale)))
        zero = self.constant(f"{role}_zero", torch.tensor(0.0), fmt)
        codes = self.node("QuantizeLinear", f"quantize_{role}", value, held, zero, saturate=1)
        return self.node("DequantizeLinear", f"dequantize_{role}", codes, held)


def model_of(call: SiteCall, scheme: Scheme, calibration: Calibration) -> ModelProto:
    """The call as an ONNX model: input x (and right), output y; and the FP8 codes that its operands are rounded to."""
    made, prepared = _Island(), HopperArithmetic().prepare(call, scheme)
    fp8 = scheme.activation in LARGEST
    typed = "fp32" if fp8 else scheme.activation
    if fp8:
        first = "left" if call.is_product else "input"
        x = made.quantized("x", first, calibration.amax(NAME, first), scheme.activation)
    else:
        x = "x" if typed == "fp32" else made.node("Cast", "cast_input", "x", to=KINDS[typed])
    if not call.is_product:
        weight = _weight(made, call, scheme, prepared)
    elif fp8:
        weight = made.quantized("right", "right", calibration.amax(NAME, "right"), scheme.activation)
    else:
        weight = "right" if typed == "fp32" else made.node("Cast", "cast_weight", "right", to=KINDS[typed])
    bias = None if prepared.bias is None else made.constant("bias", prepared.bias, typed)
    options = call.options
    if options is None:
        y = made.node("MatMul", "compute", x, weight)
        y = y if bias is None else made.node("Add", "bias", y, bias)
    else:
        transposed = {"output_padding": options.output_padding} if call.op == "conv_transpose1d" else {}
        y = made.node(
            "ConvTranspose" if transposed else "Conv",
            "compute",
            *(name for name in (x, weight, bias) if name is not None),
            strides=options.stride,
            pads=[*options.padding, *options.padding],
            dilations=options.dilation,
            group=options.groups,
            **transposed,
        )
    if fp8:
        y = made.node("Cast", "cast_output", y, to=TensorProto.BFLOAT16)
    made.node("Cast", "cast_back", y, to=TensorProto.FLOAT)
    return _model(made, call)


def _weight(made: _Island, call: SiteCall, scheme: Scheme, prepared) -> str:
    linear = call.op == "linear"
    weight = call.weight if prepared.weight is None else prepared.weight
    if scheme.weight not in LARGEST:
        return made.constant("weight", weight.T.contiguous() if linear else weight, scheme.weight)
    codes, scale = site_weight(call.weight, call.op, 1 if call.options is None else call.options.groups, scheme)
    codes = codes.float()
    axis = {"linear": 1, "conv_transpose1d": 1}.get(call.op, 0)
    per_tensor = scale.numel() == 1
    stored = made.constant("weight", codes.T.contiguous() if linear else codes, scheme.weight)
    held = made.constant("weight_scale", scale[0] if per_tensor else scale)
    found = made.node("DequantizeLinear", "dequantize_weight", stored, held, **({} if per_tensor else {"axis": axis}))
    if scheme.activation in ("bf16", "fp16"):
        found = made.node("Cast", "cast_weight", found, to=KINDS[scheme.activation])
    return found


def _model(made: _Island, call: SiteCall) -> ModelProto:
    nodes = list(made.nodes)
    outputs = [("y", call.compute().shape)]
    for node in made.nodes:
        if node.op_type == "QuantizeLinear":
            role = node.name.rpartition("_")[2]
            # ONNX Runtime gives no FP8 to Python.
            nodes.append(helper.make_node("Cast", [node.output[0]], [f"{role}_codes"], to=TensorProto.FLOAT))
            outputs.append((f"{role}_codes", (call.weight if role == "right" else call.x).shape))
    nodes.append(helper.make_node("Identity", [made.nodes[-1].output[0]], ["y"]))
    given = {"x": call.x, **({"right": call.weight} if call.is_product else {})}
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        made.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
