"""Transformer Engine: the plan and its refusals, the errors where it is not there, and the wiring, by a stand-in of it.

The stand-in has the library's names and signatures (2.20.2), its rules of shape and what its forward pass computes.
"""

import builtins
import enum
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backends.base import BuildError, Engine
from backends.emulation.engine import EmulatedEngine
from backends.hopper.numerics import HopperArithmetic
from backends.hopper.support import refuses
from backends.hopper.transformer_engine import TeLinear, TransformerEngine, TransformerEngineError, library
from backends.hopper.transformer_engine_plan import Replacement, plan
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from tests.backends.hopper.mixed_decoder import WIDE, snr_db, why_no_card

STATIC = Scheme("static", "fp8_e4m3", "fp8_e4m3", weight_scale="tensor")
DYNAMIC = replace(STATIC, name="dynamic", activation_scale="dynamic")
CARD = why_no_card()


class DType(enum.IntEnum):
    kFloat8E4M3 = 8  # noqa: N815 - the library's name


def stand_in():
    """`transformer_engine` as far as it is used here, computing on the CPU."""
    active = []

    class Recipe:
        def __init__(self, *, fp8_format, **settings):
            self.fp8_format, self.settings = fp8_format, settings

        def delayed(self):
            return isinstance(self, DelayedScaling)

    class DelayedScaling(Recipe):
        pass

    class Float8CurrentScaling(Recipe):
        pass

    @contextmanager
    def autocast(enabled=True, calibrating=False, recipe=None, amax_reduction_group=None, _graph=False):
        active.append(recipe if enabled else None)
        yield
        active.pop()
        # Here the library would move the scales of DelayedScaling.
        assert not torch.is_grad_enabled() or isinstance(recipe, Float8CurrentScaling) or not Linear.forwarded

    class Linear(nn.Module):
        forwarded = False

        def __init__(self, in_features, out_features, bias=True, params_dtype=None, device="cuda"):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype, device=device))
            self.bias = nn.Parameter(torch.empty(out_features, dtype=params_dtype, device=device)) if bias else None
            self.fp8_meta, self.quantizers, self._fp8_workspaces = {}, {"scaling_fwd": []}, {}

        def init_fp8_metadata(self, num_gemms=1):
            if self.fp8_meta:
                return
            self.fp8_meta = {"recipe": active[-1], "scaling_fwd": SimpleNamespace(scale=torch.ones(3 * num_gemms))}
            self.quantizers["scaling_fwd"] = [SimpleNamespace(dtype=DType.kFloat8E4M3) for _ in range(3 * num_gemms)]

        def forward(self, inp, is_first_microbatch=None, fp8_output=False, fp8_grad=False):
            assert active, "outside of an autocast it would not be FP8"
            Linear.forwarded = True
            self.init_fp8_metadata()
            for tensor in (inp, self.weight):
                if tensor.shape[0] % 8 or tensor.shape[1] % 16:
                    raise ValueError("FP8 execution requires the product of all dimensions except the last ...")
            assert inp.dtype == self.weight.dtype, "Data types for parameters must match"
            x, x_scale = self._quantized(inp, 0)
            if is_first_microbatch is None or is_first_microbatch:
                self._fp8_workspaces["weight"] = self._quantized(self.weight, 1)
            weight, weight_scale = self._fp8_workspaces["weight"]
            with torch._C.DisableTorchFunction():  # its kernels are no functions of torch
                total = (x @ weight.t()) / (x_scale * weight_scale)
            return total if self.bias is None else total + self.bias.to(torch.bfloat16)

        def _quantized(self, values, index):
            current = isinstance(self.fp8_meta["recipe"], Float8CurrentScaling)
            scale = 448 / values.abs().max() if current else self.fp8_meta["scaling_fwd"].scale[index]
            return (values * scale).clamp(-448, 448).to(torch.float8_e4m3fn).float(), scale

    te, recipe = ModuleType("transformer_engine.pytorch"), ModuleType("transformer_engine.common.recipe")
    te.Linear, te.autocast = Linear, autocast
    recipe.Format = SimpleNamespace(E4M3="E4M3")
    recipe.DelayedScaling, recipe.Float8CurrentScaling = DelayedScaling, Float8CurrentScaling
    top, common = ModuleType("transformer_engine"), ModuleType("transformer_engine.common")
    top.pytorch, top.common, common.recipe = te, common, recipe
    return {module.__name__: module for module in (top, te, common, recipe)}


@pytest.fixture
def installed(monkeypatch):
    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)


def mixed(case):
    """Static and dynamic scales in turn at the linear layers that have FP8; bf16 elsewhere."""
    held = {}
    for index, site in enumerate(case.sites):
        wanted = (STATIC, DYNAMIC)[index % 2]
        held[site.name] = wanted if refuses(site, wanted, "gemm") is None else WIDE[0]
    return Policy.of(held)


def test_the_plan_names_layers_recipes_and_calibrated_magnitudes(tiny):
    policy = mixed(tiny)
    planned = plan(tiny.voice.module, policy, tiny.calibration)
    assert [item.site for item in planned] == [site for site, scheme in policy.schemes if scheme.weight == "fp8_e4m3"]
    assert len(planned) == 14
    for item in planned:
        if policy[item.site] == STATIC:
            amax = tiny.calibration.amax(item.site, "input")
            assert item == Replacement(item.site, "DelayedScaling", amax)
        else:
            assert item == Replacement(item.site, "Float8CurrentScaling", None)
    assert {item.recipe for item in planned} == {"DelayedScaling", "Float8CurrentScaling"}


def test_every_site_that_it_cannot_have_is_named_with_the_reason(tiny):
    policy = mixed(tiny)
    query, key, value, up, gate = (
        f"layers.0.{name}"
        for name in ("attention.query", "attention.key", "attention.value", "feed_forward.up", "feed_forward.gate")
    )
    changes = {
        query: replace(DYNAMIC, activation="fp8_e5m2"),
        key: replace(DYNAMIC, weight="fp8_e5m2"),
        value: replace(DYNAMIC, weight_scale="channel"),
        up: STATIC,
        gate: replace(DYNAMIC, adapted="0123"),
        "codec.first": DYNAMIC,
        "layers.0.attention#qk": DYNAMIC,
        "text_head": DYNAMIC,
    }
    for site, scheme in changes.items():
        policy = policy.replace(site, scheme)
    known = tiny.calibration.to_dict()["ranges"]
    calibration = Calibration.of("amax", {site: ranges for site, ranges in known.items() if site != up})
    with pytest.raises(BuildError) as error:
        plan(tiny.voice.module, policy, calibration)
    lines = {line.split(": ")[0].strip(): line for line in str(error.value).splitlines()[1:]}
    assert lines.keys() == changes.keys()
    for site, said in {
        query: "activation fp8_e5m2: its forward pass is E4M3 alone",
        key: "weight fp8_e5m2: its forward pass is E4M3 alone",
        value: "one scale for a weight; use GemmEngine, or weight_scale tensor",
        up: "no calibrated range",
        gate: "trained weights 0123",
        "codec.first": "a Conv1d, and only an nn.Linear is replaced",
        "layers.0.attention#qk": "no layer of its own",
        "text_head": "32 features in and 12 out: both must be multiples of 16",
    }.items():
        assert said in lines[site]
    with pytest.raises(BuildError, match="there is no calibration; give one"):
        plan(tiny.voice.module, mixed(tiny))


def test_where_it_is_not_installed_the_error_says_what_to_install(tiny, monkeypatch):
    refused = ModuleNotFoundError("No module named 'transformer_engine'", name="transformer_engine")
    failing_import(monkeypatch, refused)
    with pytest.raises(TransformerEngineError, match=r"not installed: pip .* 'precision-search\[transformer-engine\]'"):
        library()
    with pytest.raises(TransformerEngineError, match="GemmEngine, which needs torch alone"):
        TransformerEngine(tiny.voice, mixed(tiny), tiny.measured, device="cpu")
    # What it would refuse anyhow is told without it.
    with pytest.raises(BuildError, match="E4M3 alone"):
        TransformerEngine(tiny.voice, tiny.uniform(replace(DYNAMIC, weight="fp8_e5m2")), device="cpu")


@pytest.mark.parametrize(
    "error",
    [
        OSError("libcudnn.so.9: cannot open shared object file"),
        RuntimeError("Found empty `transformer-engine` meta package installed."),
        FileNotFoundError("Could not find shared object file for Transformer Engine torch lib."),
        ModuleNotFoundError("No module named 'einops'", name="einops"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_it_does_not_load_the_error_says_what_it_needs(error, monkeypatch):
    failing_import(monkeypatch, error)
    with pytest.raises(TransformerEngineError, match="does not load") as raised:
        library()
    assert str(error) in str(raised.value)
    assert "cuDNN, NCCL and NVRTC" in str(raised.value)


def failing_import(monkeypatch, error):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("transformer_engine"):
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_a_version_without_autocast_is_too_old(installed, monkeypatch):
    monkeypatch.delattr(sys.modules["transformer_engine.pytorch"], "autocast")
    with pytest.raises(TransformerEngineError, match=r"2\.9 or later"):
        library()


def test_layers_are_replaced_and_compute_near_the_emulation(small, installed):
    policy, before = mixed(small), {name: type(part) for name, part in small.voice.module.named_modules()}
    engine: Engine = TransformerEngine(small.voice, policy, small.measured, device="cpu", sites=small.sites)
    assert engine.realized() == {}
    made = engine.render(small.clip)
    assert engine.realized() == dict(policy.schemes)
    emulation = EmulatedEngine(small.voice, policy, HopperArithmetic(), small.calibration).render(small.clip)
    full = small.voice.render(small.clip)
    for head, logits in emulation.logits.items():
        formats, library_s = snr_db(full.logits[head], logits), snr_db(logits, made.logits[head])
        assert library_s > formats + 4
        assert formats < 25
    assert torch.equal(made.sound, emulation.sound)
    assert {name: type(part) for name, part in small.voice.module.named_modules()} == before


def test_scales_are_the_calibrated_ones_and_stay(tiny, installed):
    policy = mixed(tiny)
    engine = TransformerEngine(tiny.voice, policy, tiny.measured, device="cpu")
    query = engine.module.get_submodule("layers.0.attention.query")
    weight = tiny.voice.module.get_submodule("layers.0.attention.query").weight
    want = [448 / tiny.calibration.amax("layers.0.attention.query", "input"), 448 / float(weight.abs().max())]
    scale = query.linear.fp8_meta["scaling_fwd"].scale
    torch.testing.assert_close(scale[:2], torch.tensor(want))
    before = scale.clone()
    engine.render(tiny.clip)
    assert torch.equal(query.linear.fp8_meta["scaling_fwd"].scale, before)
    assert query.recipe.settings == {
        "amax_history_len": 1,
        "amax_compute_algo": "most_recent",
        "reduce_amax": False,
    }
    assert torch.equal(query.linear.weight, weight)


def test_any_number_of_rows_and_axes(installed):
    te, recipes = library()
    layer = nn.Linear(32, 48).requires_grad_(False)
    for rows in (1, 7, 8, 9):
        replaced = TeLinear(te, recipes, layer, Replacement("site", "Float8CurrentScaling", None), "cpu")
        x = torch.randn(2, rows, 32, generator=torch.Generator().manual_seed(rows))
        made = replaced(x)
        assert made.shape == (2, rows, 48)
        assert not made.requires_grad
        assert snr_db(F.linear(x, layer.weight, layer.bias), made) > 20
        assert torch.equal(made, made.to(torch.bfloat16).to(torch.float32))


@pytest.mark.hopper
@pytest.mark.skipif(CARD is not None, reason=str(CARD))
class TestOnTheCard:
    def test_the_library_itself_is_near_the_emulation(self, small):
        try:
            library()
        except TransformerEngineError as error:
            pytest.skip(str(error))
        policy = mixed(small)
        engine = TransformerEngine(small.voice, policy, small.measured, sites=small.sites)
        made = engine.render(small.clip)
        assert engine.realized() == dict(policy.schemes)
        emulation = EmulatedEngine(small.voice, policy, HopperArithmetic(), small.calibration).render(small.clip)
        for head, logits in emulation.logits.items():
            assert snr_db(logits, made.logits[head]) > 15
