"""Levers that use data, and the block axis of weights. Roundings without data are in test_tensix_rounding.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tenstorrent.error_feedback import DAMPING, ColumnGrid, compensated, feed_back, upper_factor
from backends.tenstorrent.levers import round_significant, truncation_moments
from backends.tenstorrent.numerics import TensixArithmetic, read_activation
from backends.tenstorrent.rounding import WeightBlocks, clear_low_bits, host_bf16, host_blocks, pack_float
from backends.tenstorrent.storage import store_operands, store_weight
from calibrate.moments import Moments
from precision.blocks import BLOCK_FORMATS, round_blocks
from precision.policy import Scheme
from voice.gemm import to_columns
from voice.site_call import ConvOptions, SiteCall

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scheme_of(*levers, weight="bfp8_b", activation="bf16", fidelity="lofi"):
    return Scheme("test", weight, activation, "fp32", fidelity, levers=levers)


def rows_of(count, k, seed=0):
    """Correlated inputs of unequal strength, with a mean, as activations are."""
    rng = np.random.default_rng(seed)
    smooth = np.convolve(rng.normal(size=count + k), np.ones(6) / 6, "same")
    lagged = np.lib.stride_tricks.sliding_window_view(smooth, k)[:count]
    return torch.from_numpy((0.3 + lagged + 0.1 * rng.normal(size=(count, k))) * np.exp(rng.normal(size=k))).float()


def moments_of(*groups):
    rows = torch.stack(groups).double()
    return Moments(rows.mean(1), rows.mT @ rows / rows.shape[1], rows.shape[1])


def linear_call(x, weight, bias=None, site="site"):
    return SiteCall(site, "linear", x, weight, bias, None, is_product=False, index=0)


def gptq(weight, hessian, quantize):
    """Frantar et al. 2022, algorithm 1 with one column a batch, in its own form: by the inverse of the Hessian."""
    damped = hessian + torch.eye(len(hessian), dtype=torch.float64) * DAMPING * hessian.diagonal().mean()
    inverse = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    left, result = weight.clone(), torch.empty_like(weight)
    for j in range(weight.shape[1]):
        result[:, j] = quantize(left[:, j].float()).double()
        error = (left[:, j] - result[:, j]) / inverse[j, j]
        left[:, j:] -= error[:, None] * inverse[j, j:]
    return result


def outer(hessian, error):
    return float(((error @ hessian) * error).sum())


@pytest.mark.parametrize("k", [1, 40, 300])
def test_error_feedback_is_gptq(k):
    inputs = rows_of(600, k).double()
    inputs = inputs[:, inputs.square().mean(0).argsort(descending=True)]  # already in the order that is taken
    hessian = inputs.mT @ inputs / 600
    weight = random(24, k).double()
    got = feed_back(weight, hessian, ColumnGrid(round_significant), lambda stored: stored)
    assert torch.equal(got.double(), gptq(weight, hessian, round_significant))


def test_the_factor_is_of_the_damped_hessian():
    inputs = rows_of(90, 30).double()
    hessian = inputs.mT @ inputs / 90
    factor = upper_factor(hessian)
    assert torch.equal(factor, factor.triu())
    level = DAMPING * hessian.diagonal().mean()
    torch.testing.assert_close(factor @ factor.mT, hessian + level * torch.eye(30, dtype=torch.float64))


LEVERS = st.sets(st.sampled_from(["fidelity_rounding", "gain_folding", "error_feedback", "col_tilize"]))


@PROPERTY
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["bf16", "bfp8_b", "bfp4_b", "fp32"]),
    LEVERS,
    st.integers(1, 35),
    st.integers(1, 40),
)
def test_the_host_stores_the_weights_unchanged_and_lofi_reads_all_of_them(seed, fmt, levers, channels, k):
    if fmt == "bfp4_b":
        levers = levers - {"fidelity_rounding"}
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy((rng.normal(size=(channels, k)) * np.exp2(rng.normal(size=(channels, k)))).astype("f4"))
    moments = moments_of(rows_of(64, k, seed))
    stored = store_weight(weight, "linear", 1, scheme_of(*sorted(levers), weight=fmt), moments)
    if fmt == "bf16":
        again = host_bf16(stored)
    elif fmt == "fp32":
        again = stored
    elif "col_tilize" in levers:
        again = host_blocks(stored.mT.contiguous(), fmt, WeightBlocks(k, 1)).mT
    else:
        again = host_blocks(stored, fmt, WeightBlocks(channels, 1))
    assert torch.equal(again, stored)
    if "fidelity_rounding" in levers:
        assert torch.equal(clear_low_bits(stored, 19), stored)


@pytest.mark.parametrize("fmt", ["bfp8_b", "bfp4_b"])
@pytest.mark.parametrize("k", [5, 16, 40])
def test_tilized_blocks_lie_along_k(fmt, k):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(7, k)) * 2.0 ** rng.integers(-9, 9, (7, k))).astype(np.float32)
    got = store_weight(torch.from_numpy(weight), "linear", 1, scheme_of("col_tilize", weight=fmt))
    assert np.array_equal(got.numpy(), round_blocks(weight, BLOCK_FORMATS[fmt], axis=1))


@pytest.mark.parametrize("levers", [(), ("fidelity_rounding",), ("fidelity_rounding", "col_tilize")])
@pytest.mark.parametrize("fmt", ["bf16", "bfp8_b", "bfp4_b"])
def test_error_feedback_loses_less_on_inputs_it_has_not_seen(fmt, levers):
    if fmt == "bfp4_b":
        levers = tuple(lever for lever in levers if lever != "fidelity_rounding")
    if fmt == "bf16":
        levers = tuple(lever for lever in levers if lever != "col_tilize")
    weight, inputs = random(48, 96), rows_of(4000, 96)
    seen, unseen = inputs[:2000], inputs[2000:].double()

    def lost(*more):
        scheme = scheme_of(*levers, *more, weight=fmt)
        stored = store_weight(weight, "linear", 1, scheme, moments_of(seen))
        return float((unseen @ (clear_low_bits(stored, 19) - weight).double().mT).square().mean())

    assert lost("error_feedback") < 0.5 * lost()


def test_error_feedback_takes_in_that_activations_are_cut():
    weight, inputs = random(32, 64), rows_of(4000, 64).abs()
    moments = moments_of(inputs)
    cut = {"weight": "bf16", "activation": "fp32", "fidelity": "hifi2"}  # cuts activations, and reads all of a weight
    scheme, folded = scheme_of("error_feedback", **cut), scheme_of("gain_folding", "error_feedback", **cut)
    read = read_activation(inputs, scheme, -1).double()

    def lost(values):
        return float((read @ values.double().mT - inputs.double() @ weight.double().mT).square().mean())

    least = lost(weight / truncation_moments(11, 7)[0])  # what the cut itself costs
    plain = lost(store_weight(weight, "linear", 1, scheme, moments)) - least
    assert lost(store_weight(weight, "linear", 1, folded, moments)) - least < 0.1 * plain


def test_the_compensated_target_is_the_least_error():
    inputs = rows_of(5000, 20).double()
    gain, spread = 0.95, 0.02
    noise = random(5000, 20, seed=1).double() * (spread * inputs.square().mean(0)).sqrt()
    read = gain * inputs + noise
    weight = random(6, 20).double()
    target, hessian = compensated(weight, inputs.mT @ inputs / 5000, gain, spread)

    def loss(values):
        return float((read @ values.mT - inputs @ weight.mT).square().mean())

    assert loss(target) < min(loss(weight), loss(weight / gain))
    # The sample's own optimum, which knows the noise, is hardly better.
    best = torch.linalg.lstsq(read, inputs @ weight.mT).solution.mT
    assert loss(target) < 1.1 * loss(best)
    torch.testing.assert_close(hessian, read.mT @ read / 5000, rtol=0.2, atol=0.02)


def test_moments_of_a_cut_agree_with_a_measurement():
    values = torch.exp2(torch.rand(300_000, generator=torch.Generator().manual_seed(3))).double()
    stored = pack_float(values.float(), 7).double()
    cut = clear_low_bits(stored.float(), 17).double()
    gain, spread = truncation_moments(8, 7)
    measured = float((stored * cut).sum() / stored.square().sum())
    assert gain == pytest.approx(measured, abs=1e-5)
    assert spread == pytest.approx(float((cut - measured * stored).square().sum() / stored.square().sum()), rel=0.02)
    assert truncation_moments(7, 7) == (1.0, pytest.approx(0.0, abs=1e-15))


def test_each_group_is_fed_back_by_its_own_inputs():
    weight = random(8, 3, 5).repeat(2, 1, 1)
    first, second = rows_of(400, 15, seed=1), rows_of(400, 15, seed=2)
    scheme = scheme_of("fidelity_rounding", "error_feedback", weight="bf16")
    both = store_weight(weight, "conv1d", 2, scheme, moments_of(first, second))
    alone = [store_weight(weight[:8], "conv1d", 1, scheme, moments_of(rows)) for rows in (first, second)]
    assert torch.equal(both, torch.cat(alone))
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.parametrize(
    ("op", "shape"), [("conv1d", (12, 3, 5)), ("conv_transpose1d", (6, 6, 4)), ("conv2d", (12, 3, 3, 2))]
)
def test_weights_meet_their_own_moments_in_every_operation(op, shape):
    groups = 2
    weight = random(*shape)
    columns = to_columns(weight, op, groups)
    k = columns.shape[1]
    rows = torch.stack([rows_of(2000, k, seed=seed) for seed in (1, 2)])

    def lost(*levers):
        scheme = scheme_of("fidelity_rounding", *levers)
        stored = store_weight(weight, op, groups, scheme, moments_of(*rows))
        assert stored.shape == weight.shape
        return float((rows @ (to_columns(stored, op, groups) - columns)).square().mean())

    assert lost("error_feedback") < 0.5 * lost()


def test_a_corrected_bias_keeps_the_mean_of_the_result():
    tensix = TensixArithmetic()
    x, weight, bias = rows_of(4000, 64), random(24, 64), random(24, seed=1)
    call = linear_call(x, weight, bias)
    exact = call.compute().double().mean(0)

    def shift(*levers):
        scheme = scheme_of(*levers, activation="fp32")
        result = tensix.compute(call, scheme, tensix.prepare(call, scheme, moments_of(x)), None)
        return float((result.double().mean(0) - exact).square().mean().sqrt())

    assert shift("bias_correction") < 0.1 * shift()
    assert shift("fidelity_rounding", "bias_correction") < shift("fidelity_rounding")


def test_a_correction_does_nothing_where_there_is_no_bias():
    x, weight = rows_of(100, 16), random(8, 16)
    plain = store_operands(linear_call(x, weight), scheme_of())
    corrected = store_operands(linear_call(x, weight), scheme_of("bias_correction"), moments_of(x))
    assert plain[1] is corrected[1] is None
    assert torch.equal(plain[0], corrected[0])


@pytest.mark.parametrize("lever", ["error_feedback", "bias_correction"])
def test_a_lever_without_moments_says_what_is_missing(lever):
    call = linear_call(random(3, 16), random(8, 16), random(8), site="decoder.out")
    with pytest.raises(ValueError, match=rf"site decoder\.out: lever {lever} needs the moments"):
        TensixArithmetic().prepare(call, scheme_of(lever))
    with pytest.raises(ValueError, match=r"site decoder\.out: moments of 12 inputs, and the weight has 16"):
        store_operands(call, scheme_of(lever), moments_of(rows_of(20, 12)))


def test_inputs_that_are_all_zero_leave_plain_rounding():
    weight = random(20, 33)
    moments = moments_of(torch.zeros(10, 33))
    for levers in ((), ("fidelity_rounding",)):
        fed_back = store_weight(weight, "linear", 1, scheme_of(*levers, "error_feedback", weight="bf16"), moments)
        nearest = round_significant(weight) if levers else host_bf16(weight)
        assert torch.equal(fed_back, nearest)


def test_convolutions_keep_the_layout_of_their_weights():
    weight = random(16, 8, 3)
    stored = store_weight(weight, "conv1d", 1, scheme_of(weight="bf16"))
    assert torch.equal(stored, host_bf16(weight))
    options = ConvOptions((1,), (1,), (1,))
    call = SiteCall("site", "conv1d", random(1, 8, 20), weight, None, options, is_product=False, index=0)
    assert store_operands(call, scheme_of())[0].is_contiguous()


def test_error_feedback_has_weights_make_up_for_a_bias_that_was_rounded():
    k, channels = 40, 32
    inputs, weight = rows_of(600, k) + 0.5, random(channels, k, seed=1) / k
    bias = random(channels, seed=2) * torch.logspace(-3, 0, channels)  # blocks of sixteen: the small ones lose most
    x = inputs.T[None].contiguous()
    call = SiteCall("conv", "conv1d", x, weight[..., None], bias, ConvOptions((1,), (0,), (1,)), False, 0)
    scheme = scheme_of("fidelity_rounding", "error_feedback", activation="fp32")
    stored, stored_bias = store_operands(call, scheme, moments_of(inputs))
    alone = store_weight(call.weight, "conv1d", 1, scheme, moments_of(inputs))

    def error(weights):
        return float((inputs @ (weights - call.weight)[..., 0].T + stored_bias - bias).square().mean())

    assert error(stored) < 0.5 * error(alone)
