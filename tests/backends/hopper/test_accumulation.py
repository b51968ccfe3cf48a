from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.hopper.accumulation import (
    CANDIDATES,
    EXACT_FP32,
    HOPPER_16BIT,
    HOPPER_FP8,
    HOPPER_FP8_PROMOTED,
    AccumulationModel,
    accumulate_reference,
    fit,
    matmul,
)

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
GOLDEN = Path(__file__).parents[2] / "golden" / "hopper" / "wgmma.npz"
TYPES = {"e4m3": E4M3, "e5m2": E5M2, "bf16": torch.bfloat16, "f16": torch.float16}


def codes(rows, columns, kind, seed=0, spread=4.0):
    """Values of many magnitudes, so that alignment cuts."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    values *= torch.exp2(spread * torch.randn(rows, columns, generator=generator))
    return values.clamp(-448, 448).to(kind)


def defined(a, b, model):
    return torch.tensor(
        [[accumulate_reference(a[i], b[:, j], model) for j in range(b.shape[1])] for i in range(a.shape[0])]
    )


@pytest.mark.parametrize("case", ["e4m3_e4m3", "e4m3_e5m2", "e5m2_e4m3", "bf16_bf16", "f16_f16"])
def test_the_presets_are_what_mma_sim_says_of_wgmma(case):
    """MMA-Sim's authors found it equal to an H100 in all their trials (arXiv 2511.10909)."""
    with np.load(GOLDEN) as vectors:
        left, right = (TYPES[name] for name in case.split("_"))
        a, b = (torch.from_numpy(vectors[f"{case}__{side}"]) for side in "ab")
        result = torch.from_numpy(vectors[f"{case}__d"])
    a, b = a.view(left), b.view(right)
    model = HOPPER_FP8 if a.element_size() == 1 else HOPPER_16BIT
    assert torch.equal(matmul(a, b, model), result)
    assert torch.equal(defined(a[:2], b, model), result[:2])
    assert not torch.equal(matmul(a, b, replace(model, rounding="nearest")), result)


@pytest.mark.parametrize(
    ("left", "right"), [(E4M3, E4M3), (E4M3, E5M2), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16)]
)
def test_the_fast_path_is_the_definition_to_the_bit(left, right):
    a, b = codes(2, 150, left), codes(150, 2, right, seed=1)
    for model in CANDIDATES[::3]:
        assert torch.equal(matmul(a, b, model), defined(a, b, model)), model


MODELS = st.builds(
    AccumulationModel,
    step=st.sampled_from([1, 2, 8, 16, 32]),
    fraction_bits=st.integers(1, 30),
    rounding=st.sampled_from(["truncate", "nearest"]),
    includes_accumulator=st.booleans(),
    promote_every=st.sampled_from([None, 32, 64]),
    exponents=st.sampled_from(["operands", "products"]),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(MODELS, st.data())
def test_any_model_on_any_codes_is_the_definition(model, data):
    depth = data.draw(st.integers(1, 70))
    kinds = [data.draw(st.sampled_from([E4M3, E5M2])) for _ in range(2)]
    a, b = (
        torch.tensor(data.draw(st.lists(st.integers(0, 255), min_size=depth, max_size=depth)), dtype=torch.uint8).view(
            k
        )
        for k in kinds
    )
    got, expected = matmul(a[None], b[:, None], model)[0, 0], torch.tensor(accumulate_reference(a, b, model))
    assert torch.equal(got, expected) or (got.isnan() and expected.isnan())


@pytest.mark.parametrize(
    ("left", "right"), [(E4M3, E5M2), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16)]
)
def test_exact_fp32_is_a_plain_loop_in_fp32(left, right):
    a, b = codes(5, 300, left, spread=8.0), codes(300, 4, right, seed=1, spread=8.0)
    total = torch.zeros(5, 4)
    for k in range(300):
        total = total + a[:, k : k + 1].float() * b[k : k + 1].float()
    assert torch.equal(matmul(a, b, EXACT_FP32), total)


def test_what_the_model_says_of_a_few_numbers():
    one = torch.ones(1, 1)
    # SageAttention2's finding: 13 bits of fraction. What a second instruction brings below them is lost.
    a = torch.cat([one, torch.zeros(1, 31), one * 2.0**-6], 1).to(E4M3)
    for power, expected in ((-7, 1 + 2.0**-13), (-8, 1.0)):
        b = torch.cat([one, torch.zeros(31, 1), one * 2.0**power]).to(E4M3)
        assert matmul(a, b, HOPPER_FP8).item() == expected
    small = torch.cat([one * 2.0**-6] * 2).to(E4M3)
    large = torch.tensor([[256.0, 2.0**-6]]).to(E4M3)
    # 4 beside 2**-12: cut where 13 bits below 4 are kept, and kept with one more.
    assert matmul(large, small, HOPPER_FP8).item() == 4.0
    assert matmul(large, small, AccumulationModel(32, 14)).item() == 4.0 + 2.0**-12
    # The denormal 2**-9 has the exponent of the smallest normal, so 128 * 2**-9 is aligned as 128 * 2**-6 would be.
    denormal = torch.tensor([[2.0**-9], [2.0**-6]]).to(E4M3)
    lone = torch.tensor([[128.0, 2.0**-7]]).to(E4M3)
    assert matmul(lone, denormal, HOPPER_FP8).item() == 0.25
    assert matmul(lone, denormal, replace(HOPPER_FP8, exponents="products")).item() == 0.25 + 2.0**-13
    # Toward zero on both sides, and never minus zero.
    negative = (-large.float()).to(E4M3)
    assert matmul(negative, small, HOPPER_FP8).item() == -4.0
    assert not matmul(negative, torch.zeros(2, 1).to(E4M3), HOPPER_FP8).signbit().any()
    # 1.5 * 1.5 is aligned by the exponent 0 of its operands, though it is above 2.
    half = torch.tensor([[1.5, 1.0]]).to(E4M3)
    tiny = torch.tensor([[1.5], [2.0**-9 * 5]]).to(E4M3)
    assert matmul(half, tiny, AccumulationModel(32, 8, exponents="operands")).item() == 2.25 + 2.0**-7
    assert matmul(half, tiny, AccumulationModel(32, 6, exponents="operands")).item() == 2.25
    assert matmul(half, tiny, AccumulationModel(32, 7, exponents="products")).item() == 2.25


def test_long_sums_stall_and_promotion_keeps_them_going():
    ones = torch.ones(1, 1 << 16).to(E4M3)
    # Beside 2**14 a one lies below the last bit kept, and so do 32 of them: each is cut by itself.
    assert matmul(ones, ones.view(-1, 1), HOPPER_FP8).item() == 1 << 14
    assert matmul(ones, ones.view(-1, 1), HOPPER_FP8_PROMOTED).item() == 1 << 16
    # Added in fp32 the sum of a step, 32, is never lost.
    assert matmul(ones, ones.view(-1, 1), replace(HOPPER_FP8, includes_accumulator=False)).item() == 1 << 16


def test_what_is_not_finite_goes_through():
    a = torch.tensor([[1.0, torch.nan], [1.0, 2.0]]).to(E4M3)
    b = torch.tensor([[torch.inf, 1.0, 0.0], [1.0, 1.0, 0.0]]).to(E5M2)
    got = matmul(a, b, HOPPER_FP8)
    assert got[0].isnan().all()
    assert got[1].tolist() == [torch.inf, 3.0, 0.0]
    assert accumulate_reference(a[1], b[:, 0], HOPPER_FP8) == torch.inf
    large = torch.full((1, 16), 3e38).to(torch.bfloat16)
    for model in (HOPPER_16BIT, replace(HOPPER_16BIT, step=2, promote_every=4), EXACT_FP32):
        assert matmul(large, large.view(-1, 1), model).item() == torch.inf
        assert accumulate_reference(large[0], -large[0], model) == -torch.inf
        # What has become Inf stays so, whatever follows.
        turned = torch.cat([large, -large], 1)
        assert matmul(turned, large.view(-1, 1).repeat(2, 1), model).item() == torch.inf


def test_nothing_to_sum_is_zero():
    a, b = torch.zeros(3, 0).to(E4M3), torch.zeros(0, 2).to(E4M3)
    assert matmul(a, b, HOPPER_FP8).eq(0).all()
    assert matmul(torch.zeros(0, 5).to(E4M3), torch.zeros(5, 2).to(E4M3), HOPPER_FP8).shape == (0, 2)


def test_what_does_not_fit_is_refused():
    codes_ = torch.zeros(2, 2).to(E4M3)
    with pytest.raises(ValueError, match=r"\[m, k\] and b \[k, n\]"):
        matmul(codes_, torch.zeros(3, 2).to(E4M3), HOPPER_FP8)
    with pytest.raises(TypeError, match="quantize first"):
        matmul(codes_, torch.zeros(2, 2), HOPPER_FP8)
    with pytest.raises(ValueError, match="multiple of the step, 32, got 48"):
        AccumulationModel(32, 13, promote_every=48)
    with pytest.raises(ValueError, match="float64 has 53"):
        AccumulationModel(32, 46)
    with pytest.raises(ValueError, match="1 or more"):
        AccumulationModel(0, 13)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        fit(codes_, codes_, torch.zeros(2, 3))
    with pytest.raises(TypeError, match="float32, bfloat16 or float16"):
        fit(codes_, codes_, torch.zeros(2, 2, dtype=torch.float64), [HOPPER_FP8])


@pytest.mark.parametrize(
    "truth",
    [
        HOPPER_FP8,
        HOPPER_FP8_PROMOTED,
        EXACT_FP32,
        AccumulationModel(16, 14, includes_accumulator=False),
        AccumulationModel(32, 13, exponents="products"),
    ],
)
def test_a_fit_finds_the_model_that_made_the_results(truth):
    a, b = codes(8, 1024, E4M3, spread=2.0), codes(1024, 8, E4M3, seed=1, spread=2.0)
    few = [model for model in CANDIDATES if model.fraction_bits in (13, 14, 49) and model.rounding == "truncate"]
    ranked = fit(a, b, matmul(a, b, truth), [*few, EXACT_FP32])
    assert (ranked[0].model, ranked[0].equal, ranked[0].max_ulp) == (truth, 1.0, 0)
    assert ranked[1].equal < 1
    assert ranked[1].max_ulp > 0
    assert [fitted.equal for fitted in ranked] == sorted((fitted.equal for fitted in ranked), reverse=True)


def test_distances_are_counted_in_the_observed_type():
    a, b = codes(4, 64, E4M3, spread=1.0), codes(64, 4, E4M3, seed=1, spread=1.0)
    exact = matmul(a, b, HOPPER_FP8)
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        (same,) = fit(a, b, exact.to(kind), [HOPPER_FP8])
        assert (same.equal, same.max_ulp) == (1.0, 0)
    other = exact.bfloat16()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(torch.inf, dtype=torch.bfloat16))
    (moved,) = fit(a, b, other, [HOPPER_FP8])
    assert (moved.equal, moved.max_ulp) == (15 / 16, 1)
    empty = fit(a[:0], b, exact[:0], [HOPPER_FP8])
    assert (empty[0].equal, empty[0].max_ulp) == (1.0, 0)


def test_the_distance_across_zero_and_to_minus_zero():
    a, b = torch.ones(1, 1).to(E4M3), torch.full((1, 1), 0.0).to(E4M3)
    (fitted,) = fit(a, b, torch.tensor([[-0.0]]), [HOPPER_FP8])
    assert (fitted.equal, fitted.max_ulp) == (1.0, 0)
    (fitted,) = fit(a, b, torch.tensor([[-(2.0**-149)]]), [HOPPER_FP8])
    assert (fitted.equal, fitted.max_ulp) == (0.0, 1)
