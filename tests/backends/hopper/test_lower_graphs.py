"""Lowering of graphs out of the ordinary: shared weights, names that mean something, tables, groups, two dimensions."""

from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from backends.base import Measured
from backends.hopper.built import HopperBuilt
from backends.hopper.emulated import Emulated
from backends.hopper.lower import LoweringError, lower, lowering
from backends.hopper.lower.hosting import parted
from backends.hopper.lower.tracing import _check_axes, _spelled
from backends.hopper.manifest import Told, limits_of, manifest
from backends.hopper.onnx_runtime import OrtSession
from backends.tolerance import snr_db
from precision.policy import Policy, Scheme
from tests.backends.hopper.tiny_exports import BF16, E5M2, FP8, FP32, STORED, calibrated, random
from voice.graph import dynamic_graph, graph_of, site_nodes
from voice.graph.dynamic_sizes import Size

STORED_TENSOR = Scheme("w8a16_tensor", "fp8_e4m3", "bf16", weight_scale="tensor")


class Run(nn.Module):
    """A function of modules."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)
        self.eval().requires_grad_(False)

    def forward(self, *tensors):
        return self.function(self, *tensors)


def lowered(module, inputs, scheme, states=None, parts=("out",)):
    """The graph under one scheme, and what its static scales are."""
    graph = graph_of(module, inputs, states, parts=parts)
    measured = Measured(calibration=calibrated(graph))
    policy = Policy.uniform(list(dict.fromkeys(site.site for site in site_nodes(graph))), scheme)
    return lower(graph, policy, measured, "gemm" if scheme is E5M2 else "tensorrt"), measured


def least_snr_db(found, measured, inputs):
    """Of two runs of a model against its emulation, in the part that lies furthest."""
    onnx.checker.check_model(found.model, full_check=True)
    emulated = Emulated(found.graph, found.policy, measured)
    runs = HopperBuilt(found).compute([inputs, inputs])
    return min(snr_db(wanted[part], run[part]) for run in runs for wanted in [emulated.run(inputs)] for part in run)


def linear(size=32, **options):
    torch.manual_seed(size)
    return nn.Linear(32, size, **options)


LAYERS = {
    "conv2d": (nn.Conv2d, (32, 48, (3, 5)), {"stride": (2, 1), "padding": (1, 3), "dilation": (1, 2)}, (2, 32, 9, 20)),
    "transposed in groups": (
        nn.ConvTranspose1d,
        (32, 48, 7),
        {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2, "dilation": 2},
        (2, 32, 11),
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_two_dimensions_and_of_groups(kind, monkeypatch):
    torch.manual_seed(0)
    make, sizes, options, shape = LAYERS[kind]
    inputs = {"x": random(*shape)}
    graph = graph_of(Run(lambda self, x: self.layer(x), layer=make(*sizes, **options)), inputs, parts=("out",))
    monkeypatch.setattr(lowering, "site_model", cache(lowering.site_model))
    measured = Measured(calibration=calibrated(graph))
    for scheme in (FP8, STORED, STORED_TENSOR, BF16):
        found = lower(graph, Policy.uniform(["layer"], scheme), measured)
        assert least_snr_db(found, measured, inputs) > 60, scheme.name


def test_layers_that_share_a_weight_keep_their_own_biases():
    """One site, for its weight is one; an embedding that has it, too, reads it as it was."""
    first, second, third = linear(), linear(), linear(bias=False)
    with torch.no_grad():
        second.bias.add_(1.0)
    table = nn.Embedding(32, 32)
    second.weight = third.weight = table.weight = first.weight

    def function(self, x, i):
        return self.a(x) + self.z(i), self.b(x), self.c(x)

    inputs = {"x": random(4, 32), "i": torch.arange(4)}
    module = Run(function, a=first, b=second, c=third, z=table)
    for scheme, least in ((FP32, 100), (FP8, 60)):
        found, measured = lowered(module, inputs, scheme, parts=("one", "two", "three"))
        assert found.placed.keys() == {"a"}
        assert least_snr_db(found, measured, inputs) > least
        emulated = Emulated(found.graph, found.policy, measured).run(inputs)
        for wanted, part in zip(module(*inputs.values()), emulated.values(), strict=True):
            assert snr_db(wanted, part) > (100 if scheme is FP32 else 25)


@pytest.mark.parametrize("scheme", [FP32, FP8, E5M2], ids=lambda scheme: scheme.name)
def test_inputs_may_have_any_name(scheme):
    """Words of Python, which torch.fx names otherwise, and what constants of islands might be called."""

    def function(self, input, one, width_axis, max, y):
        return self.conv(self.layer(input).mT).mT + one + width_axis + max + self.y, max + y

    given = ("input", "one", "width_axis")
    inputs, states = {name: random(1, 5, 32) for name in (*given, "max")}, {"y": torch.zeros(1, 5, 32)}
    module = Run(function, layer=linear(), conv=nn.Conv1d(32, 32, 1))
    module.register_buffer("y", torch.ones(32))
    found, measured = lowered(module, inputs, scheme, states)
    assert [value.name for value in found.model.graph.input] == [*inputs, "y"]
    assert [spec["name"] for spec in manifest(found)["inputs"]] == list(inputs)
    assert least_snr_db(found, measured, inputs) > 60


def test_states_keep_their_order():
    def function(self, x, early, late):
        return self.layer(x) + early + 2 * late, x + late, early + 1

    inputs = {"x": random(2, 32)}
    zeros = {"early": torch.zeros(2, 32), "late": torch.zeros(2, 32)}
    found, measured = lowered(Run(function, layer=linear()), inputs, FP32, zeros)
    assert least_snr_db(found, measured, inputs) > 100
    assert {name: held["update"] for name, held in manifest(found)["states"].items()} == {
        "early": "early_next",
        "late": "late_next",
    }


def test_a_table_that_is_multiplied_is_an_operand_like_another():
    table = torch.arange(64.0).reshape(32, 2) / 64
    inputs = {"x": random(5, 32)}
    found, measured = lowered(Run(lambda self, x: x @ table), inputs, FP8)
    assert least_snr_db(found, measured, inputs) > 60
    held = manifest(found)["sites"]["#matmul0"]
    assert (held["weight"], held["activation"], held["quantize"]) == (None, "fp8_e4m3", 2)


def test_a_dynamic_scale_takes_a_magnitude_to_the_largest_of_its_format():
    found, _ = lowered(Run(lambda self, x: self.layer(x), layer=linear()), {"x": random(2, 32)}, E5M2)
    held = {tensor.name: tensor for tensor in found.model.graph.initializer}
    assert numpy_helper.to_array(held["largest.fp8_e5m2"]) == 57344


def test_outputs_that_the_host_computes_and_that_nobody_computes_keep_their_names():
    def function(self, x, f0_hz):
        phase = torch.cumsum(f0_hz.double(), 1).float()
        return self.layer(x * phase), phase, x, torch.ones(3)

    inputs = {"x": random(2, 32), "f0_hz": random(1, 32)}
    parts = ("sound", "phase", "given", "ones")
    found, _ = lowered(Run(function, layer=linear()), inputs, FP32, parts=parts)
    host, device = parted(found.model)
    assert tuple(value.name for value in device.graph.output) == parts
    given = {name: values.numpy() for name, values in inputs.items()}
    onnx.checker.check_model(device, full_check=True)
    handed = OrtSession(host).run({"f0_hz": given["f0_hz"]})
    made = OrtSession(device).run({"x": given["x"], **handed})
    for name, wanted in OrtSession(found.model).run(given).items():
        np.testing.assert_array_equal(made[name], wanted, err_msg=name)


def test_float64_that_hangs_on_state_or_leaves_the_model_is_refused():
    def kept(self, f0_hz, past):
        phase = past + torch.cumsum(f0_hz.double(), 1).float()
        return self.layer(torch.sin(phase.double()).float()), phase[:, -1:].expand(1, 32) + 0

    inputs, states = {"f0_hz": random(1, 32)}, {"past": torch.zeros(1, 32)}
    found, _ = lowered(Run(kept, layer=linear()), inputs, FP32, states)
    with pytest.raises(LoweringError, match="it depends on states past"):
        _ = found.parted
    module = Run(lambda self, x: (self.layer(x), torch.cumsum(x.double(), 1)), layer=linear())
    found, _ = lowered(module, {"x": random(2, 32)}, FP32, parts=("sound", "phase"))
    with pytest.raises(LoweringError, match="in and out go phase"):
        _ = found.parted


def test_float64_behind_a_site_is_refused_by_the_sites_whole_name():
    module = Run(lambda self, x: torch.cumsum(getattr(self, "a/b")(x).double(), 1).float(), **{"a/b": linear()})
    found, _ = lowered(module, {"x": random(2, 32)}, FP32)
    with pytest.raises(LoweringError, match="it depends on sites a/b"):
        _ = found.parted


def test_sites_in_other_types_and_weights_of_the_input_are_refused_by_name():
    inputs = {"x": random(2, 32)}
    with pytest.raises(LoweringError, match="\n  layer: its input is float16, and sites compute on float32"):
        lowered(Run(lambda self, x: self.layer(x.half()).float(), layer=linear().half()), inputs, FP32)

    def weighted(self, x):
        return nn.functional.conv1d(x, self.layer.weight * x.mean())

    with pytest.raises(LoweringError, match="its weight is computed while the model runs"):
        lowered(Run(weighted, layer=nn.Conv1d(32, 32, 1)), {"x": random(1, 32, 5)}, FP32)


def test_an_axis_that_was_fixed_is_told_by_its_input():
    free, fixed = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("a", "n"), ("b", 9))
    )
    model = helper.make_model(helper.make_graph([], "model", [free, fixed], []))
    _check_axes(model, {"a": {1: object()}, "b": None})
    with pytest.raises(LoweringError, match="keep these lengths open: b, axis 1"):
        _check_axes(model, {"a": {1: object()}, "b": {1: object()}})


def test_an_axis_as_long_as_two_others_together_is_named_by_both():
    """torch.export has no name for such a sum but one of its own, of which nobody knows the limits."""

    def function(self, phones, frames, mask):
        return self.layer(torch.cat([phones, frames], 1)) * mask

    def given(phones, frames):
        sizes = {"phones": (phones, 32), "frames": (frames, 32), "mask": (phones + frames, 1)}
        return {name: random(1, *shape) for name, shape in sizes.items()}

    module = Run(function, layer=linear())
    lengths = ((5, 7), (9, 8), (14, 11), (23, 31), (17, 40))
    graph = dynamic_graph([graph_of(module, given(*each), parts=("out",)) for each in lengths])
    found = lower(graph, Policy.of({"layer": FP32}))
    told = manifest(found, Told(limits_of(graph)))
    assert told["axes"].keys() == {"phones_length", "frames_length"}
    assert [spec["shape"] for spec in told["inputs"]] == [
        [1, "phones_length", 32],
        [1, "frames_length", 32],
        [1, "phones_length + frames_length", 1],
    ]
    made = told["outputs"]["out"]["shape"][1]
    assert sorted(made.split(" + ")) == ["frames_length", "phones_length"]
    other = given(12, 21)
    made = OrtSession(found.model).run({name: values.numpy() for name, values in other.items()})["out"]
    np.testing.assert_allclose(made, module(*other.values()).numpy(), atol=1e-5)


def test_sizes_are_spelled_in_whole_numbers():
    half = Size((("a", Fraction(1, 2)), ("b", Fraction(1))), Fraction(-3, 2))
    assert _spelled(half) == "(a + 2*b - 3)//2"
    assert _spelled(Size((("a", Fraction(3)),), Fraction(1))) == "3*a + 1"
