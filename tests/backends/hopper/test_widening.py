"""Widened models against the emulation: operands to the bit, sums as near as two orders of fp32 additions are."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from backends.hopper.exported.widening import NARROW, tensor_types, widened
from backends.hopper.numerics import HopperArithmetic, round_fp8
from backends.hopper.onnx_runtime import OrtSession
from precision.policy import Scheme
from tests.backends.hopper.by_hand import LARGEST, NAME, calibration_of, calls, model_of

SCHEMES = {
    "fp32": Scheme("fp32", "fp32", "fp32"),
    "bf16": Scheme("bf16", "bf16", "bf16"),
    "fp16": Scheme("fp16", "fp16", "fp16"),
    "fp8": Scheme("fp8", "fp8_e4m3", "fp8_e4m3"),
    "fp8_per_tensor": Scheme("fp8", "fp8_e4m3", "fp8_e4m3", weight_scale="tensor"),
    "e5m2": Scheme("e5m2", "fp8_e4m3", "fp8_e5m2"),
    "weight_only_bf16": Scheme("stored", "fp8_e4m3", "bf16", weight_scale="tensor"),
    "weight_only_fp16": Scheme("stored", "fp8_e4m3", "fp16", weight_scale="tensor"),
}
EPSILON = {"bf16": 2.0**-8, "fp16": 2.0**-11}
"""Half of the distance from 1 to the next value."""
FEW = 0.02


def takes(call, scheme):
    """Whether a weight has a scale for each output channel where ONNX has none: a transposed convolution in groups."""
    fp8 = scheme.weight in LARGEST and not call.is_product
    return not (fp8 and scheme.weight_scale == "channel" and call.op == "conv_transpose1d")


CASES = [
    pytest.param(call, scheme, id=f"{call.op}{index}-{name}")
    for index, call in enumerate(calls())
    for name, scheme in SCHEMES.items()
    if takes(call, scheme)
]


def emulated(call, scheme):
    arithmetic = HopperArithmetic()
    return arithmetic.compute(call, scheme, arithmetic.prepare(call, scheme), calibration_of(call))


def given(call):
    return {"x": call.x.numpy(), **({"right": call.weight.numpy()} if call.is_product else {})}


def summed_apart(call):
    """How far two fp32 sums of the same products may lie apart, and be right.

    Each is within gamma = k 2**-24 of the exact sum, of the sum of magnitudes; dequantized operands and scales add four
    roundings. Rounding to FP8 makes an operand larger by a sixteenth at most.
    """
    k = call.x.shape[-1] if call.options is None else call.weight[0].numel()
    k = call.weight.shape[0] * call.weight.shape[2] if call.op == "conv_transpose1d" else k
    magnitudes = call.compute(call.x.abs(), call.weight.abs(), None if call.bias is None else call.bias.abs())
    return 2 * (k + 4) * 2.0**-24 * (17 / 16) ** 2 * magnitudes


@pytest.mark.parametrize(("call", "scheme"), CASES)
def test_an_island_computes_what_is_emulated(call, scheme):
    found = OrtSession(model_of(call, scheme, calibration_of(call))).run(given(call))
    got, want = torch.from_numpy(found["y"]), emulated(call, scheme)
    assert got.shape == want.shape
    bound = summed_apart(call)
    stored = "bf16" if scheme.activation in LARGEST else scheme.activation
    if stored in EPSILON:
        # A sum near the middle of two values is rounded to one or to the other of them.
        bound = bound + 2 * EPSILON[stored] * torch.maximum(got.abs(), want.abs())
        assert (got != want).float().mean() < FEW
    assert ((got - want).abs() <= bound).all()


@pytest.mark.parametrize(("call", "scheme"), [case for case in CASES if case.values[1].activation in LARGEST])
def test_quantized_operands_are_equal_to_the_bit(call, scheme):
    found = OrtSession(model_of(call, scheme, calibration_of(call))).run(given(call))
    operands = {"left": call.x, "right": call.weight} if call.is_product else {"input": call.x}
    for name, values in operands.items():
        scale = values.new_tensor(calibration_of(call).amax(NAME, name)) / LARGEST[scheme.activation]
        assert np.array_equal(found[f"{name}_codes"], round_fp8(values / scale, scheme.activation).numpy())
        assert np.abs(found[f"{name}_codes"]).max() == LARGEST[scheme.activation]


@pytest.mark.parametrize(("call", "scheme"), CASES)
def test_no_node_but_cast_touches_16_bits_and_the_rest_stays(call, scheme):
    model = model_of(call, scheme, calibration_of(call))
    before = model.SerializeToString()
    wide = widened(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(wide, full_check=True)
    types = tensor_types(wide)
    for node in wide.graph.node:
        if node.op_type != "Cast":
            assert not {types[name] for name in (*node.input, *node.output) if name} & set(NARROW), node.name
    assert list(wide.graph.input) == list(model.graph.input)
    assert list(wide.graph.output) == list(model.graph.output)
    assert list(wide.graph.initializer) == list(model.graph.initializer)
    if scheme.activation not in EPSILON:
        assert list(wide.graph.node) == list(model.graph.node)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model_in(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


BF16 = TensorProto.BFLOAT16


def test_what_an_island_hands_on_inside_is_not_rounded():
    # 1 + 2**-9 is no bf16 value: rounded after the product, the sum would be 2**-9 short.
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=BF16),
        helper.make_node("MatMul", ["x16", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = [helper.make_tensor("w", BF16, [2, 1], [1.0, 1.0]), helper.make_tensor("b", BF16, [1], [-1.0])]
    model = model_in(nodes, [value("x", 1, [1, 2])], [value("y", 1, [1, 1])], constants)
    assert OrtSession(model).run({"x": np.array([[1.0, 2.0**-9]], np.float32)})["y"].item() == 2.0**-9


def test_what_leaves_an_island_is_rounded_once_and_ties_go_to_even():
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=BF16),
        helper.make_node("Add", ["x16", "x16"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_in(nodes, [value("x", 1, [600])], [value("y", 1, [600])])
    x = torch.cat([random_bits(596), torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0])])
    (got,) = OrtSession(model).run({"x": x.numpy()}).values()
    want = (x.bfloat16().float() * 2).bfloat16().float()
    assert np.array_equal(got, want.numpy(), equal_nan=True)


def random_bits(count):
    """Floats of all sizes, a third of them halfway between two bf16 values."""
    bits = torch.randint(0, 0x7F000000, (count,), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    bits[::3] = (bits[::3] & ~0xFFFF) | 0x8000
    return bits.view(torch.float32) * torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)


def test_16_bit_inputs_outputs_and_constants_of_a_graph_keep_their_types():
    held = helper.make_tensor("", TensorProto.FLOAT16, [2], [0.5, 3.0])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=held),
        helper.make_node("Mul", ["x", "c"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["y"]),
    ]
    half = TensorProto.FLOAT16
    model = model_in(nodes, [value("x", half, [2])], [value("y", half, [2]), value("scaled", half, [2])])
    wide = widened(model)
    onnx.checker.check_model(wide, full_check=True)
    assert [node.op_type for node in wide.graph.node].count("Cast") == 3
    found = OrtSession(model).run({"x": np.array([-1.0, 7.0], np.float16)})
    assert found["y"].dtype == np.float16
    assert found["y"].tolist() == [0.0, 21.0]
    assert found["scaled"].tolist() == [-0.5, 21.0]


def test_graphs_inside_nodes_are_refused_by_name():
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "b", [], [value("z", 1, [1])])
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    model = model_in([node], [value("x", 1, [1]), value("c", TensorProto.BOOL, [])], [value("y", 1, [1])])
    with pytest.raises(ValueError, match=r"'choice' \(If\) holds a graph"):
        widened(model)


def test_functions_of_a_model_are_refused():
    model = model_in(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")], [value("x", 1, [1])], [value("y", 1, [1])]
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 22)]))
    with pytest.raises(ValueError, match="functions of its own"):
        widened(model)


def test_types_do_not_need_the_numbers_of_large_weights():
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="elsewhere.bin")
    nodes = [helper.make_node("Cast", ["w"], ["w16"], to=BF16), helper.make_node("MatMul", ["x", "w16"], ["y"])]
    model = model_in(nodes, [value("x", BF16, [1, 64])], [value("y", BF16, [1, 64])], [weights])
    assert tensor_types(model) == {"x": BF16, "w": 1, "w16": BF16, "y": BF16}
    assert [node.op_type for node in widened(model).graph.node].count("MatMul") == 1
