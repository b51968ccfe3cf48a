"""GemmEngine: operands are the emulation's to the bit, sums are near, and what was passed is what the policy says."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from backends.base import NOTHING_MEASURED, BuildError, Engine, Measured
from backends.emulation.engine import EmulatedEngine, PolicyMismatchError
from backends.hopper import gemm_operands, gemm_products
from backends.hopper.gemm import GemmEngine
from backends.hopper.gemm_operands import hold, multiply
from backends.hopper.gemm_products import EXPLICIT, SCALED, scaled_after, scaled_product
from backends.hopper.gemm_sites import site_of
from backends.hopper.kv_cache import CachedStep
from backends.hopper.kv_storage import CacheFormat
from backends.hopper.numerics import FP8_TYPES, HopperArithmetic, activation_scale, quantize_fp8
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from tests.backends.hopper.by_hand import random
from tests.backends.hopper.mixed_decoder import FP8, WIDE, imagined_card, snr_db
from voice.intercept import intercept
from voice.site_call import ConvOptions, SiteCall

HOPPER = HopperArithmetic()
PLAIN = Scheme("fp32", "fp32", "fp32")
BF16_STEP = 2.0**-7
"""From a bf16 value to the next, relative to it, at most."""


def call_of(op="linear", bias=True):
    """Sizes that no kernel finds round but for the multiples of 16 that FP8 needs."""
    options = ConvOptions((2,), (1,), (1,), 1, (0,)) if op.startswith("conv") else None
    shapes = {
        "linear": ((3, 7, 48), (80, 48)),
        "conv1d": ((2, 48, 21), (80, 48, 3)),
        "conv_transpose1d": ((2, 48, 21), (48, 80, 3)),
        "matmul": ((4, 7, 48), (4, 48, 5)),
    }
    x, weight = (random(*shape, seed=seed) for seed, shape in enumerate(shapes[op]))
    product = op == "matmul"
    return SiteCall("site", op, x, weight, None if product or not bias else random(80, seed=2), options, product, 0)


def calibration_of(call):
    return Calibration.of("amax", {"site": {"input": float(call.x.abs().max()) * 0.8}})


def emulated(call, scheme, calibration=None):
    return HOPPER.compute(call, scheme, HOPPER.prepare(call, scheme), calibration)


def passed(monkeypatch):
    """What torch._scaled_mm is given, call by call."""
    calls, real = [], torch._scaled_mm

    def watched(*operands, **rest):
        calls.append((*operands, rest))
        return real(*operands, **rest)

    monkeypatch.setattr(torch, "_scaled_mm", watched)
    return calls


def assert_within_a_rounding(got, want):
    """Sums in another order differ by what float32 holds of their largest, and may then be rounded the other way."""
    got, want = got.to(torch.float32), want.to(torch.float32)
    assert bool(((got - want).abs() <= BF16_STEP * want.abs() + 1e-6 * want.abs().max()).all())


def bits(codes):
    return codes.contiguous().view(torch.uint8)


@pytest.mark.parametrize("scheme", FP8[:5], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("bias", [True, False])
def test_codes_are_the_emulations_and_sums_are_near(scheme, bias, monkeypatch):
    call = call_of(bias=bias)
    calibration = calibration_of(call)
    calls = passed(monkeypatch)
    result, ran = multiply(call, scheme, hold(call, scheme, calibration), fast_accum=False)
    assert ran.kernel.startswith(SCALED)
    x, weight, rest = calls[-1]  # what went before asked whether the CPU can
    scale = activation_scale("site", "input", scheme, calibration, call.x)
    prepared = HOPPER.prepare(call, scheme)
    assert torch.equal(bits(x), bits(quantize_fp8(call.x.view(21, 48), scale, scheme.activation)))
    assert torch.equal(weight.t().to(torch.float32), prepared.weight)
    assert torch.equal(rest["scale_b"].flatten(), prepared.scale)
    assert torch.equal(rest["scale_a"], scale.expand_as(rest["scale_a"]))
    assert rest["out_dtype"] == torch.bfloat16
    assert (rest["bias"] is not None) == bias
    want = emulated(call, scheme, calibration)
    assert result.shape == want.shape
    assert_within_a_rounding(result, want)
    assert float((result.to(torch.float32) == want).float().mean()) > 0.99


@pytest.mark.parametrize("scheme", [*WIDE, PLAIN, FP8[5], Scheme("half", "fp8_e5m2", "fp16", weight_scale="tensor")])
@pytest.mark.parametrize("op", ["linear", "conv1d", "conv_transpose1d", "matmul"])
def test_wide_products_are_the_emulations_to_the_bit(op, scheme):
    call = call_of(op)
    result, ran = multiply(call, scheme, hold(call, scheme, None), fast_accum=False)
    assert torch.equal(result.to(torch.float32), emulated(call, scheme))
    assert (EXPLICIT in ran.kernel) == (scheme.activation != "fp32")


@pytest.mark.parametrize("scheme", FP8[:5], ids=lambda scheme: scheme.name)
def test_a_cpu_without_the_kernel_multiplies_the_same_operands_and_says_so(scheme, monkeypatch):
    call = call_of()
    held = hold(call, scheme, calibration_of(call))
    kernel, _ = multiply(call, scheme, held, fast_accum=False)
    monkeypatch.setattr(gemm_products, "cpu_takes", lambda *modes: False)
    result, ran = multiply(call, scheme, held, fast_accum=False)
    assert "has no torch._scaled_mm" in ran.kernel
    assert (ran.left, ran.right) == (FP8_TYPES[scheme.activation], FP8_TYPES[scheme.weight])
    assert_within_a_rounding(kernel, result)
    assert torch.equal(result.to(torch.float32), emulated(call, scheme, calibration_of(call)))


def test_channels_scaled_after_the_product_give_the_same():
    call, scheme = call_of(), FP8[4]
    held = hold(call, scheme, calibration_of(call))
    x = quantize_fp8(call.x.view(21, 48), held.input_scale, "fp8_e4m3")
    operands = (x, held.weight, held.row_scales(held.input_scale, 21), held.weight_scale[None], held.bias)
    after, kernel = scaled_after(*operands, fast_accum=False)
    assert "after" in kernel
    assert_within_a_rounding(scaled_product(*operands)[0], after)


def test_row_scales_of_a_static_scale_stay_where_they_are():
    call = call_of()
    held = hold(call, FP8[0], calibration_of(call))
    first = held.row_scales(held.input_scale, 21)
    assert held.row_scales(held.input_scale, 4).shape == (4, 1)
    assert held.row_scales(held.input_scale, 21).data_ptr() == first.data_ptr()
    assert first.is_contiguous()
    for scale in (held.input_scale, torch.tensor(0.5)):
        assert held.row_scales(scale, 1).stride() == (1, 1)


def test_the_whole_decoder_under_a_mixed_policy(small):
    policy = small.mixed
    engine: Engine = GemmEngine(small.voice, policy, small.measured, device="cpu", sites=small.sites)
    made = engine.render(small.clip)
    assert engine.realized() == dict(policy.schemes)
    assert list(engine.realized()) == list(policy)
    assert {scheme.activation for scheme in engine.realized().values()} >= {"fp8_e4m3", "fp8_e5m2", "bf16", "fp16"}
    emulation = EmulatedEngine(small.voice, policy, HOPPER, small.calibration).render(small.clip)
    full = small.voice.render(small.clip)
    # The codec is 16-bit and reads tokens. The heads read what 4 layers made of roundings that other sums tipped.
    assert torch.equal(made.sound, emulation.sound)
    for head, logits in emulation.logits.items():
        formats, sums = snr_db(full.logits[head], logits), snr_db(logits, made.logits[head])
        assert 10 < formats < 25
        assert sums > formats + 10


def test_every_fp8_site_alone_is_within_a_rounding_of_the_emulation(small):
    policy, calls = small.mixed, []
    engine = GemmEngine(small.voice, policy, small.measured, device="cpu")
    with intercept(small.voice.module, lambda call: calls.append(call) or engine.compute(call)):
        small.voice.render(small.clip)
    shares = []
    for call in calls:
        want, got = emulated(call, policy[call.site], small.calibration), engine.compute(call)
        assert_within_a_rounding(got, want)
        shares.append(float((got == want).float().mean()))
    assert min(shares) > 0.99
    assert sum(shares) / len(shares) > 0.999


def test_what_departs_from_the_policy_is_shown(tiny, monkeypatch):
    policy = tiny.mixed
    real = gemm_operands.site_weight
    monkeypatch.setattr(
        gemm_operands, "site_weight", lambda w, op, groups, s: real(w, op, groups, replace(s, weight_scale="tensor"))
    )
    engine = GemmEngine(tiny.voice, policy, tiny.measured, device="cpu")
    engine.render(tiny.clip)
    departed = {site for site, scheme in engine.realized().items() if scheme != policy[site]}
    quantized = {name for name, scheme in policy.schemes if scheme.weight.startswith("fp8")}
    assert departed == {name for name in quantized if policy[name].weight_scale == "channel"}
    assert all(engine.realized()[name].weight_scale == "tensor" for name in quantized)


def test_16_bit_sums_are_shown(monkeypatch):
    call = call_of()
    monkeypatch.setattr(gemm_operands, "sums_in_fp32", lambda dtype: False)
    held = hold(call, WIDE[0], None)
    assert multiply(call, WIDE[0], held, fast_accum=False)[1].fp32_sums  # of the CPU, whatever CUDA is told
    absent = replace(call, x=torch.empty(3, 7, 48, device="meta"), bias=None)
    elsewhere = gemm_operands.Held(torch.empty(80, 48, dtype=torch.bfloat16, device="meta"))
    assert not multiply(absent, WIDE[0], elsewhere, fast_accum=False)[1].fp32_sums


def test_every_refused_site_is_named_when_sites_are_known_and_when_they_are_not(tiny):
    policy = tiny.uniform(FP8[0])
    expected = {"codec.first", "layers.0.attention#qk", "text_head", "audio_heads.0"}
    with pytest.raises(BuildError) as known:
        GemmEngine(tiny.voice, policy, tiny.measured, device="cpu", sites=tiny.sites)
    engine = GemmEngine(tiny.voice, policy, tiny.measured, device="cpu")
    with pytest.raises(BuildError) as run:
        engine.render(tiny.clip)
    assert str(known.value) == str(run.value)
    named = {line.split(":")[0].strip() for line in str(run.value).splitlines()[1:]}
    assert named >= expected
    assert not any(name.endswith(("query", "gate")) for name in named)
    with intercept(tiny.voice.module, engine.compute), pytest.raises(BuildError, match="text_head") as alone:
        tiny.voice.module.text_head(random(2, 32))
    assert len(str(alone.value).splitlines()) == 2


def test_sites_without_scheme_scale_or_trained_weights_are_named(tiny):
    policy = tiny.uniform(WIDE[0])
    short = Policy.of(dict(list(policy.schemes)[1:]))
    with pytest.raises(BuildError, match=r"query: the policy has no scheme"):
        GemmEngine(tiny.voice, short, device="cpu").render(tiny.clip)
    static = policy.replace("layers.0.attention.query", FP8[0]).replace("layers.1.feed_forward.up", FP8[0])
    with pytest.raises(BuildError) as error:
        GemmEngine(tiny.voice, static, device="cpu").render(tiny.clip)
    assert str(error.value).count("static activation scale") == 2
    trained = policy.replace("layers.0.attention.query", replace(WIDE[0], adapted="0123"))
    with pytest.raises(BuildError, match="no trained weights 0123"):
        GemmEngine(tiny.voice, trained, device="cpu", sites=tiny.sites)
    with pytest.raises(PolicyMismatchError, match="were not called"):
        GemmEngine(tiny.voice, Policy.of({**policy, "ghost": WIDE[0]}), device="cpu").render(tiny.clip)


def test_trained_weights_take_the_place_of_the_models():
    layer, x = nn.Linear(32, 16), random(4, 32)
    layer.requires_grad_(False)
    operands = Operands(random(16, 32, seed=5), random(16, seed=6))
    policy = Policy.of({"0": replace(PLAIN, adapted="ab")})
    module = nn.Sequential(layer)
    engine = GemmEngine(module, policy, Measured(adapted={"ab": {"0": operands}}), device="cpu")
    with engine.running():
        made = module(x)
    torch.testing.assert_close(made, nn.functional.linear(x, operands.weight, operands.bias))


def test_a_module_runs_and_renders_nothing(tiny):
    module = nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 16)).requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    engine = GemmEngine(module, Policy.uniform(["0", "2"], FP8[3]), device="cpu")
    with engine.running() as called:
        made = module(random(5, 32))
    assert called == {"0", "2"}
    assert snr_db(module(random(5, 32)), made) > 20
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    # Codes, one scale, a bias in bf16.
    assert engine.weight_bytes == {"0": 32 * 48 + 4 + 2 * 48, "2": 48 * 16 + 4 + 2 * 16}
    with pytest.raises(TypeError, match="voice to render"):
        engine.render(tiny.clip)


def test_a_model_in_16_bits_is_refused():
    module = nn.Sequential(nn.Linear(32, 16)).requires_grad_(False)
    engine = GemmEngine(module, Policy.of({"0": WIDE[0]}), device="cpu")
    with engine.running(), pytest.raises(TypeError, match="load the model in float32"):
        module.to(torch.bfloat16)(random(4, 32).to(torch.bfloat16))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is there")
def test_without_a_card_it_says_what_to_do(tiny):
    with pytest.raises(RuntimeError, match="use device='cpu'"):
        GemmEngine(tiny.voice, tiny.uniform(WIDE[0]), NOTHING_MEASURED)
    engine = GemmEngine(tiny.voice, tiny.uniform(WIDE[0]), device="cpu")
    step = CachedStep(tiny.voice.module, CacheFormat("bf16"))
    with pytest.raises(RuntimeError, match="graph needs a CUDA device"):
        engine.graph(step, {})
    with pytest.raises(RuntimeError, match="cuda or cpu"):
        GemmEngine(tiny.voice, tiny.uniform(WIDE[0]), device="meta")


def test_cutlass_takes_no_e5m2_weight_and_its_channels_are_scaled_after(monkeypatch):
    scheme, call = FP8[4], call_of()
    for version, kernel in (("12.8", "scaled after it"), ("12.9", "rowwise"), ("13.0", "rowwise"), (None, "after it")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with imagined_card(monkeypatch):
            x, weight = torch.empty(3, 7, 48, device="cuda"), torch.empty(80, 48, device="cuda")
            there = replace(call, x=x, weight=weight, bias=torch.empty(80, device="cuda"))
            result, ran = multiply(there, scheme, hold(there, scheme, None), fast_accum=True)
        assert kernel in ran.kernel
        assert "fast accumulation" in ran.kernel
        assert ran.fast_accum
        assert (result.shape, result.dtype) == ((3, 7, 80), torch.bfloat16)


@pytest.mark.parametrize("op", ["linear", "conv1d", "conv_transpose1d", "matmul"])
def test_the_site_of_a_call(op):
    sizes = {"linear": (48, 80, 1), "conv1d": (144, 80, 1), "conv_transpose1d": (48, 240, 1), "matmul": (48, 5, 4)}
    site = site_of(call_of(op))
    assert (site.k, site.n, site.groups) == sizes[op]
    assert math.prod(site.weight_shape) == (1 if op == "matmul" else call_of(op).weight.numel())


class Tied(nn.Module):
    """Two layers of one weight, each with a bias of its own."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(32, 32), nn.Linear(32, 32)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(x))


def test_layers_that_share_a_weight_and_not_its_bias_are_refused():
    torch.manual_seed(0)
    module = Tied().eval().requires_grad_(False)
    engine = GemmEngine(module, Policy.of({"one": Scheme("bf16", "bf16", "bf16")}), device="cpu")
    with pytest.raises(BuildError, match="one: layers share its weight and have biases of their own"), engine.running():
        module(torch.randn(4, 32))
