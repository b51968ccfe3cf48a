"""Lowering to ONNX: what stands at a site, what the whole keeps of the graph, what is refused, and the host's part."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from backends.base import Measured
from backends.hopper.lower import LoweringError, lower, site_model
from backends.hopper.lower.decompositions import cummax, repeat_interleave
from backends.hopper.lower.hosting import parted
from backends.hopper.lower.lowering import Placed, expanded
from backends.hopper.lower.tracing import DOMAIN, output_names
from backends.hopper.numerics import HopperArithmetic, site_weight
from backends.hopper.onnx_runtime import OrtSession
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from tests.conformance.layers import KINDS, inputs, layers_graph
from voice.graph import graph_of

FP32, BF16, FP16 = (Scheme(fmt, fmt, fmt) for fmt in ("fp32", "bf16", "fp16"))
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
PER_TENSOR = Scheme("fp8_tensor", "fp8_e4m3", "fp8_e4m3", weight_scale="tensor")
STORED = Scheme("stored", "fp8_e4m3", "bf16")
DYNAMIC = Scheme("dynamic", "fp8_e4m3", "fp8_e5m2", activation_scale="dynamic")
SCHEMES = (FP32, BF16, FP16, FP8, PER_TENSOR, STORED, DYNAMIC)


@pytest.fixture(scope="module")
def layers():
    graph, sites = layers_graph(dict.fromkeys(KINDS, 1))
    ranges = {}
    for site in sites:
        sides = ("left", "right") if not site.weight_shape else ("input",)
        ranges[site.name] = dict.fromkeys(sides, 3.0)
    return graph, site_model(graph), [site.name for site in sites], Measured(calibration=Calibration.of("amax", ranges))


def uniform(layers, scheme):
    graph, model, names, measured = layers
    return expanded(model, graph, Policy.uniform(names, scheme), measured)


def nodes_of(lowered, site):
    return {
        node.name.removeprefix(f"site/{site}/"): node
        for node in lowered.model.graph.node
        if node.name.startswith(f"site/{site}/")
    }


def held(lowered):
    return {tensor.name: tensor for tensor in lowered.model.graph.initializer}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_every_kind_of_site_computes_what_is_emulated(layers, scheme):
    graph, *_, measured = layers
    lowered = uniform(layers, scheme)
    onnx.checker.check_model(lowered.model, full_check=True)
    found = OrtSession(lowered.model).run({name: values.numpy() for name, values in inputs().items()})

    def emulate(call):
        arithmetic = HopperArithmetic()
        return arithmetic.compute(call, scheme, arithmetic.prepare(call, scheme), measured.calibration)

    for part, wanted in zip(graph.parts, graph.run(handler=emulate), strict=True):
        # One unit in the last place where the orders of two fp32 sums lie on both sides of a tie.
        unit = {"fp32": 2.0**-20, "fp16": 2.0**-10}.get(scheme.activation, 2.0**-7)
        np.testing.assert_allclose(found[part], wanted.numpy(), rtol=unit, atol=1e-5, err_msg=part)


@pytest.mark.parametrize(
    ("scheme", "linear", "product"),
    [
        (FP32, ["compute", "bias"], ["compute"]),
        (BF16, ["cast_input", "compute", "bias", "cast_back"], ["cast_left", "cast_right", "compute", "cast_back"]),
        (
            FP8,
            "quantize_input dequantize_input dequantize_weight compute bias cast_output cast_back".split(),
            "quantize_left dequantize_left quantize_right dequantize_right compute cast_output cast_back".split(),
        ),
        (
            STORED,
            ["cast_input", "dequantize_weight", "cast_weight", "compute", "bias", "cast_back"],
            ["cast_left", "cast_right", "compute", "cast_back"],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Scheme) else "",
)
def test_a_site_has_its_schemes_nodes_and_no_others(layers, scheme, linear, product):
    lowered = uniform(layers, scheme)
    _, _, names, _ = layers
    kinds = dict(zip(KINDS, names, strict=True))
    assert list(nodes_of(lowered, kinds["linear"])) == linear
    assert list(nodes_of(lowered, kinds["product"])) == product
    assert [node.op_type for node in lowered.model.graph.node if not node.name.startswith("site/")] == []
    quantizes = scheme.activation.startswith("fp8")
    assert lowered.placed[kinds["product"]].quantize == 2 * quantizes
    assert lowered.placed[kinds["linear"]].dequantize == quantizes + scheme.weight.startswith("fp8")
    counted = [node.op_type for node in lowered.model.graph.node]
    for kind, field in (("QuantizeLinear", "quantize"), ("DequantizeLinear", "dequantize"), ("Cast", "casts")):
        assert counted.count(kind) == sum(getattr(placed, field) for placed in lowered.placed.values())


def test_fp8_weights_are_stored_as_their_codes(layers):
    graph, _, names, _ = layers
    lowered = uniform(layers, FP8)
    kinds = dict(zip(KINDS, names, strict=True))
    stored = held(lowered)
    for kind, op in (("linear", "linear"), ("conv", "conv1d"), ("transposed", "conv_transpose1d")):
        weight = dict(graph.module.named_parameters())[f"{kinds[kind]}.weight"].detach()
        codes, scale = site_weight(weight, op, 1, FP8)
        tensor = stored[f"{kinds[kind]}.weight"]
        assert tensor.data_type == TensorProto.FLOAT8E4M3FN
        expected = (codes.T if op == "linear" else codes).contiguous().view(torch.uint8)
        assert tensor.raw_data == expected.numpy().tobytes()
        np.testing.assert_array_equal(numpy_helper.to_array(stored[f"{kinds[kind]}.weight_scale"]), scale.numpy())
        axis = nodes_of(lowered, kinds[kind])["dequantize_weight"].attribute[0].i
        assert tensor.dims[axis] == scale.numel()
    # Eight bits a weight, with its scale: all else is biases and zeros.
    assert sum(len(tensor.raw_data) for tensor in stored.values()) < 1.15 * sum(
        parameter.numel() for parameter in graph.module.parameters()
    )


def test_static_scales_are_calibrated_ones_and_dynamic_ones_computed(layers):
    _, _, names, _ = layers
    kinds = dict(zip(KINDS, names, strict=True))
    scale = numpy_helper.to_array(held(uniform(layers, FP8))[f"{kinds['conv']}.input_scale"])
    assert scale == np.float32(3.0) / np.float32(448)
    dynamic = nodes_of(uniform(layers, DYNAMIC), kinds["conv"])
    assert list(dynamic)[:6] == [
        "lift_input",
        "magnitude_input",
        "amax_input",
        "ratio_input",
        "above_input",
        "scale_input",
    ]
    assert dynamic["quantize_input"].input[1] == "site/" + kinds["conv"] + "/scale_input"


def test_a_model_is_the_same_bytes_every_time_and_names_no_place(layers):
    graph, model, *_ = layers
    one, other = uniform(layers, FP8).model, uniform(layers, FP8).model
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert site_model(graph).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    text = one.SerializeToString(deterministic=True)
    assert b".py" not in text
    assert DOMAIN.encode() not in text.replace(b"precision-search", b"")
    assert [opset.domain for opset in one.opset_import] == [""]


def test_all_that_is_in_the_way_is_named_at_once(layers):
    graph, model, names, _ = layers
    with pytest.raises(LoweringError) as caught:
        expanded(model, graph, Policy.uniform(names[1:], FP8))
    text = str(caught.value)
    assert f"{names[0]}: the policy has no scheme for it" in text
    assert all(name in text for name in names)
    assert "no calibration" in text


class Twice(nn.Module):
    """One layer that is called twice, and a weight that is computed while it runs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.register_buffer("base", torch.eye(16))

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_second_call_reads_the_constants_of_the_first():
    torch.manual_seed(0)
    graph = graph_of(Twice().eval().requires_grad_(False), {"x": torch.randn(3, 16)}, parts=("out",))
    lowered = lower(
        graph, Policy.of({"layer": FP8}), Measured(calibration=Calibration.of("amax", {"layer": {"input": 2.0}}))
    )
    assert lowered.placed == {"layer": Placed(calls=2, quantize=2, dequantize=4, casts=4)}
    assert "site/layer#2/compute" in {node.name for node in lowered.model.graph.node}
    assert [name for name in held(lowered) if name.endswith(".weight")] == ["layer.weight"]


def test_trained_weights_take_the_place_of_the_models():
    torch.manual_seed(0)
    graph = graph_of(Twice().eval().requires_grad_(False), {"x": torch.randn(3, 16)}, parts=("out",))
    trained = Operands(2 * torch.eye(16), torch.zeros(16))
    scheme = Scheme("fp32", "fp32", "fp32", adapted="abc")
    lowered = lower(graph, Policy.of({"layer": scheme}), Measured(adapted={"abc": {"layer": trained}}))
    out = OrtSession(lowered.model).run({"x": graph.examples["x"].numpy()})["out"]
    np.testing.assert_allclose(out, 4 * graph.examples["x"].numpy())


def test_weights_with_gradients_and_clips_made_without():
    with torch.inference_mode():
        x = torch.randn(3, 16)
    graph = graph_of(Twice().eval(), {"x": x}, parts=("out",))
    assert len(lower(graph, Policy.of({"layer": BF16})).model.graph.input) == 1


class Named(nn.Module):
    """A state, and a part of the name of an input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, kept):
        return self.layer(x) + kept, kept + x


def test_parts_states_and_inputs_share_one_space_of_names():
    graph = graph_of(
        Named().eval().requires_grad_(False), {"x": torch.ones(1, 4)}, {"kept": torch.zeros(1, 4)}, parts=("x",)
    )
    assert output_names(graph) == {"x": "x_out", "kept": "kept_next"}
    lowered = lower(graph, Policy.of({"layer": FP32}))
    assert [value.name for value in lowered.model.graph.input] == ["x", "kept"]
    assert [value.name for value in lowered.model.graph.output] == ["x_out", "kept_next"]


class Oscillator(nn.Module):
    """A phase summed up in float64, then a layer."""

    def __init__(self, after=True):
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.after = after

    def forward(self, f0_hz):
        driven = f0_hz if self.after else self.layer(f0_hz).repeat(1, 2)
        phase = torch.cummax(torch.cumsum(driven.double() / 100, 1), 1).values
        sine = torch.sin(phase - torch.floor(phase)).float()
        return self.layer(sine) if self.after else sine


def test_float64_is_the_hosts():
    torch.manual_seed(0)
    graph = graph_of(Oscillator().eval().requires_grad_(False), {"f0_hz": torch.rand(1, 16) * 300}, parts=("out",))
    whole = lower(graph, Policy.of({"layer": FP32})).model
    host, device = parted(whole)
    assert host is not None
    assert [value.name for value in host.graph.output] == [value.name for value in device.graph.input] == ["host_0"]
    assert not any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in device.graph.value_info)
    for part in (host, device):
        onnx.checker.check_model(part, full_check=True)
    given = {"f0_hz": graph.examples["f0_hz"].numpy()}
    handed = OrtSession(host).run(given)
    wanted = OrtSession(whole).run(given)["out"]
    np.testing.assert_array_equal(OrtSession(device).run(handed)["out"], wanted)
    np.testing.assert_allclose(wanted, graph.run()[0].numpy(), atol=1e-5)


def test_without_float64_nothing_is_parted_off(layers):
    lowered = uniform(layers, BF16)
    host, device = parted(lowered.model)
    assert host is None
    assert device is lowered.model


def test_float64_behind_a_site_is_refused():
    torch.manual_seed(0)
    module = Oscillator(after=False).eval().requires_grad_(False)
    graph = graph_of(module, {"f0_hz": torch.rand(1, 16) * 300}, parts=("out",))
    with pytest.raises(LoweringError, match=r"depends on sites layer. Compute it in float32"):
        parted(lower(graph, Policy.of({"layer": FP32})).model)


def test_decompositions_are_what_torch_computes():
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 8, 37):
        x = torch.randn(3, size, 2, generator=generator, dtype=torch.float64)
        assert torch.equal(cummax(x, 1)[0], torch.cummax(x, 1).values)
        counts = torch.randint(0, 4, (size,), generator=generator)
        wanted = torch.repeat_interleave(x, counts, 1)
        assert torch.equal(repeat_interleave(x, counts, 1, output_size=wanted.shape[1]), wanted)
    with pytest.raises(NotImplementedError, match="force the durations"):
        repeat_interleave(x, counts, 1)
