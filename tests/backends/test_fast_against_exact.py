"""How far the fast path lies from the exact one, under the error that a scheme makes by itself."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.numerics import TensixArithmetic, read_activation, trusted
from precision.policy import FIDELITIES, Scheme
from voice.site_call import ConvOptions, SiteCall

FAST, EXACT = TensixArithmetic(), ExactTensix("blackhole")
FORMATS = ("bf16", "bfp8_b", "bfp4_b", "fp32")
WIDE = ("bf16", "fp32")


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def linear(k, bias=False, n=32):
    weight = random(n, k, seed=1, scale=k**-0.5)
    return SiteCall("s", "linear", random(32, k), weight, random(n, seed=2) if bias else None, None, False, 0)


def conv(k, bias=False, n=32):
    weight = random(n, k // 4, 4, seed=1, scale=k**-0.5)
    options = ConvOptions((1,), (0,), (1,))
    bias = random(n, seed=2) if bias else None
    return SiteCall("s", "conv1d", random(1, k // 4, 35), weight, bias, options, False, 0)


def transposed(k, n=32):
    weight = random(k // 4, n, 4, seed=1, scale=k**-0.5)
    options = ConvOptions((2,), (1,), (1,), 1, (0,))
    return SiteCall("s", "conv_transpose1d", random(1, k // 4, 16), weight, None, options, False, 0)


def attention(k):
    return SiteCall("s", "matmul", random(2, 24, k), random(2, k, 24, seed=1), None, None, True, 0)


SUMS = [linear(16), linear(4096), conv(1024), transposed(256), attention(64)]
STORED = [
    linear(16),
    linear(256, bias=True),
    linear(4096, bias=True),
    conv(64, bias=True),
    conv(1024, bias=True),
    transposed(256),
]


def compute(arithmetic, call, scheme):
    return arithmetic.compute(call, scheme, arithmetic.prepare(call, scheme), None)


def ideal_of(call):
    bias = None if call.bias is None else call.bias.double()
    return replace(call, x=call.x.double(), weight=call.weight.double(), bias=bias).compute()


def margin_db(call, scheme, ideal):
    """How many dB the distance between fast and exact lies under the distance between exact and ideal."""
    exact, fast = (compute(arithmetic, call, scheme).double() for arithmetic in (EXACT, FAST))
    distance = float((fast - exact).square().sum())
    error = float((exact - ideal).square().sum())
    return math.inf if distance == 0 else 10 * math.log10(error / distance)


def takes(call, scheme):
    return call.options is None or scheme.activation != "bfp4_b"


SCHEMES = [
    Scheme(f"{activation}_{weight}_{fidelity}", weight, activation, "fp32", fidelity)
    for weight, activation, fidelity in product(FORMATS, FORMATS, FIDELITIES)
]


def least_margin_of_sums(scheme, *, is_product):
    operands = (scheme.activation, scheme.activation if is_product else scheme.weight)
    return 10.5 if scheme.fidelity in ("hifi3", "hifi4") and all(fmt in WIDE for fmt in operands) else 20


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_sums_lie_far_nearer_to_the_cards_than_these_to_exact_ones(scheme):
    for call in SUMS:
        if not takes(call, scheme):
            continue
        axis = 1 if call.options is not None else -1
        # What is stored already reads the same as fp32, and fp32 results are the sums themselves.
        stored = read_activation(call.x, scheme, axis, cut=False)
        given = replace(call, x=stored)
        if call.is_product:
            given = replace(given, weight=read_activation(call.weight, scheme, -1, cut=False))
        margin = margin_db(given, replace(scheme, activation="fp32"), ideal_of(call))
        assert margin >= least_margin_of_sums(scheme, is_product=call.is_product), (call.op, call.weight.shape)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_trust_in_what_is_stored_is_where_it_is_deserved(scheme):
    least = min(margin_db(call, scheme, ideal_of(call)) for call in STORED if takes(call, scheme))
    assert least >= 20 if trusted(scheme) else least < 21.5  # by chance of the data a dB more than the table's least


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_products_are_trusted_by_their_activations_alone(fmt, fidelity):
    call = attention(1024)
    for weight in ("bf16", "bfp4_b"):
        scheme = Scheme("s", weight, fmt, "fp32", fidelity)
        if trusted(scheme, is_product=True):
            assert margin_db(call, scheme, ideal_of(call)) >= 20
    assert trusted(scheme, is_product=True) == (fidelity == "lofi" or fmt == "bfp4_b")


def test_levers_against_the_cut_take_trust_away():
    scheme = Scheme("s", "bf16", "bf16", "fp32", "lofi")
    assert trusted(replace(scheme, levers=("channel_order",)))
    rounded = replace(scheme, levers=("fidelity_rounding",))
    assert not trusted(rounded)
    call = linear(1024)
    assert margin_db(call, rounded, ideal_of(call)) < margin_db(call, scheme, ideal_of(call)) - 3


@pytest.mark.parametrize("activation", FORMATS)
@pytest.mark.parametrize("weight", FORMATS)
def test_sums_in_bf16_are_exact(activation, weight):
    calls = [linear(48), linear(256, bias=True), conv(256, bias=True), transposed(96), attention(80)]
    for call, fidelity, blocks, in_memory in product(calls, ("lofi", "hifi4"), (None, 1, 4), (False, True)):
        scheme = Scheme("s", weight, activation, "bf16", fidelity, packer_l1_acc=in_memory, in0_block_w=blocks)
        if takes(call, scheme) and (call.op != "linear" or call.weight.shape[1] > 48 or blocks != 4):
            assert torch.equal(compute(FAST, call, scheme), compute(EXACT, call, scheme)), (call.op, scheme)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["bf16", "fp32"])
def test_blocks_of_a_convolution_in_fp32_are_followed(activation, bias, in_memory):
    call = conv(512, bias)
    scheme = Scheme("s", "bfp8_b", activation, "fp32", "lofi", packer_l1_acc=in_memory, in0_block_w=2)
    assert margin_db(call, scheme, ideal_of(call)) >= 20
    whole = compute(FAST, call, replace(scheme, in0_block_w=None))
    # Spills show: the same sum in one block lies farther off.
    exact = compute(EXACT, call, scheme)
    assert (compute(FAST, call, scheme) - exact).square().sum() < (whole - exact).square().sum() or in_memory
