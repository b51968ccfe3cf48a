from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.tenstorrent.exact import arithmetic
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import FIDELITIES, Scheme
from voice.site_call import ConvOptions, SiteCall

GOLDEN = Path(__file__).parents[2] / "golden" / "tensix" / "ops"
CHIPS = {"wh": "wormhole_b0", "bh": "blackhole"}
NAMES = {"bf16": "bf16", "bfp8": "bfp8_b", "bfp4": "bfp4_b", "fp32": "fp32"}
BLACKHOLE = ExactTensix("blackhole")


def call_of(op, x, weight, bias=None, options=None):
    return SiteCall("site", op, x, weight, bias, options, is_product=op == "matmul", index=0)


def compute(call, scheme, target=BLACKHOLE):
    return target.compute(call, scheme, target.prepare(call, scheme), None)


def scheme_of(**fields):
    return Scheme("s", **{"weight": "bf16", "activation": "bf16", "fidelity": "hifi4", **fields})


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def snr_db(exact, got):
    return float(10 * torch.log10(exact.double().square().sum() / (exact.double() - got.double()).square().sum()))


def bits(values):
    return values.contiguous().view(torch.int32)


def calls():
    one = ConvOptions((2,), (3,), (2,), groups=2)
    up = ConvOptions((4,), (2,), (1,), groups=2, output_padding=(1,))
    plane = ConvOptions((2, 1), (1, 2), (1, 2))
    return [
        call_of("linear", random(2, 5, 48), random(24, 48, seed=1), random(24, seed=2)),
        call_of("conv1d", random(2, 40, 30), random(32, 20, 5, seed=1), random(32, seed=2), one),
        call_of("conv_transpose1d", random(2, 40, 9), random(40, 12, 7, seed=1), random(24, seed=2), up),
        call_of("conv2d", random(2, 6, 9, 11), random(8, 6, 3, 3, seed=1), random(8, seed=2), plane),
        call_of("matmul", random(2, 3, 7, 40), random(2, 3, 40, 9, seed=1)),
        call_of("matmul", random(3, 7, 40), random(2, 1, 40, 9, seed=1)),
    ]


def op_of(call):
    return call.op


@pytest.mark.parametrize("call", calls(), ids=op_of)
def test_every_op_meets_the_fast_path(call):
    for weight, activation in (("bf16", "bf16"), ("bfp8_b", "bfp8_b"), ("fp32", "fp32"), ("bfp4_b", "fp32")):
        for fidelity in FIDELITIES:
            scheme = scheme_of(weight=weight, activation=activation, fidelity=fidelity)
            exact, fast = compute(call, scheme), compute(call, scheme, TensixArithmetic())
            assert exact.shape == call.compute().shape
            assert exact.dtype == torch.float32
            # A result, or a convolution's sum before its bias, now and then falls on the other side of a bf16 rounding.
            assert snr_db(exact, fast) > 55
        sums = replace(call, bias=None)
        scheme = scheme_of(weight=weight, activation="fp32", fidelity="hifi2")
        assert snr_db(compute(sums, scheme), compute(sums, scheme, TensixArithmetic())) > 62


@pytest.mark.parametrize("call", calls(), ids=op_of)
def test_bf16_sums_meet_the_fast_path(call):
    for fidelity, activation in product(("lofi", "hifi4"), ("bf16", "fp32")):
        scheme = scheme_of(fidelity=fidelity, activation=activation, accumulate="bf16")
        assert snr_db(compute(call, scheme), compute(call, scheme, TensixArithmetic())) > 45


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", ["conv1d", "conv1dh"])
def test_recorded_convolutions_come_out_to_the_bit(kind, chip):
    with np.load(GOLDEN / f"{kind}_{chip}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    x = arrays["x_raw"].mT.to(torch.bfloat16).float()
    checked = 0
    for key, card in arrays.items():
        if not key.startswith("y__"):
            continue
        _, stored, dilation, fidelity, dst, acc, bias = key.replace("w_", "", 1).split("__")
        dilation = int(dilation.removeprefix("dil"))
        call = call_of(
            "conv1d",
            x,
            arrays["w_raw"],
            arrays["bias_raw"].flatten() if bias == "bias" else None,
            ConvOptions((1,), (3 * dilation,), (dilation,)),
        )
        scheme = scheme_of(
            weight=NAMES[stored],
            fidelity=fidelity.lower(),
            accumulate="fp32" if dst == "dst32" else "bf16",
            packer_l1_acc=acc == "l1acc",
            in0_block_w=2 if kind == "conv1d" else None,
        )
        assert torch.equal(bits(compute(call, scheme, ExactTensix(CHIPS[chip]))[0].T), bits(card)), key
        checked += 1
    assert checked == (20 if kind == "conv1d" else 12)


@pytest.mark.parametrize("chip", CHIPS)
def test_recorded_linear_layers_come_out_to_the_bit(chip):
    with np.load(GOLDEN / f"matmul_32x256x32_{chip}.npz") as file:
        arrays = {key.removeprefix("normal__"): torch.from_numpy(file[key]) for key in file.files}
    checked = 0
    for key, card in arrays.items():
        parts = key.split("__")
        if parts[0] != "C":
            continue
        left, right = parts[1].split("_")
        # A site's result is fp32 with fp32 activations, else bf16; packing bf16 inputs again leaves them as they are.
        wanted = {"bf16": "out_bf16", "fp32": "out_fp32"}.get(left)
        if parts[5] != wanted:
            continue
        x = arrays["A_raw"] if left == "fp32" else arrays["A_raw"].to(torch.bfloat16).float()
        scheme = scheme_of(
            weight=NAMES[right],
            activation=NAMES[left],
            fidelity=parts[2].lower(),
            accumulate="fp32" if parts[3] == "dst32" else "bf16",
            packer_l1_acc=parts[4] == "l1acc",
            in0_block_w=int(parts[7][1:]) if len(parts) > 7 else 1,
        )
        bias = arrays["bias_raw"].flatten() if parts[6] == "bias" else None
        got = compute(call_of("linear", x, arrays["B_raw"].T.contiguous(), bias), scheme, ExactTensix(CHIPS[chip]))
        assert torch.equal(bits(got), bits(card)), key
        checked += 1
    assert checked > 20


@pytest.mark.parametrize("call", calls()[1:4], ids=op_of)
@pytest.mark.parametrize("width", [None, 2])
def test_a_long_convolution_is_unfolded_in_stretches_and_comes_out_the_same(call, width, monkeypatch):
    if call.op in ("conv_transpose1d", "conv2d") and width:
        width = 3
    scheme = scheme_of(weight="bfp8_b", activation="bfp8_b", in0_block_w=width)
    whole = compute(call, scheme)
    monkeypatch.setattr(arithmetic, "_UNFOLDED", 1)
    assert torch.equal(bits(compute(call, scheme)), bits(whole))


def test_blocks_of_activations_lie_along_channels():
    x = torch.full((1, 32, 4), 2.0**-9)
    x[:, 16:] = 1
    weight = torch.zeros(1, 32, 2)
    weight[:, :16] = 1
    options = ConvOptions((1,), (0,), (1,))
    scheme = scheme_of(activation="bfp8_b")
    assert torch.equal(compute(call_of("conv1d", x, weight, None, options), scheme), torch.full((1, 1, 3), 2.0**-4))
    x[:, 15] = 1  # now the block of 16 shares an exponent that leaves nothing of the others
    assert torch.equal(compute(call_of("conv1d", x, weight, None, options), scheme), torch.full((1, 1, 3), 2.0))


def test_a_product_packs_its_right_operand_along_its_last_axis():
    right = torch.full((1, 32, 32), 2.0**-9)
    right[:, 0, 0] = 1
    got = compute(call_of("matmul", torch.ones(1, 1, 32), right), scheme_of(activation="bfp8_b"))
    assert got[0, 0, 0] == 1.0625  # the nearest bf16 to 1 + 31 / 512
    assert got[0, 0, 1:16].eq(31 * 2.0**-9).all()
    assert got[0, 0, 16:].eq(2.0**-4).all()


def test_blocks_of_k_change_what_the_memory_sees():
    long = call_of("linear", random(8, 512), random(16, 512, seed=1))
    for fields in ({"packer_l1_acc": True}, {"packer_l1_acc": True, "accumulate": "bf16"}):
        whole = compute(long, scheme_of(activation="fp32", **fields))
        assert not torch.equal(compute(long, scheme_of(activation="fp32", in0_block_w=1, **fields)), whole)
    plain = scheme_of(activation="fp32")
    assert torch.equal(compute(long, plain), compute(long, replace(plain, in0_block_w=3)))


def test_a_block_that_holds_no_channels_is_refused():
    call = calls()[1]
    with pytest.raises(ValueError, match="give in0_block_w 2 or more, or None"):
        compute(call, scheme_of(in0_block_w=1))
    with pytest.raises(ValueError, match="give 1 tile of K or more"):
        compute(call, scheme_of(in0_block_w=0))


@pytest.mark.parametrize("target", [BLACKHOLE, TensixArithmetic()], ids=["exact", "fast"])
def test_a_convolution_of_one_tap_is_a_matrix_product(target):
    x, weight, bias = random(1, 40, 64), random(24, 40, 1, seed=1), random(24, seed=2)
    scheme = scheme_of(weight="bf16", activation="bf16")
    options = ConvOptions((1,), (0,), (1,))
    linear = call_of("linear", x.mT, weight[:, :, 0], bias)
    convolution = call_of("conv1d", x, weight, bias, options)
    assert torch.equal(compute(convolution, scheme, target).mT, compute(linear, scheme, target))
    skipping = replace(convolution, options=replace(options, stride=(2,)))
    assert not torch.equal(compute(skipping, scheme, target).mT, compute(linear, scheme, target)[:, ::2])


def test_special_values_come_out_as_the_card_makes_them():
    weight = torch.zeros(2, 32)
    weight[:, 0] = torch.tensor([1.0, 2.0**-10])
    x = torch.zeros(4, 32)
    x[:, 0] = torch.tensor([torch.nan, -torch.inf, 3e38, 1e-40])
    got = compute(call_of("linear", x, weight), scheme_of(activation="bf16"))
    inf = torch.inf
    assert got[:, 0].tolist() == [inf, -inf, float(torch.tensor(3e38).bfloat16()), 0]
    # Inf is the number 2**128, and a NaN is packed as Inf.
    assert got[:2, 1].tolist() == [2.0**118, -(2.0**118)]


def test_wormhole_has_its_defect_and_blackhole_has_not():
    with np.load(GOLDEN.parent / "matmul_32x256x32.npz") as file:
        a, b = (torch.from_numpy(file[f"neg1__{name}_raw"]) for name in "AB")
        cards = {chip: torch.from_numpy(file[f"neg1__C__tf32_tf32__HiFi4__dst32__{chip}"]) for chip in CHIPS}
    call = call_of("linear", a, b.T.contiguous())
    for chip, card in cards.items():
        got = compute(call, scheme_of(weight="fp32", activation="fp32"), ExactTensix(CHIPS[chip]))
        assert torch.equal(bits(got), bits(card))
    assert not torch.equal(cards["wh"], cards["bh"])


def test_operands_are_left_as_they_were_and_the_weight_is_checked():
    for call in calls():
        before = [t.clone() for t in (call.x, call.weight)]
        for activation in ("bf16", "bfp8_b", "fp32"):
            compute(call, scheme_of(activation=activation, weight="fp32", accumulate="bf16"))
        assert torch.equal(call.x, before[0])
        assert torch.equal(call.weight, before[1])
    with pytest.raises(ValueError, match="site site: the weight has Inf or NaN"):
        BLACKHOLE.prepare(call_of("linear", random(1, 4), torch.full((2, 4), torch.nan)), scheme_of())


def test_its_name_says_that_it_is_exact():
    assert [ExactTensix(chip).name for chip in CHIPS.values()] == ["tensix_exact_wormhole_b0", "tensix_exact_blackhole"]
