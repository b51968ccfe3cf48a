import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.tenstorrent.accumulation import accumulate_bf16, accumulate_in_torch
from backends.tenstorrent.numerics import TensixArithmetic, read_activation
from backends.tenstorrent.partials import bias_shape
from backends.tenstorrent.rounding import host_bf16
from backends.tenstorrent.storage import store_bias, store_weight
from precision.policy import FIDELITIES, Scheme
from voice.site_call import ConvOptions, SiteCall

VECTORS = Path(__file__).parents[3] / "shared" / "numerics"
NAMES = {"bf16": "bf16", "bfp8": "bfp8_b", "bfp4": "bfp4_b", "tf32": "fp32", "fp32": "fp32"}
TENSIX = TensixArithmetic()


def call_of(op, x, weight, bias=None, options=None, site="site"):
    return SiteCall(site, op, x, weight, bias, options, is_product=op == "matmul", index=0)


def compute(call, scheme):
    return TENSIX.compute(call, scheme, TENSIX.prepare(call, scheme), None)


def scheme_of(**fields):
    return Scheme("s", **{"weight": "bf16", "activation": "bf16", "fidelity": "lofi", **fields})


def snr_db(exact, got):
    return float(10 * torch.log10(exact.double().square().sum() / (exact.double() - got.double()).square().sum()))


def gain(exact, got):
    return float((exact.double() * got.double()).sum() / exact.double().square().sum())


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole_operations(name):
    path = VECTORS / "ops" / name
    if not path.is_file():
        pytest.skip(f"no golden vectors: {name} does not lie in ../shared/numerics/ops")
    with np.load(path) as archive:
        return {key: torch.from_numpy(value) for key, value in archive.items()}


@pytest.fixture(scope="module")
def golden():
    path = VECTORS / "matmul_64x512x64.npz"
    if not path.is_file():
        pytest.skip("no golden vectors: matmul_64x512x64.npz does not lie in ../shared/numerics")
    with np.load(path) as archive:
        return {key: torch.from_numpy(value) for key, value in archive.items()}


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("combo", ["bf16_bf16", "bfp8_bfp8", "bf16_bfp8", "bf16_bfp4", "tf32_tf32"])
def test_the_fast_path_errs_far_less_than_its_scheme(golden, combo, fidelity):
    left, right = combo.split("_")
    spelled = {"lofi": "LoFi"}.get(fidelity, fidelity.replace("hifi", "HiFi"))
    card = golden[f"normal__C__{combo}__{spelled}__dst32__wh"]
    exact = golden["normal__A_raw"].double() @ golden["normal__B_raw"].double()
    # What is stored already reads the same as fp32, which keeps the sums as they are.
    scheme = scheme_of(weight=NAMES[right], activation="fp32", fidelity=fidelity)
    fast = compute(call_of("linear", golden[f"normal__A_{left}"], golden["normal__B_raw"].T.contiguous()), scheme)
    assert snr_db(card, fast) > 65
    if left != "tf32":
        assert snr_db(card, fast) > snr_db(exact, card) + (14 if fidelity in ("hifi3", "hifi4") else 20)
    assert snr_db(exact, fast) == pytest.approx(snr_db(exact, card), abs=0.15)
    assert gain(exact, fast) == pytest.approx(gain(exact, card), abs=2e-4)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("dist", ["normal", "lognorm8", "ties"])
@pytest.mark.parametrize("combo", ["bf16_bf16", "bfp8_bfp8", "bf16_bfp8", "bf16_bfp4"])
def test_sums_in_bf16_are_the_cards(golden, combo, dist, fidelity):
    left, right = combo.split("_")
    spelled = {"lofi": "LoFi"}.get(fidelity, fidelity.replace("hifi", "HiFi"))
    card = golden[f"{dist}__C__{combo}__{spelled}__dst16__wh"]
    a, b = golden[f"{dist}__A_{left}"], golden[f"{dist}__B_{right}"]
    assert torch.equal(accumulate_bf16(a, b, fidelity), card)
    assert torch.equal(accumulate_in_torch(a[None], b[None], fidelity, torch.zeros(1, *card.shape))[0], card)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_sums_in_bf16_are_the_same_compiled_and_in_torch(fidelity):
    left, right = host_bf16(random(3, 2, 5, 72)), host_bf16(random(2, 72, 19, seed=1))
    start = host_bf16(random(3, 2, 5, 19, seed=2))
    compiled = accumulate_bf16(left, right, fidelity, start)
    again = accumulate_in_torch(
        left.flatten(0, 1), right.expand(3, -1, -1, -1).flatten(0, 1), fidelity, start.flatten(0, 1)
    )
    assert torch.equal(compiled, again.view(compiled.shape))
    assert not torch.equal(compiled, accumulate_bf16(left, right, fidelity))


@pytest.mark.parametrize("chip", ["wh", "bh"])
@pytest.mark.parametrize("sharding", ["conv1d", "conv1dh"])
def test_whole_convolutions_of_the_card_are_met(chip, sharding):
    arrays = whole_operations(f"{sharding}_{chip}.npz")
    met = 0
    for key, card in arrays.items():
        named = re.fullmatch(r"y__w_(\w+?)__dil(\d)__(\w+?)__(dst\d\d)__(\w+?)__(\w+)", key)
        if named is None:
            continue
        weights, dilation, fidelity, sums, adding, bias = named.groups()
        options = ConvOptions((1,), (3 * int(dilation),), (int(dilation),))
        x, weight = arrays["x_raw"].mT.contiguous(), arrays["w_raw"]
        call = call_of("conv1d", x, weight, arrays["bias_raw"].flatten() if bias == "bias" else None, options)
        scheme = scheme_of(
            weight=NAMES[weights],
            fidelity=fidelity.lower(),
            accumulate="fp32" if sums == "dst32" else "bf16",
            packer_l1_acc=adding == "l1acc",
            in0_block_w=2 if sharding == "conv1d" else None,
        )
        fast = compute(call, scheme)[0].T
        # The card's own partial sums in bf16 flip where the fast sum lies near a tie.
        assert torch.equal(fast, card) if sums == "dst16" else snr_db(card, fast) > 54, key
        met += 1
    assert met >= 12


@pytest.mark.parametrize("chip", ["wh", "bh"])
@pytest.mark.parametrize("shape", ["32x64x32", "64x256x96", "128x512x128"])
def test_whole_linear_layers_of_the_card_are_met(chip, shape):
    arrays = whole_operations(f"matmul_{shape}_{chip}.npz")
    configs = json.loads((VECTORS / "ops" / f"configs_{chip}_mm.json").read_text())
    met = 0
    for key, card in arrays.items():
        pattern = r"(\w+?)__C__(bf16|fp32)_(\w+?)__(\w+?)__(dst\d\d)__(\w+?)__out_(\w+?)__(\w+?)(__\w+)?"
        named = re.fullmatch(pattern, key)
        # The fast path stores results in the activation's format, or in bf16.
        if named is None or (named[2], named[7]) not in (("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "fp32")):
            continue
        dist, left, right, fidelity, sums, adding, output, bias, _ = named.groups()
        x = arrays[f"{dist}__A_raw"]
        x = host_bf16(x) if left == "bf16" else x
        weight = arrays[f"{dist}__B_raw"].T.contiguous()
        scheme = scheme_of(
            weight=NAMES[right],
            activation=output,
            fidelity=fidelity.lower(),
            accumulate="fp32" if sums == "dst32" else "bf16",
            packer_l1_acc=adding == "l1acc",
            in0_block_w=int(configs[f"{shape}__" + key.split("__C__")[1]]["args"]["in0_block_w"]),
        )
        fast = compute(call_of("linear", x, weight, arrays[f"{dist}__bias_raw"][0] if bias == "bias" else None), scheme)
        # Rounding to bf16, and truncating to tf32 before a bias, flip where the fast sum lies near a border.
        least_db = 57 if output == "bf16" else 67
        assert torch.equal(fast, card) if sums == "dst16" else snr_db(card, fast) > least_db, key
        met += 1
    assert met >= 5


def test_levers_win_back_what_lofi_lost():
    x, weight = random(128, 512), random(128, 512, seed=1) / 512**0.5
    exact = x.double() @ weight.double().T

    def result(*levers, weights="bf16"):
        return compute(call_of("linear", x, weight), scheme_of(weight=weights, levers=levers))

    assert snr_db(exact, result()) == pytest.approx(31.8, abs=0.5)
    assert gain(exact, result()) < 0.985
    assert snr_db(exact, result("fidelity_rounding")) > 36.5
    assert snr_db(exact, result("gain_folding")) > 36.5
    assert gain(exact, result("gain_folding")) == pytest.approx(1, abs=2e-3)
    assert snr_db(exact, result("fidelity_rounding", weights="bfp8_b")) > snr_db(exact, result(weights="bfp8_b")) + 3


def conv_calls():
    one = ConvOptions((2,), (3,), (2,), groups=2)
    up = ConvOptions((4,), (2,), (1,), groups=2, output_padding=(1,))
    plane = ConvOptions((2, 1), (1, 2), (1, 2))
    return [
        call_of("linear", random(2, 5, 48), random(24, 48, seed=1), random(24, seed=2)),
        call_of("conv1d", random(2, 40, 30), random(32, 20, 5, seed=1), random(32, seed=2), one),
        call_of("conv_transpose1d", random(2, 40, 9), random(40, 12, 7, seed=1), random(24, seed=2), up),
        call_of("conv2d", random(2, 6, 9, 11), random(8, 6, 3, 3, seed=1), random(8, seed=2), plane),
        call_of("matmul", random(2, 3, 7, 40), random(2, 3, 40, 9, seed=1)),
    ]


@pytest.mark.parametrize("call", conv_calls(), ids=lambda call: call.op)
@pytest.mark.parametrize("accumulate", ["fp32", "bf16"])
def test_every_op_comes_near_its_exact_result(call, accumulate):
    exact = call.compute()
    for weight, fidelity, least in (("bf16", "hifi4", 36), ("bfp8_b", "hifi3", 30), ("bf16", "lofi", 28)):
        got = compute(call, scheme_of(weight=weight, fidelity=fidelity, accumulate=accumulate))
        assert got.shape == exact.shape
        assert snr_db(exact, got) > least
        assert torch.equal(got, got.to(torch.bfloat16).float())


@pytest.mark.parametrize("call", conv_calls(), ids=lambda call: call.op)
def test_fidelities_rank(call):
    exact = call.compute()
    errors = [snr_db(exact, compute(call, scheme_of(activation="fp32", fidelity=f))) for f in FIDELITIES]
    assert errors[0] < errors[1] < errors[2] + 0.5


def test_whole_operands_make_cheap_fidelities_exact():
    x, weight = random(16, 64), random(32, 64, seed=1)
    for fields in (
        {"weight": "bfp4_b", "activation": "bfp8_b"},
        {"levers": ("fidelity_rounding",), "activation": "bfp8_b"},
    ):
        call = call_of("linear", x, weight)
        prepared = TENSIX.prepare(call, scheme_of(**fields))
        stored = store_weight(weight, "linear", 1, scheme_of(**fields))
        assert torch.equal(prepared.weight, stored)
        wide = scheme_of(**{**fields, "fidelity": "hifi4", "levers": ()})
        assert torch.equal(read_activation(x, scheme_of(**fields), -1), read_activation(x, wide, -1))


def test_transposed_convolutions_share_exponents_along_their_outputs():
    weight = torch.ones(32, 32, 3)
    weight[8:24, 16:] = 2.0**-9
    assert torch.equal(store_weight(weight, "conv_transpose1d", 1, scheme_of(weight="bfp8_b")), weight)
    assert (
        store_weight(weight, "conv_transpose1d", 1, scheme_of(weight="bfp8_b", fidelity="hifi4")).shape == weight.shape
    )
    weight[:, 5] = 2.0**-9
    assert store_weight(weight, "conv_transpose1d", 1, scheme_of(weight="bfp8_b"))[0, 5].eq(0).all()


def test_the_bias_of_a_convolution_is_stored_as_its_weights():
    bias = random(16)
    assert torch.equal(store_bias(bias, "linear", scheme_of(weight="bfp8_b")), bias.to(torch.bfloat16).float())
    assert torch.unique(store_bias(bias, "conv1d", scheme_of(weight="bfp4_b")).abs()).numel() <= 8


def test_a_weight_that_is_not_finite_is_refused_by_name():
    with pytest.raises(ValueError, match="site broken: the weight has Inf or NaN"):
        TENSIX.prepare(call_of("linear", random(1, 4), torch.full((2, 4), torch.nan), site="broken"), scheme_of())


def test_operands_are_left_as_they_were():
    x, weight, bias = random(3, 32), random(8, 32, seed=1), random(8, seed=2)
    before = [t.clone() for t in (x, weight, bias)]
    for fidelity in FIDELITIES:
        for activation in ("bf16", "bfp8_b", "fp32"):
            compute(call_of("linear", x, weight, bias), scheme_of(fidelity=fidelity, activation=activation))
    assert all(torch.equal(a, b) for a, b in zip((x, weight, bias), before, strict=True))


@pytest.mark.parametrize("call", [call for call in conv_calls() if call.bias is not None], ids=lambda call: call.op)
def test_a_bias_apart_keeps_the_bits_that_the_fused_one_cuts(call):
    exact = call.compute()
    fused = scheme_of(weight="fp32", activation="fp32", fidelity="hifi4")
    apart = replace(fused, bias_apart=True)
    assert snr_db(exact, compute(call, apart)) > snr_db(exact, compute(call, fused)) + 2
    without = replace(call, bias=None)
    assert torch.equal(compute(call, apart), compute(without, apart) + call.bias.view(bias_shape(call)))
