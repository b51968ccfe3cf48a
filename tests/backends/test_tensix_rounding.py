from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tenstorrent.levers import fold_gain, round_bfp8_for_lofi, round_significant, truncation_gain
from backends.tenstorrent.rounding import (
    WeightBlocks,
    clear_low_bits,
    host_bf16,
    host_blocks,
    pack_blocks,
    pack_float,
)
from precision.blocks import BLOCK_FORMATS, round_blocks

VECTORS = Path(__file__).parents[3] / "shared" / "numerics"
PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)
BFP = ("bfp8_b", "bfp4_b")


def vectors(name: str) -> dict[str, np.ndarray]:
    path = VECTORS / name
    if not path.is_file():
        pytest.skip(f"no golden vectors: {name} does not lie in ../shared/numerics")
    with np.load(path) as archive:
        return dict(archive)


def as_float(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32).copy())


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    nan = a.isnan() & b.isnan()
    return bool(((a.view(torch.int32) == b.view(torch.int32)) | nan).all())


def test_packing_to_bf16_is_the_cards():
    golden = vectors("packer.npz")
    values = as_float(golden["in"])
    ordinary = ~values.isnan() & ~((values.abs() < 2.0**-125) & (values.abs() > 2.0**-127))
    want = as_float(golden["dst32__bf16"].astype(np.uint32) << 16)
    assert same_bits(pack_float(values, 7)[ordinary], want[ordinary])


@pytest.mark.parametrize("fmt", BFP)
def test_packing_to_blocks_is_the_cards(fmt):
    golden = vectors("packer.npz")
    values = as_float(golden["in"])
    largest = (values if fmt == "bfp8_b" else pack_float(values, 6)).view(-1, 16).abs().amax(1, keepdim=True)
    ordinary = ((largest > 2.0**-120) & largest.isfinite()).expand(-1, 16).reshape(values.shape)
    want = as_float(golden["dst32__bfp8_precise_regs" if fmt == "bfp8_b" else "dst32__bfp4_regs"])
    assert torch.equal(pack_blocks(values, fmt, -1)[ordinary], want[ordinary])
    swapped = pack_blocks(values.transpose(1, 2).contiguous(), fmt, 1).transpose(1, 2)
    assert torch.equal(swapped[ordinary], want[ordinary])


@pytest.mark.parametrize("fmt", BFP)
def test_storing_blocks_is_the_hosts(fmt):
    golden = vectors("host.npz")
    values = as_float(golden["in"])
    columns = values.reshape(-1, 32).T.contiguous()
    got = host_blocks(columns, fmt, WeightBlocks(32, 1)).T.reshape(values.shape).contiguous()
    assert same_bits(got, as_float(golden[f"fp32__{fmt[:4]}_value"]))


def test_storing_bf16_is_the_hosts():
    golden = vectors("host.npz")
    assert same_bits(host_bf16(as_float(golden["in"])), as_float(golden["fp32__bf16"].astype(np.uint32) << 16))


def test_halves_go_away_from_zero_and_specials_never_turn_to_zero():
    values = torch.tensor([1 + 2.0**-8, -1 - 2.0**-8, 3.4e38, torch.nan, -torch.inf, 1e-40, 0.0])
    assert pack_float(values, 7).tolist() == [1 + 2.0**-7, -1 - 2.0**-7, torch.inf, torch.inf, -torch.inf, 0.0, 0.0]
    all_ones = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)
    assert pack_float(all_ones, 7).isinf().all()
    assert not pack_blocks(all_ones.expand(16, 2).contiguous(), "bfp8_b", 0).isfinite().any()


@pytest.mark.parametrize("fmt", BFP)
@pytest.mark.parametrize("channels", [5, 16, 40])
def test_stored_weights_are_the_definitions(fmt, channels):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(channels, 7)) * 2.0 ** rng.integers(-9, 9, (channels, 7))).astype(np.float32)
    want = round_blocks(weight, BLOCK_FORMATS[fmt], axis=0)
    got = host_blocks(torch.from_numpy(weight), fmt, WeightBlocks(channels, 1))
    assert np.array_equal(got.numpy(), want)


def test_groups_do_not_share_an_exponent():
    weight = torch.ones(24, 1)
    weight[12:] = 2.0**-9  # one block of 16 would lose these
    stored = host_blocks(weight, "bfp8_b", WeightBlocks(24, 2))
    assert torch.equal(stored, weight)
    assert stored[12:15].eq(host_blocks(weight, "bfp8_b", WeightBlocks(24, 1))[12:15]).sum() == 0


@pytest.mark.parametrize("fmt", BFP)
@pytest.mark.parametrize("length", [3, 16, 37])
def test_short_blocks_act_as_filled_up_with_zeros(fmt, length):
    values = torch.randn(2, length, 5, generator=torch.Generator().manual_seed(length))
    filled = torch.cat([values, torch.zeros(2, 48 - length, 5)], 1)
    assert torch.equal(pack_blocks(values, fmt, 1), pack_blocks(filled, fmt, 1)[:, :length])


@PROPERTY
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 22))
def test_truncation_moves_towards_zero_by_less_than_a_step(value, bits):
    given_value = torch.tensor([value], dtype=torch.float32)
    cut = clear_low_bits(given_value, bits)
    assert cut.abs() <= given_value.abs()
    assert torch.equal(clear_low_bits(cut, bits), cut)
    if abs(value) >= 2.0**-126:
        # Significant bits counted by frexp, independently of the mask.
        _, exponent = np.frexp(np.float64(cut.item()))
        units = np.ldexp(np.float64(cut.item()), 24 - bits - int(exponent))
        assert units == np.rint(units)
        lost = np.float64(given_value.item()) - np.float64(cut.item())
        assert abs(lost) < np.ldexp(1.0, int(exponent) - 24 + bits)


@PROPERTY
@given(st.floats(2.0**-100, 2.0**100, width=32), st.integers(2, 20))
def test_rounding_to_significant_bits_is_nearest(value, bits):
    rounded = round_significant(torch.tensor([value], dtype=torch.float32), bits).double().item()
    _, exponent = np.frexp(np.float64(np.float32(value)))
    step = np.ldexp(1.0, int(exponent) - bits)
    assert rounded == np.rint(np.float64(np.float32(value)) / step) * step


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 33]))
def test_bfp8_for_lofi_stays_on_both_grids(seed, channels):
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy((rng.normal(size=(channels, 6)) * np.exp2(rng.normal(size=(channels, 6)))).astype("f4"))
    blocks = WeightBlocks(channels, 1)
    rounded = round_bfp8_for_lofi(weight, blocks)
    assert torch.equal(clear_low_bits(rounded, 19), rounded)
    assert torch.equal(host_blocks(rounded, "bfp8_b", blocks), rounded)
    naive = clear_low_bits(host_blocks(weight, "bfp8_b", blocks), 19)
    assert (rounded - weight).square().sum() <= (naive - weight).square().sum()


def test_folded_gain_is_given_back_channel_by_channel():
    weight = torch.randn(24, 300, generator=torch.Generator().manual_seed(1))
    weight[5] = 0
    blocks = WeightBlocks(24, 1)

    def read(values: torch.Tensor) -> torch.Tensor:
        return clear_low_bits(host_blocks(values, "bfp8_b", blocks), 19)

    def gains(values: torch.Tensor) -> torch.Tensor:
        seen = read(values)
        return (weight * seen).sum(1) / seen.square().sum(1).clamp_min(1e-9)

    live = torch.arange(24) != 5
    assert (gains(weight)[live] > 1.01).all()
    assert torch.allclose(gains(fold_gain(weight, read, 1.0))[live], torch.ones(23), atol=3e-3)
    assert fold_gain(weight, read, 1.0)[5].eq(0).all()


def test_gain_of_a_cut_activation_agrees_with_a_measurement():
    values = torch.exp2(torch.rand(200_000, generator=torch.Generator().manual_seed(2)))
    stored = pack_float(values, 7)
    cut = clear_low_bits(stored, 17)
    measured = float((stored * cut).double().sum() / cut.square().double().sum())
    assert truncation_gain(8, 7) == pytest.approx(measured, abs=1e-4)
