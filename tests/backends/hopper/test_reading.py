"""What a model shows of its sites: read from its nodes and types, and from nothing else."""

import pytest
from onnx import TensorProto

from backends.hopper.reading import Read, shown
from precision.policy import Scheme
from tests.backends.hopper.by_hand import NAME, calibration_of, call_of, calls, model_of, random
from voice.site_call import ConvOptions

LINEAR, PRODUCT, TRANSPOSED = (
    next(call for call in calls() if call.op == op) for op in ("linear", "matmul", "conv_transpose1d")
)
E4M3 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")


def shown_of(call, scheme, change=lambda model: None):
    model = model_of(call, scheme, calibration_of(call))
    change(model)
    (found,) = shown(model, {NAME})
    return found


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("call", [LINEAR, PRODUCT, TRANSPOSED], ids=lambda call: call.op)
def test_wide_operands(call, fmt):
    found = shown_of(call, Scheme("wide", fmt, fmt))
    assert (found.left, found.right) == (Read(fmt), Read(fmt, constant=not call.is_product))
    assert (found.site, found.computed, found.stored) == (NAME, fmt, fmt)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("activation", ["fp8_e4m3", "fp8_e5m2"])
def test_scaled_operands(activation, granularity):
    found = shown_of(LINEAR, Scheme("fp8", "fp8_e4m3", activation, weight_scale=granularity))
    assert found.left == Read(activation, "tensor", "static")
    assert found.right == Read("fp8_e4m3", granularity, "static", constant=True)
    assert (found.computed, found.stored) == ("fp32", "bf16")


def test_a_weight_stored_narrower_than_it_is_multiplied():
    found = shown_of(TRANSPOSED, Scheme("stored", "fp8_e4m3", "fp16", weight_scale="tensor"))
    assert found.left == Read("fp16")
    assert found.right == Read("fp8_e4m3", "tensor", "static", constant=True)
    assert (found.computed, found.stored) == ("fp16", "fp16")


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_of_one_channel_a_scale_says_nothing(granularity):
    call = call_of("conv1d", random(1, 8, 9), random(1, 8, 3), None, ConvOptions((1,), (1,), (1,)))
    scheme = Scheme("stored", "fp8_e4m3", "bf16", weight_scale=granularity)
    assert shown_of(call, scheme).right == Read("fp8_e4m3", None, "static", constant=True)


def test_a_product_of_scaled_activations():
    found = shown_of(PRODUCT, E4M3)
    assert found.left == found.right == Read("fp8_e4m3", "tensor", "static")


def node_of(model, role):
    return next(node for node in model.graph.node if node.name == f"site/{NAME}/{role}")


def test_quantization_that_was_left_out_is_seen():
    def leave_out(model):
        node_of(model, "compute").input[0] = "x"

    assert shown_of(LINEAR, E4M3, leave_out).left == Read("fp32")


def test_a_result_stored_otherwise_is_seen():
    def store(model):
        node_of(model, "cast_output").attribute[0].i = TensorProto.FLOAT16

    assert shown_of(LINEAR, E4M3, store).stored == "fp16"


def test_a_scale_that_is_computed_is_dynamic():
    def compute(model):
        # The constant becomes an input of the graph: something that differs from run to run.
        scale = next(tensor for tensor in model.graph.initializer if tensor.name == f"{NAME}.input_scale")
        model.graph.initializer.remove(scale)
        model.graph.input.add(name=scale.name).type.tensor_type.elem_type = TensorProto.FLOAT
        model.graph.input[-1].type.tensor_type.shape.SetInParent()

    assert shown_of(LINEAR, E4M3, compute).left == Read("fp8_e4m3", "tensor", "dynamic")


def test_weights_of_another_format_are_seen():
    other = model_of(LINEAR, Scheme("e5m2", "fp8_e5m2", "fp8_e4m3"), calibration_of(LINEAR))
    (found,) = shown(other, {NAME})
    assert found.right.fmt == "fp8_e5m2"


def test_calls_of_a_site_are_numbered_and_a_name_may_have_a_hash():
    model = model_of(LINEAR, E4M3, calibration_of(LINEAR))
    for node in model.graph.node:
        node.name = node.name.replace(f"site/{NAME}/", f"site/{NAME}#2/")
    assert [call.site for call in shown(model, {NAME})] == [NAME]
    assert [call.site for call in shown(model, {f"{NAME}#2"})] == [f"{NAME}#2"]
