"""Simulated programs: every operation by hand, and whole lowered models against the emulation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.base import Arithmetic
from backends.emulation.engine import EmulatedEngine
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.lower import lower, stored_operands
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.program import CardStep, Compute, Constant, HostStep, Program, State, Step, Value
from backends.tenstorrent.rounding import host_bf16, pack_blocks, pack_float
from backends.tenstorrent.simulate import SimulationError, Simulator, simulate
from backends.tenstorrent.storage import store_operands
from precision.policy import Policy, Scheme
from tests.families import parts
from tests.families.autoregressive import AutoregressiveVoice
from tests.families.codec import CodecVoice
from tests.families.sampler import SamplerVoice
from tests.families.understanding import UnderstandingVoice
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import SiteGraph, export_graph, site_nodes
from voice.hifigan import V2, Generator, HifiganVoice
from voice.model import Clip, Voice
from voice.site_call import ConvOptions, SiteCall

torch.set_num_threads(1)
HIFI4 = Compute("hifi4", fp32_accumulation=True)


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def host(name: str, values: Tensor) -> Value:
    return Value(name, tuple(values.shape), str(values.dtype).removeprefix("torch."), place="host")


def constant(name: str, values: Tensor, dtype: str, site: str | None = None, **more: Any) -> Constant:
    return Constant(
        Value(name, tuple(values.shape), dtype), values.contiguous().numpy(), dtype, "tile", site=site, **more
    )


def program_of(
    steps: Sequence[Step],
    inputs: Mapping[str, Tensor],
    constants: Sequence[Constant] = (),
    outputs: Mapping[str, str] | None = None,
    **more: Any,
) -> Program:
    return Program(
        "blackhole",
        "blackhole_p150",
        tuple(host(name, values) for name, values in inputs.items()),
        {held.value.name: held for held in constants},
        more.pop("host_constants", {}),
        tuple(steps),
        outputs or {"y": "y_back"},
        **more,
    )


def around(
    op: str,
    inputs: Sequence[Tensor],
    options: Mapping[str, Any],
    result: Tensor,
    dtype: str = "fp32",
    source: str = "fp32",
) -> tuple[Program, dict[str, Tensor]]:
    """A program that moves its inputs to the card, computes one operation, and moves the result back."""
    given = {f"x{index}": values for index, values in enumerate(inputs)}
    steps: list[Step] = [
        CardStep("upload", (name,), Value(f"{name}_card", tuple(values.shape), _kind(values, source)))
        for name, values in given.items()
    ]
    steps.append(CardStep(op, tuple(f"{name}_card" for name in given), Value("y", tuple(result.shape), dtype), options))
    steps.append(CardStep("download", ("y",), host("y_back", result.float())))
    return program_of(steps, given), given


def _kind(values: Tensor, source: str) -> str:
    return source if values.is_floating_point() else "uint32"


X, Y = seeded(1, 1, 6, 20), seeded(1, 1, 6, 20) + 3
ROW = seeded(1, 1, 1, 20)
HEADS = seeded(1, 2, 5, 8)
OPS: dict[str, tuple[str, tuple[Tensor, ...], Mapping[str, Any], Tensor]] = {
    "add": ("add", (X, Y), {}, X + Y),
    "add of a row": ("add", (X, ROW), {}, X + ROW),
    "add of a number": ("add", (X,), {"scalar": 0.1}, X + 0.1),
    "subtract": ("subtract", (X, Y), {}, X - Y),
    "subtract from a number": ("subtract", (X,), {"scalar": 1.0, "reversed": True}, 1 - X),
    "multiply": ("multiply", (X, Y), {}, X * Y),
    "divide": ("divide", (X, Y), {}, X / Y),
    "a number by": ("divide", (Y,), {"scalar": 2.0, "reversed": True}, 2 / Y),
    "maximum": ("maximum", (X, Y), {}, torch.maximum(X, Y)),
    "minimum of a number": ("minimum", (X,), {"scalar": 0.5, "reversed": False}, X.clamp(max=0.5)),
    "pow": ("pow", (X.abs(),), {"exponent": 1.5}, X.abs() ** 1.5),
    "leaky_relu": ("leaky_relu", (X,), {"slope": 0.1}, F.leaky_relu(X, 0.1)),
    "relu": ("relu", (X,), {}, X.relu()),
    "gelu": ("gelu", (X,), {"approximate": "none"}, F.gelu(X)),
    "gelu by tanh is the accurate one": ("gelu", (X,), {"approximate": "tanh"}, F.gelu(X)),
    "silu": ("silu", (X,), {}, F.silu(X)),
    "elu": ("elu", (X,), {"alpha": 0.7}, F.elu(X, 0.7)),
    "tanh": ("tanh", (X,), {}, X.tanh()),
    "sigmoid": ("sigmoid", (X,), {}, X.sigmoid()),
    "exp": ("exp", (X,), {}, X.exp()),
    "log": ("log", (X.abs(),), {}, X.abs().log()),
    "sin": ("sin", (X,), {}, X.sin()),
    "cos": ("cos", (X,), {}, X.cos()),
    "sqrt": ("sqrt", (X.abs(),), {}, X.abs().sqrt()),
    "rsqrt": ("rsqrt", (X.abs(),), {}, X.abs().rsqrt()),
    "abs": ("abs", (X,), {}, X.abs()),
    "neg": ("neg", (X,), {}, -X),
    "square": ("square", (X,), {}, X * X),
    "reciprocal": ("reciprocal", (Y,), {}, 1 / Y),
    "clamp": ("clamp", (X,), {"min": -0.5, "max": None}, X.clamp(min=-0.5)),
    "softplus": ("softplus", (X,), {}, F.softplus(X)),
    "layer_norm": (
        "layer_norm",
        (X, ROW, ROW + 1),
        {"epsilon": 1e-5},
        F.layer_norm(X, (20,), ROW[0, 0, 0], ROW[0, 0, 0] + 1),
    ),
    "layer_norm alone": ("layer_norm", (X,), {"epsilon": 1e-3}, F.layer_norm(X, (20,), eps=1e-3)),
    "rms_norm": ("rms_norm", (X, ROW), {"epsilon": 1e-6}, F.rms_norm(X, (20,), ROW[0, 0, 0], 1e-6)),
    "group_norm": (
        "group_norm",
        (X, ROW.view(1, 1, 2, 10), ROW),
        {"groups": 4, "epsilon": 1e-5},
        F.group_norm(X[0, 0].T[None], 4, ROW[0, 0, 0], ROW[0, 0, 0])[0].T[None, None],
    ),
    "softmax": ("softmax", (X,), {"axis": -1}, X.softmax(-1)),
    "sum": ("sum", (X,), {"axis": 2, "keep": True}, X.sum(2, keepdim=True)),
    "mean": ("mean", (X,), {"axis": 3, "keep": True}, X.mean(3, keepdim=True)),
    "attention": (
        "attention",
        (HEADS, HEADS + 1, HEADS - 1),
        {"causal": True, "scale": None},
        F.scaled_dot_product_attention(HEADS, HEADS + 1, HEADS - 1, is_causal=True),
    ),
    "permute": ("permute", (HEADS,), {"order": (0, 2, 1, 3)}, HEADS.permute(0, 2, 1, 3)),
    "reshape": ("reshape", (HEADS,), {"shape": (1, 1, 10, 8)}, HEADS.reshape(1, 1, 10, 8)),
    "to_layout": ("to_layout", (X,), {}, X),
    "slice": ("slice", (X,), {"begins": (0, 0, 1, 3), "ends": (1, 1, 5, 20)}, X[:, :, 1:5, 3:]),
    "concat": ("concat", (X, Y), {"axis": 3}, torch.cat([X, Y], 3)),
    "pad": ("pad", (X,), {"pads": ((0, 0), (0, 0), (0, 2), (1, 0)), "value": 0.5}, F.pad(X, (1, 0, 0, 2), value=0.5)),
    "repeat": ("repeat", (ROW,), {"counts": (1, 1, 6, 1)}, ROW.expand(1, 1, 6, 20)),
    "embedding": ("embedding", (torch.tensor([[2, 0, 2]]), X[0, 0]), {}, X[0, 0][[2, 0, 2]][None]),
    "typecast": ("typecast", (X,), {}, X),
}


@pytest.mark.parametrize("name", OPS)
def test_operations_are_torchs_and_rounded_by_the_packer(name: str) -> None:
    op, inputs, options, expected = OPS[name]
    program, given = around(op, inputs, options, expected)
    torch.testing.assert_close(simulate(program, given)["y"], expected, rtol=1e-6, atol=1e-6)
    wide = simulate(program, given)["y"]
    program, _ = around(op, inputs, options, expected, dtype="bf16")
    assert torch.equal(simulate(program, given)["y"], pack_float(wide, 7))


def test_uploads_round_as_the_host_does_and_typecasts_as_the_packer_does() -> None:
    tie = torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8, 1e-39, *[0.3] * 13]])  # halfway between two of bf16, and a denormal
    program, given = around("typecast", (tie,), {}, tie, dtype="bf16")
    assert torch.equal(simulate(program, given)["y"][:, :3], torch.tensor([[1 + 2**-7, 1 + 2**-6, 0.0]]))
    program, given = around("typecast", (tie,), {}, tie, source="bf16")
    assert torch.equal(simulate(program, given)["y"][:, :2], torch.tensor([[1.0, 1 + 2**-6]]))
    assert torch.equal(simulate(program, given)["y"], host_bf16(tie))
    x = seeded(1, 1, 4, 20)
    for dtype in ("bfp8_b", "bfp4_b"):
        program, given = around("typecast", (x,), {}, x, dtype=dtype)
        assert torch.equal(simulate(program, given)["y"], pack_blocks(x, dtype, -1))
    # A block of the host's saturates where the packer's carries: 16 along the last axis share the exponent of 1.
    block = torch.tensor([[1.0, 1.999, 0.01, *[0.0] * 13]])
    program, given = around("typecast", (block,), {}, block, source="bfp8_b")
    assert torch.equal(simulate(program, given)["y"][0, :3], torch.tensor([1.0, 127 / 64, 1 / 64]))


def test_axes_are_turned_on_the_way_to_the_card_and_back() -> None:
    x = seeded(1, 3, 5)
    steps = [
        CardStep("upload", ("x",), Value("up", (1, 1, 5, 3), "fp32"), {"view": (1, 1, 3, 5), "order": (0, 1, 3, 2)}),
        CardStep("download", ("up",), host("y_back", x), {"order": (0, 1, 3, 2), "shape": (1, 3, 5)}),
    ]
    seen: list[tuple[Value, Tensor]] = []
    outputs = Simulator(program_of(steps, {"x": x}), watch=lambda *pair: seen.append(pair)).run({"x": x})
    assert torch.equal(outputs["y"], x)
    assert [value.name for value, _ in seen] == ["up", "y_back"]
    assert torch.equal(seen[0][1][0, 0], x[0].T)


def test_host_steps_run_their_lines() -> None:
    x = torch.tensor([3, 1, 2])
    code = "a = torch.cumsum(x, 0)\nb = a.float() * table"
    steps: list[Step] = [
        HostStep(("x",), (Value("a", (3,), "int64", place="host"), Value("b", (3,), "float32", place="host")), code),
        CardStep("upload", ("b",), Value("up", (1, 3), "bf16"), {"view": (1, 3)}),
        CardStep("download", ("up",), Value("y_back", (3,), "float32", place="host"), {"shape": (3,)}),
    ]
    table = np.array([0.5, 0.25, 2.0], np.float32)
    program = program_of(steps, {"x": x}, outputs={"y": "y_back", "a": "a"}, host_constants={"table": table})
    outputs = simulate(program, {"x": x})
    assert torch.equal(outputs["a"], torch.tensor([3, 4, 6]))
    assert torch.equal(outputs["y"], torch.tensor([1.5, 1.0, 12.0]))


SITES: dict[str, tuple[tuple[int, ...], tuple[int, ...], ConvOptions | None, tuple[int, ...]]] = {
    "linear": ((1, 1, 5, 96), (24, 96), None, (1, 1, 5, 24)),
    "conv1d": ((1, 32, 20), (24, 32, 3), ConvOptions((1,), (2,), (2,), 1), (1, 1, 20, 24)),
    "strided": ((1, 32, 20), (24, 16, 4), ConvOptions((2,), (1,), (1,), 2), (1, 1, 10, 24)),
    "conv_transpose1d": ((1, 32, 20), (32, 24, 4), ConvOptions((2,), (1,), (1,), 1, (0,)), (1, 1, 40, 24)),
}
SCHEMES = {
    "bf16": Scheme("s", "bf16", "bf16", fidelity="hifi4"),
    "fp32": Scheme("s", "fp32", "fp32", fidelity="hifi3"),
    "bfp8": Scheme("s", "bfp8_b", "bfp8_b", fidelity="lofi"),
    "bfp4 in blocks": Scheme("s", "bfp4_b", "bf16", fidelity="hifi2", in0_block_w=3, packer_l1_acc=True),
    "bf16 sums": Scheme("s", "bfp8_b", "bf16", "bf16", "hifi2"),
    "levers": Scheme("s", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding", "gain_folding")),
}
ARITHMETICS: dict[str, Arithmetic] = {"exact": ExactTensix("blackhole"), "fast": TensixArithmetic()}


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("site", SITES)
def test_products_are_those_of_the_arithmetic(site: str, kind: str, arithmetic: str) -> None:
    shape, weight_shape, options, result_shape = SITES[site]
    scheme, ours = SCHEMES[kind], ARITHMETICS[arithmetic]
    op = "conv1d" if site == "strided" else site
    x, weight, bias = seeded(*shape), seeded(*weight_shape), seeded(24)
    call = SiteCall(site, op, x, weight, bias, options, is_product=False, index=0)  # type: ignore[arg-type]
    expected = ours.compute(call, scheme, ours.prepare(call, scheme), None)
    stored, stored_bias = store_operands(call, scheme)
    assert stored_bias is not None
    settings: dict[str, Any] = {"in0_block_w": scheme.in0_block_w}
    on_card = x
    if options is None:
        held = constant("w", stored.mT, scheme.weight, site)
        bias_shape: tuple[int, ...] = (1, 24)
    else:
        on_card = x.transpose(1, 2)[:, None].contiguous()
        held = constant("w", stored[:, :, None], scheme.weight, site)
        bias_shape, expected = (1, 1, 1, 24), expected.transpose(1, 2)
        settings |= {"batch": 1, "length": 20, "in_channels": 32, "out_channels": 24, "kernel": weight_shape[2]}
        settings |= {"stride": options.stride[0], "padding": (options.padding[0],) * 2, "groups": options.groups}
        settings |= {"dilation": options.dilation[0], "weights_dtype": scheme.weight}
    assert scheme.fidelity is not None
    compute = Compute(scheme.fidelity, scheme.accumulate == "fp32", scheme.packer_l1_acc)
    held_in = "fp32" if scheme.activation == "fp32" else "bf16"
    steps = [
        CardStep("upload", ("x",), Value("up", tuple(on_card.shape), "fp32")),
        CardStep("typecast", ("up",), Value("cast", tuple(on_card.shape), scheme.activation)),
        CardStep(op, ("cast", "w", "b"), Value("y", result_shape, held_in), settings, compute, site),
        CardStep("download", ("y",), Value("y_back", result_shape, "float32", place="host")),
    ]
    constants = [held, constant("b", stored_bias.view(bias_shape), "bf16", site)]
    found = simulate(program_of(steps, {"x": on_card}, constants), {"x": on_card}, arithmetic=ours)["y"]
    assert torch.equal(found, expected.reshape(result_shape))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_products_of_two_activations(arithmetic: str) -> None:
    ours = ARITHMETICS[arithmetic]
    a, b = seeded(1, 2, 5, 40), seeded(1, 2, 40, 9)
    scheme = Scheme("s", "bfp8_b", "bfp8_b", fidelity="hifi2")
    call = SiteCall("a#qk", "matmul", a, b, None, None, is_product=True, index=0)
    expected = ours.compute(call, scheme, ours.prepare(call, scheme), None)
    steps = [
        *(CardStep("upload", (name,), Value(f"{name}_up", tuple(v.shape), "fp32")) for name, v in (("a", a), ("b", b))),
        CardStep("typecast", ("a_up",), Value("a8", tuple(a.shape), "bfp8_b")),
        CardStep("typecast", ("b_up",), Value("b8", tuple(b.shape), "bfp8_b")),
        CardStep(
            "matmul", ("a8", "b8"), Value("y", (1, 2, 5, 9), "bf16"), {"in0_block_w": None}, Compute("hifi2", True)
        ),
        CardStep("download", ("y",), Value("y_back", (1, 2, 5, 9), "float32", place="host")),
    ]
    assert torch.equal(simulate(program_of(steps, {"a": a, "b": b}), {"a": a, "b": b}, arithmetic=ours)["y"], expected)


def test_products_of_two_types_are_not_covered() -> None:
    a = seeded(1, 1, 4, 4)
    steps = [
        CardStep("upload", ("a",), Value("wide", (1, 1, 4, 4), "fp32")),
        CardStep("typecast", ("wide",), Value("narrow", (1, 1, 4, 4), "bf16")),
        CardStep("matmul", ("narrow", "wide"), Value("y", (1, 1, 4, 4), "bf16"), {"in0_block_w": None}, HIFI4),
    ]
    with pytest.raises(SimulationError, match="y: operands are bf16 and fp32"):
        simulate(program_of(steps, {"a": a}), {"a": a})


def test_a_weight_in_blocks_along_k_lies_transposed() -> None:
    x, weight = seeded(1, 1, 4, 40), seeded(24, 40)
    scheme = Scheme("s", "bfp4_b", "bf16", fidelity="hifi2", levers=("col_tilize",))
    call = SiteCall("s", "linear", x, weight, None, None, is_product=False, index=0)
    ours = TensixArithmetic()
    stored, _ = store_operands(call, scheme)
    steps = [
        CardStep("upload", ("x",), Value("up", tuple(x.shape), "bf16")),
        CardStep(
            "linear", ("up", "w"), Value("y", (1, 1, 4, 24), "bf16"), {"transpose_b": True}, Compute("hifi2", True)
        ),
        CardStep("download", ("y",), Value("y_back", (1, 1, 4, 24), "float32", place="host")),
    ]
    held = constant("w", stored, "bfp4_b", "s", col_tilize=True)
    expected = ours.compute(replace(call, x=host_bf16(x)), scheme, ours.prepare(call, scheme), None)
    assert torch.equal(simulate(program_of(steps, {"x": x}, [held]), {"x": x}, arithmetic=ours)["y"], expected)


def test_uneven_padding() -> None:
    x, weight = seeded(1, 1, 20, 8), seeded(8, 8, 1, 3).bfloat16().float()
    settings = {"batch": 1, "length": 20, "in_channels": 8, "out_channels": 8, "kernel": 3, "groups": 1, "dilation": 1}

    def run(op: str, stride: int, padding: tuple[int, int], length: int) -> Tensor:
        steps = [
            CardStep("upload", ("x",), Value("up", tuple(x.shape), "fp32")),
            CardStep(
                op,
                ("up", "w"),
                Value("y", (1, 1, length, 8), "fp32"),
                settings | {"stride": stride, "padding": padding},
                HIFI4,
            ),
            CardStep("download", ("y",), Value("y_back", (1, 1, length, 8), "float32", place="host")),
        ]
        held = constant("w", weight, "fp32", "s")
        return simulate(program_of(steps, {"x": x}, [held]), {"x": x}, arithmetic=TensixArithmetic())["y"]

    turned = x[0].transpose(1, 2)
    causal = F.conv1d(F.pad(turned, (2, 0)), weight[:, :, 0]).transpose(1, 2)[None]
    torch.testing.assert_close(run("conv1d", 1, (2, 0), 20), causal, rtol=0.01, atol=0.01)
    longer = F.conv_transpose1d(turned, weight[:, :, 0], stride=2)[..., 1:].transpose(1, 2)[None]
    torch.testing.assert_close(run("conv_transpose1d", 2, (1, 0), 40), longer, rtol=0.01, atol=0.01)
    with pytest.raises(SimulationError, match="padding 0, 1 of a transposed convolution"):
        run("conv_transpose1d", 2, (0, 1), 40)


def test_state_stays_from_run_to_run() -> None:
    x = torch.ones(1, 4)
    steps = [
        CardStep("upload", ("x",), Value("up", (1, 4), "bf16")),
        CardStep("add", ("up", "total"), Value("more", (1, 4), "bf16")),
        CardStep("copy", ("up", "last"), Value("kept", (1, 4), "bf16")),
        CardStep("add", ("more", "last"), Value("y", (1, 4), "bf16")),
        CardStep("download", ("y",), host("y_back", x)),
    ]
    states = {
        "total": State(Value("total", (1, 4), "bf16"), "more"),
        "last": State(Value("last", (1, 4), "bf16"), "kept"),
    }
    simulator = Simulator(program_of(steps, {"x": x}, states=states))
    assert torch.equal(simulator.run({"x": x})["y"], 2 * x)
    assert torch.equal(simulator.run({"x": 2 * x})["y"], 5 * x)
    assert torch.equal(simulator.states["total"], 3 * x)
    assert torch.equal(simulator.states["last"], 2 * x)


def _broken(**changes: Any) -> tuple[Program, dict[str, Tensor]]:
    """A linear layer with something wrong."""
    x, weight = seeded(1, 1, 4, 8), seeded(8, 8).bfloat16().float()
    step = CardStep("linear", ("up", "w"), Value("y", (1, 1, 4, 8), "bf16"), {"in0_block_w": None}, HIFI4, "s")
    steps = [
        CardStep("upload", ("x",), Value("up", (1, 1, 4, 8), "bf16")),
        replace(step, **{key: value for key, value in changes.items() if key != "weight"}),
        CardStep("download", ("y",), Value("y_back", (1, 1, 4, 8), "float32", place="host")),
    ]
    return program_of(steps, {"x": x}, [constant("w", changes.get("weight", weight), "bf16", "s")]), {"x": x}


FAULTS: dict[str, tuple[Mapping[str, Any], str]] = {
    "an operation": ({"op": "fft"}, "y: there is no operation 'fft'; there are abs, add"),
    "a name": ({"inputs": ("gone", "w")}, "y reads 'gone', which no step before it makes"),
    "a shape": (
        {"result": Value("y", (1, 1, 8, 4), "bf16"), "op": "neg", "inputs": ("up",)},
        r"y is float32\[1, 1, 4, 8\]",
    ),
    "compute": ({"compute": None}, "linear has no compute"),
    "a type": ({"result": Value("y", (1, 1, 4, 8), "fp32")}, "bf16 by bf16 .* to fp32; covered are results in bf16"),
    "a weight": ({"inputs": ("up", "up")}, "the weight of linear must be a constant"),
    "numbers": ({"weight": torch.full((8, 8), 0.1)}, "w: the weight of s has numbers that bf16 does not hold"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_programs_that_contradict_themselves(fault: str) -> None:
    changes, message = FAULTS[fault]
    program, inputs = _broken(**changes)
    with pytest.raises(SimulationError, match=message):
        simulate(program, inputs)


def test_inputs_that_do_not_fit_are_named_all_at_once() -> None:
    program, inputs = _broken()
    assert simulate(program, inputs)["y"].shape == (1, 1, 4, 8)
    with pytest.raises(
        SimulationError, match=r"x is float64\[1, 1, 4, 8\], and the program has float32.*; z is not one"
    ):
        simulate(program, {"x": inputs["x"].double(), "z": inputs["x"]})
    with pytest.raises(SimulationError, match="x is missing"):
        simulate(program, {})


def embedded() -> tuple[Voice, Clip]:
    voice = EmbeddedVoice.load()
    return voice, voice.excerpt(bundled_clips()[0], 0.0, 0.5)


def tiny(make: Callable[[], Any]) -> Callable[[], tuple[Voice, Clip]]:
    def pair() -> tuple[Voice, Clip]:
        voice = make()
        return voice, voice.clips(1)[0]

    return pair


def hifigan() -> tuple[Voice, Clip]:
    voice = HifiganVoice(V2, parts.seeded(lambda: Generator(V2), 1))
    return voice, voice.clip("noise", 0.1 * seeded(12 * 256).numpy(), 22050)


VOICES = {
    "hifigan": hifigan,
    "embedded": embedded,
    "autoregressive": tiny(AutoregressiveVoice),
    "codec": tiny(CodecVoice),
    "sampler": tiny(SamplerVoice),
    "understanding": tiny(UnderstandingVoice),
}


def _widened(program: Program) -> Program:
    """The program with everything between sites in fp32, as the emulation has it."""

    def wide(value: Value) -> Value:
        return replace(value, dtype="fp32") if value.dtype == "bf16" else value

    steps = [
        replace(step, result=wide(step.result)) if isinstance(step, CardStep) and step.site is None else step
        for step in program.steps
    ]
    constants = {
        name: held if held.site is not None else replace(held, value=wide(held.value))
        for name, held in program.constants.items()
    }
    return replace(program, steps=tuple(steps), constants=constants)


@pytest.fixture(scope="module", params=VOICES)
def graphed(request: pytest.FixtureRequest) -> tuple[Voice, Clip, SiteGraph]:
    voice, clip = VOICES[request.param]()
    return voice, clip, export_graph(voice, clip)


@pytest.mark.parametrize("kind", ["fp32", "bfp8"])
def test_a_lowered_model_is_its_emulation_where_values_are_wide(
    graphed: tuple[Voice, Clip, SiteGraph], kind: str
) -> None:
    voice, clip, graph = graphed
    ours = TensixArithmetic()
    policy = Policy.uniform(list(dict.fromkeys(node.site for node in site_nodes(graph))), SCHEMES[kind])
    program = lower(graph, policy, CARDS["blackhole_p150"], stored_operands(graph, policy))
    inputs = {value.name: graph.examples[name] for value, name in zip(program.inputs, graph.inputs, strict=True)}
    emulated = EmulatedEngine(voice, policy, ours).render(clip)
    found = simulate(_widened(program), inputs, arithmetic=ours)
    for name, expected in zip(graph.parts, emulated.parts, strict=False):
        assert torch.equal(found[name], expected)
    # As it is, values between sites are bf16, which the emulation does not know.
    narrow = simulate(program, inputs, arithmetic=ours)
    for name, expected in zip(graph.parts, emulated.parts, strict=False):
        assert _ratio_db(narrow[name], expected) > 20


def _ratio_db(found: Tensor, expected: Tensor) -> float:
    noise = (found - expected).square().sum()
    return float(10 * torch.log10(expected.square().sum() / noise)) if noise > 0 else float("inf")
