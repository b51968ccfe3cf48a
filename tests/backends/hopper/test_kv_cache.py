"""The KV cache: what is stored is what attention reads, in half of bf16's bytes, eager and in a CUDA graph."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.emulation.engine import EmulatedEngine
from backends.hopper.gemm import GemmEngine
from backends.hopper.kv_cache import CachedStep, RoundedCache, attention_sites, calibrated_scales
from backends.hopper.kv_storage import HEADROOM, CacheFormat, Stored, rounded, scale_of
from backends.hopper.numerics import HopperArithmetic, round_fp8
from calibrate.calibration import Calibration, UncalibratedSiteError
from precision.formats import FORMATS, round_to
from precision.policy import Scheme
from tests.backends.hopper.by_hand import random
from tests.backends.hopper.mixed_decoder import snr_db, why_no_card
from voice.decoder import SpeechDecoder
from voice.decoder_config import SEVEN_B
from voice.decoder_step import Step
from voice.intercept import intercept

E5M2, E4M3, BF16 = CacheFormat("fp8_e5m2"), CacheFormat("fp8_e4m3"), CacheFormat("bf16")
PLAIN = Scheme("fp32", "fp32", "fp32")
CARD = why_no_card()
CPU = torch.device("cpu")


def rows_of(case, count, device="cpu"):
    """Inputs of the first steps of the clip: the row of no tokens, the prompt, what is said."""
    tokens = torch.cat([case.voice.module.none(), *case.clip.inputs], dim=1)[:, :count]
    for position, row in enumerate(tokens.T):
        inputs = {"text": row[:1], "codes": row[1:], "position": torch.tensor([position])}
        yield {name: values.to(device) for name, values in inputs.items()}


def emulated_steps(case, policy, arithmetic, count):
    """The model's own step, its cache in float32, every product by an arithmetic."""
    step = Step(case.voice.module)
    engine = EmulatedEngine(case.voice, policy, arithmetic, case.calibration)
    states = tuple(step.states().values())
    with torch.inference_mode(), intercept(case.voice.module, engine._compute):
        for inputs in rows_of(case, count):
            made = step(*inputs.values(), *states)
            states = made[len(step.parts) :]
            yield made[: len(step.parts)]


def cached_steps(case, policy, form, scales, count):
    engine = GemmEngine(case.voice, policy, case.measured, device="cpu")
    step = CachedStep(engine.module, form, scales)
    with engine.running():
        made = [step(**inputs) for inputs in rows_of(case, count)]
    return engine, step, made


@pytest.mark.parametrize("form", [E5M2, E4M3, BF16, CacheFormat("fp16"), CacheFormat("fp32")], ids=lambda f: f.format)
def test_steps_are_those_of_products_whose_operand_is_rounded(form, tiny):
    scales = calibrated_scales(
        tiny.voice.module, tiny.calibration, "fp8_e4m3" if form.format == "fp8_e4m3" else "fp8_e5m2"
    )
    policy, count = tiny.uniform(PLAIN), 16
    _, _, made = cached_steps(tiny, policy, form, scales, count)
    emulation = RoundedCache(HopperArithmetic(), form, scales)
    for mine, want in zip(made, emulated_steps(tiny, policy, emulation, count), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, want, strict=True))
    full = list(emulated_steps(tiny, policy, HopperArithmetic(), count))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(made, full, strict=True)) == (form.format == "fp32")


def test_fp16_and_bf16_products_read_exactly_what_is_stored():
    for fmt in ("fp8_e5m2", "fp8_e4m3"):
        form, values = CacheFormat(fmt), random(2, 9, 8)
        scale = scale_of(values.abs().amax((1, 2), keepdim=True), fmt)
        wide = rounded(values, form, scale)
        assert torch.equal(wide, wide.to(torch.bfloat16).to(torch.float32))
        assert torch.equal(wide, rounded(wide, form, scale))
        normal = wide.abs() >= 2.0**-14
        assert torch.equal(wide[normal], wide[normal].to(torch.float16).to(torch.float32))


@pytest.mark.parametrize("fmt", ["fp8_e4m3", "fp8_e5m2"])
def test_scales_are_the_least_powers_of_two_that_hold_a_magnitude(fmt):
    largest = FORMATS[fmt].max_value
    exact = [largest * 2.0**power for power in (-30, -3, 0, 1, 20)]
    assert scale_of(torch.tensor(exact), fmt).tolist() == [2.0**power for power in (-30, -3, 0, 1, 20)]
    above = np.nextafter(np.float32(exact), np.float32(np.inf))
    assert scale_of(torch.from_numpy(above), fmt).tolist() == [2.0**power for power in (-29, -2, 1, 2, 21)]
    assert scale_of(torch.tensor([0.0, math.nan]), fmt).tolist() == [0.0, 0.0]
    amax = random(100).abs()
    scale = scale_of(amax, fmt)
    assert bool((amax / scale <= largest).all())
    assert bool((amax / scale > largest / 2).all())


def test_stored_values_are_those_of_the_definition():
    rows = random(3, 5, 8, seed=3) * torch.tensor([0.01, 1.0, 300.0]).view(3, 1, 1)
    for fmt, covers in itertools.product(("fp8_e4m3", "fp8_e5m2"), ("head", "layer")):
        amax = rows.abs().amax((1, 2), keepdim=True) if covers == "head" else rows.abs().amax().view(1, 1, 1)
        scale = scale_of(amax, fmt)
        stored = Stored((3, 6, 8), CacheFormat(fmt, covers), scale, CPU)
        for position in range(5):
            stored.write(rows[:, position : position + 1], torch.tensor([position]))
        want = round_to((rows / scale).numpy(), FORMATS[fmt]) * scale.numpy()
        assert np.array_equal(stored.read()[:, :5].numpy(), want)
        assert not stored.read()[:, 5].any()
        assert stored.codes.dtype.itemsize == 1


@pytest.mark.parametrize("covers", ["head", "layer"])
def test_a_scale_of_the_first_row_holds_what_is_twice_as_large_and_saturates_beyond(covers):
    stored = Stored((2, 4, 8), CacheFormat("fp8_e4m3", covers), None, CPU)
    stored.write(torch.zeros(2, 1, 8), torch.tensor([0]))  # says nothing of how large rows get
    assert not stored.scale.any()
    first = torch.stack([torch.full((1, 8), 0.75), torch.full((1, 8), 24.0)])
    stored.write(first, torch.tensor([1]))
    chosen = stored.scale.clone()
    assert chosen.shape == ((2, 1, 1) if covers == "head" else (1, 1, 1))
    stored.write(first * HEADROOM, torch.tensor([2]))
    stored.write(first * 1e4, torch.tensor([3]))
    assert torch.equal(stored.scale, chosen)
    largest = (448 * chosen).expand(2, 1, 1)
    read = stored.read()
    torch.testing.assert_close(read[:, 2:3], first * HEADROOM, rtol=1 / 16, atol=0)
    assert torch.equal(read[:, 3:], largest.expand(2, 1, 8))
    stored.reset()
    assert not stored.codes.to(torch.float32).any()
    assert not stored.scale.any()


def test_nan_stays_and_harms_no_other():
    stored = Stored((1, 2, 4), CacheFormat("fp8_e5m2"), None, CPU)
    row = torch.tensor([[[1.0, math.nan, 2.0, math.inf]]])
    stored.write(row, torch.tensor([1]))
    assert stored.read()[0, 1].isnan().tolist() == [False, True, False, False]
    assert stored.read()[0, 1].tolist()[0] == 1.0
    assert float(stored.read()[0, 1, 3]) == 57344 * float(stored.scale) >= 2.0 * HEADROOM
    assert not stored.read()[0, 0].any()


def test_half_of_the_bytes_of_bf16(small):
    module, config = small.voice.module, small.voice.module.config
    elements = config.layers * 2 * config.kv_heads * config.max_rows * config.head_size
    sizes = {form.format: CachedStep(module, form).bytes() for form in (E5M2, E4M3, BF16)}
    scales = config.layers * 2 * config.kv_heads * 4
    for held in sizes.values():
        assert held.in_bf16 == 2 * elements
    assert sizes["fp8_e5m2"].stored == sizes["fp8_e4m3"].stored == elements + scales
    assert sizes["bf16"].stored == 2 * elements
    assert sizes["fp8_e5m2"].a_row * config.max_rows == elements
    assert sizes["fp8_e5m2"].read_a_step == elements
    assert CachedStep(module, CacheFormat("fp8_e5m2", "layer")).bytes().stored == elements + config.layers * 2 * 4


def test_of_the_large_decoder_a_stream_takes_134_megabytes():
    with torch.device("meta"):
        module = SpeechDecoder(replace(SEVEN_B, layers=2))
    held = CachedStep(module, E5M2).bytes()
    assert held.a_row * 16 == 32 * 2 * 4 * 128
    assert held.stored * 16 == pytest.approx(134_217_728, rel=1e-4)


def test_mixed_e4m3_and_e5m2_with_a_cache_in_e5m2_step_by_step(small):
    policy, count = small.mixed, 24
    scales = calibrated_scales(small.voice.module, small.calibration, "fp8_e5m2")
    engine, step, made = cached_steps(small, policy, E5M2, scales, count)
    assert engine.realized() == dict(policy.schemes)
    assert {stored.codes.dtype for pair in step._layers for stored in pair} == {torch.float8_e5m2}
    want = list(emulated_steps(small, policy, RoundedCache(HopperArithmetic(), E5M2, scales), count))
    plain = list(emulated_steps(small, small.uniform(PLAIN), HopperArithmetic(), count))
    for index, part in enumerate(step.parts[1:], 1):
        mine, emulated, full = (torch.cat([row[index] for row in rows]) for rows in (made, want, plain))
        formats, sums = snr_db(full, emulated), snr_db(emulated, mine)
        assert 8 < formats < 25, part
        assert sums > formats + 4, part
    assert all(torch.equal(mine[0], emulated[0]) for mine, emulated in zip(made, want, strict=True))


def test_a_second_stream_in_the_same_memory_is_the_first_again(tiny):
    for scales in (None, calibrated_scales(tiny.voice.module, tiny.calibration, "fp8_e5m2")):
        _, step, made = cached_steps(tiny, tiny.mixed, E5M2, scales, 6)
        places = [state.data_ptr() for state in step.states()]
        step.reset()
        engine = GemmEngine(tiny.voice, tiny.mixed, tiny.measured, device="cpu")
        with engine.running():
            again = [step(**inputs) for inputs in rows_of(tiny, 6)]
        assert all(
            torch.equal(a, b) for one, two in zip(made, again, strict=True) for a, b in zip(one, two, strict=True)
        )
        assert [state.data_ptr() for state in step.states()] == places


def test_the_whole_utterance_with_rounded_keys_and_values_is_what_a_search_hears(tiny):
    scales = calibrated_scales(tiny.voice.module, tiny.calibration, "fp8_e4m3")
    policy = tiny.uniform(PLAIN)
    full = tiny.voice.render(tiny.clip)
    found = {}
    for form in (E4M3, E5M2, BF16):
        arithmetic = RoundedCache(HopperArithmetic(), form, scales)
        assert arithmetic.name == f"hopper, KV cache in {form.format}"
        made = EmulatedEngine(tiny.voice, policy, arithmetic).render(tiny.clip)
        found[form.format] = snr_db(full.logits["text"], made.logits["text"])
    assert found["fp8_e5m2"] < found["fp8_e4m3"] < found["bf16"]
    assert found["fp8_e5m2"] > 15


def test_scales_come_from_what_the_products_read(tiny):
    module = tiny.voice.module
    assert attention_sites(module) == {
        f"layers.{i}.attention": (f"layers.{i}.attention#qk", f"layers.{i}.attention#pv") for i in range(2)
    }
    scales = calibrated_scales(module, tiny.calibration, "fp8_e4m3")
    for site, scale in scales.items():
        amax = tiny.calibration.amax(site, "right")
        assert 448 * float(scale) >= amax > 224 * float(scale)
    with pytest.raises(UncalibratedSiteError, match="right"):
        calibrated_scales(module, Calibration.of("amax", {}), "fp8_e4m3")


def test_formats_that_no_memory_has_are_refused():
    with pytest.raises(ValueError, match=r"KV cache in int4: use one of fp8_e4m3, fp8_e5m2, bf16"):
        CacheFormat("int4")
    assert float(round_fp8(torch.tensor([1.1]), "fp8_e5m2")) == 1.0


@pytest.mark.hopper
@pytest.mark.skipif(CARD is not None, reason=str(CARD))
class TestOnTheCard:
    @pytest.mark.parametrize("calibrated", [True, False])
    def test_a_captured_step_is_the_eager_one(self, small, calibrated):
        engine = GemmEngine(small.voice, small.mixed, small.measured, sites=small.sites)
        scales = calibrated_scales(small.voice.module, small.calibration, "fp8_e5m2") if calibrated else None
        step = CachedStep(engine.module, E5M2, scales)
        rows = list(rows_of(small, 12, "cuda"))
        with engine.running():
            eager = [tuple(part.clone() for part in step(**inputs)) for inputs in rows]
        step.reset()
        captured = engine.graph(step, rows[0])
        for inputs, want in zip(rows, eager, strict=True):
            made = captured(**inputs)
            assert all(torch.equal(a, b) for a, b in zip(made, want, strict=True))
        assert engine.realized() == dict(small.mixed.schemes)
        assert engine.time(lambda: captured(**rows[0]), runs=20).clock == "cuda events"
