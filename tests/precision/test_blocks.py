"""Shared-exponent formats against the vendor's packer, their readable definition and the MX specification."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.blocks import (
    BLOCK_FORMATS,
    BlockFormat,
    format_named,
    known_formats,
    round_block,
    round_blocks,
    stored_bits,
)
from precision.formats import FORMATS

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "host_packer.npz"
FULL = Path(__file__).parents[3] / "shared" / "numerics" / "host.npz"
ALL = pytest.mark.parametrize("fmt", BLOCK_FORMATS.values(), ids=BLOCK_FORMATS)
BFP = pytest.mark.parametrize("name", ["bfp8_b", "bfp4_b", "bfp2_b"])
PACKED = pytest.mark.parametrize("name", ["bfp8_b", "bfp4_b"])
PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)
blocks = st.lists(st.floats(width=32), min_size=1, max_size=16).map(lambda values: np.array(values, np.float32))


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit patterns; NaN equals NaN of any payload."""
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    both_nan = np.isnan(found) & np.isnan(expected)
    assert np.array_equal(found.view(np.uint32)[~both_nan], expected.view(np.uint32)[~both_nan])


def unpack_tiles(tiles: np.ndarray, width: int) -> np.ndarray:
    """Tile bytes [tiles, bytes] -> values [tiles, 32, 32]: 64 exponents, then codes, in four 16x16 faces."""
    exponents, packed = tiles[:, :64].astype(np.int64), tiles[:, 64:]
    codes = packed if width == 7 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(tiles), 1024)
    codes = codes.reshape(-1, 64, 16).astype(np.int64)
    magnitude, shared = codes & (2**width - 1), exponents[:, :, None]
    values = np.ldexp(magnitude.astype(np.float64), shared - 127 - (width - 1))
    top = 2 ** (width - 1)
    values = np.where((shared == 255) & (magnitude >= top), np.where(magnitude == top, np.inf, np.nan), values)
    faces = np.where(codes >> width == 1, -values, values).reshape(-1, 2, 2, 16, 16)
    return faces.transpose(0, 1, 3, 2, 4).reshape(-1, 32, 32).astype(np.float32)


@PACKED
def test_packs_as_the_host_does(name: str) -> None:
    with np.load(GOLDEN) as golden:
        assert_same_bits(
            round_blocks(golden["in"].view(np.float32), BLOCK_FORMATS[name], -1), golden[name].view(np.float32)
        )


@PACKED
@pytest.mark.skipif(not FULL.exists(), reason="the full set of vectors does not lie beside this checkout")
def test_packs_all_vectors_as_the_host_does(name: str) -> None:
    fmt, key = BLOCK_FORMATS[name], name.removesuffix("_b")
    assert isinstance(fmt.element, int)
    with np.load(FULL) as full:
        rounded = round_blocks(full["in"].view(np.float32), fmt, 2)
        assert_same_bits(rounded, full[f"fp32__{key}_value"].view(np.float32))
        assert_same_bits(rounded, unpack_tiles(full[f"fp32__{key}_bytes"], fmt.element))
        narrow = (full["bf16src_in"].astype(np.uint32) << np.uint32(16)).view(np.float32)
        assert_same_bits(round_blocks(narrow, fmt, 2), unpack_tiles(full[f"bf16src__{key}_bytes"], fmt.element))


@ALL
def test_array_path_equals_the_definition(fmt: BlockFormat) -> None:
    rng = np.random.default_rng(0)
    rows = [
        rng.normal(size=(40, fmt.block_size)),
        rng.normal(size=(40, fmt.block_size)) * 10.0 ** rng.uniform(-4, 4, (40, fmt.block_size)),
        rng.integers(-9, 10, (20, fmt.block_size)) / 8,
        (rng.integers(0, 2**32, (40, fmt.block_size), dtype=np.uint32) & np.uint32(0xBFFFFFFF)).view(np.float32),
        rng.integers(0, 2**24, (10, fmt.block_size), dtype=np.uint32).view(np.float32),
    ]
    values = np.concatenate(rows).astype(np.float32)
    values[0, 3], values[1, :2], values[2] = np.inf, (np.nan, -1.0), 0.0
    for given_values in (values, values.astype(np.float64) * (1 + 2.0**-30)):
        rounded = round_blocks(given_values, fmt, 1)
        for row, found in zip(given_values, rounded, strict=True):
            assert np.array_equal(found, round_block(row, fmt), equal_nan=True)
            assert np.array_equal(np.signbit(found), np.signbit(round_block(row, fmt)))


@PROPERTY
@given(blocks, st.sampled_from(list(BLOCK_FORMATS.values())))
def test_one_block_of_anything(values: np.ndarray, fmt: BlockFormat) -> None:
    rounded = round_blocks(values, fmt, 0)
    assert np.array_equal(rounded, round_block(values, fmt), equal_nan=True)
    if np.isfinite(values).all():
        assert np.isfinite(rounded).all()
        assert np.array_equal(round_blocks(rounded, fmt, 0), rounded)
        assert np.array_equal(round_blocks(-values, fmt, 0), -rounded)


@PROPERTY
@given(st.integers(-100, 100), st.sampled_from(["bfp8_b", "bfp4_b", "bfp2_b"]))
def test_bfp_saturates_just_below_a_power_of_two(power: int, name: str) -> None:
    """The shared exponent is never raised, so the value cannot round up to the power."""
    fmt = BLOCK_FORMATS[name]
    assert isinstance(fmt.element, int)
    value = np.nextafter(np.float32(2.0**power), np.float32(0))
    largest = (2**fmt.element - 1) / 2 ** (fmt.element - 1) * 2.0 ** (power - 1)
    assert round_blocks([value], fmt, 0) == largest


@BFP
def test_bfp_truncates_before_it_rounds(name: str) -> None:
    """A bit lost in the alignment cannot break a tie."""
    fmt = BLOCK_FORMATS[name]
    assert isinstance(fmt.element, int)
    step = 2.0 ** (1 - fmt.element)
    # Half a step and a bit: the bit lies below the 24 bits kept when 1.0 sets the exponent, and above them for 2**-23.
    lost = np.array([1.0, step / 2 + 2.0**-24], np.float32)
    seen = np.array([1.0, step / 2 + 2.0**-23], np.float32)
    assert round_blocks(lost, fmt, 0).tolist() == [1.0, 0.0]
    assert round_blocks(seen, fmt, 0).tolist() == [1.0, step]


@BFP
def test_bfp_zero_subnormals_and_signs(name: str) -> None:
    fmt = BLOCK_FORMATS[name]
    rounded = round_blocks(np.array([-0.0, 1e-40, -1e-40, -1e-30, 1.0], np.float32), fmt, 0)
    assert rounded.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert not np.signbit(rounded).any()


@BFP
def test_bfp_infinity_takes_the_block(name: str) -> None:
    rounded = round_blocks(np.array([-np.inf, 1e30, 1.0], np.float32), BLOCK_FORMATS[name], 0)
    assert rounded.tolist() == [-np.inf, 0.0, 0.0]


@pytest.mark.parametrize(("name", "kind"), [("mxfp8_e4m3", "float8_e4m3fn"), ("mxfp8_e5m2", "float8_e5m2")])
def test_mx_is_an_fp8_cast_under_a_power_of_two(name: str, kind: str) -> None:
    fmt, dtype = BLOCK_FORMATS[name], getattr(ml_dtypes, kind)
    assert not isinstance(fmt.element, int)
    rng = np.random.default_rng(1)
    values = (rng.normal(size=(50, 32)) * 2.0 ** rng.integers(-30, 30, (50, 1))).astype(np.float32)
    amax_exponent = (np.abs(values).max(axis=1, keepdims=True).view(np.uint32) >> np.uint32(23)).astype(int) - 127
    scale = np.exp2(amax_exponent - {"mxfp8_e4m3": 8, "mxfp8_e5m2": 15}[name]).astype(np.float32)
    limit = np.float32(fmt.element.max_value)
    expected = np.clip(values / scale, -limit, limit).astype(dtype).astype(np.float32) * scale
    assert_same_bits(round_blocks(values, fmt, 1), expected)


def test_mx_scale_is_the_floor() -> None:
    """Amax from 448 up to 512 saturates: the scale rule does not ask whether the element can hold it."""
    fmt = BLOCK_FORMATS["mxfp8_e4m3"]
    assert round_blocks([511.0, 1.0], fmt, 0).tolist() == [448.0, 1.0]
    assert round_blocks([512.0, 1.0], fmt, 0).tolist() == [512.0, 1.0]
    assert round_blocks([np.nextafter(8.0, 0.0)], fmt, 0).tolist() == [7.0]


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_mx_block_with_a_special_is_nan_and_the_next_is_not(name: str, bad: float) -> None:
    values = np.ones(64)
    values[5] = bad
    rounded = round_blocks(values, BLOCK_FORMATS[name], 0)
    assert np.isnan(rounded[:32]).all()
    assert np.array_equal(rounded[32:], values[32:])


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2"])
def test_mx_ends_of_the_scale(name: str) -> None:
    fmt = BLOCK_FORMATS[name]
    assert not isinstance(fmt.element, int)
    assert round_blocks(np.array([-0.0, 0.0], np.float32), fmt, 0).view(np.uint32).tolist() == [0x80000000, 0]
    smallest = 2.0**-127 * fmt.element.min_positive
    assert round_blocks([smallest, 0.4 * smallest], fmt, 0).tolist() == [smallest, 0.0]
    assert round_blocks([1e300], fmt, 0).tolist() == [fmt.element.max_value * 2.0**127]


@ALL
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_block_axis_and_short_last_block(fmt: BlockFormat, axis: int) -> None:
    values = np.random.default_rng(2).normal(size=(37, 50, 35)).astype(np.float32)
    kept = values.copy()
    rounded = round_blocks(values, fmt, axis)
    assert rounded.shape == values.shape
    assert rounded.dtype == np.float32
    assert rounded.flags.c_contiguous
    assert np.array_equal(values, kept)
    line = np.moveaxis(values, axis, -1)[1, 2]
    expected = [
        x for at in range(0, line.size, fmt.block_size) for x in round_block(line[at : at + fmt.block_size], fmt)
    ]
    assert np.moveaxis(rounded, axis, -1)[1, 2].tolist() == expected


@ALL
def test_block_axis_matters(fmt: BlockFormat) -> None:
    values = np.outer(2.0 ** np.arange(-16, 16), np.full(32, 1.171875)).astype(np.float32)
    along, across = round_blocks(values, fmt, 1), round_blocks(values, fmt, 0)
    assert not np.array_equal(along, across)
    assert np.array_equal(round_blocks(values.T, fmt, 0), along.T)


@ALL
def test_types_and_empty_arrays(fmt: BlockFormat) -> None:
    assert round_blocks(np.ones(3, np.float16), fmt, 0).dtype == np.float32
    assert round_blocks([1, 2], fmt, 0).dtype == np.float64
    assert round_blocks(np.zeros((3, 0), np.float32), fmt, 1).shape == (3, 0)
    assert round_blocks(np.zeros((0, 5), np.float32), fmt, 1).shape == (0, 5)


@ALL
def test_bad_axes_and_blocks_are_refused(fmt: BlockFormat) -> None:
    with pytest.raises(ValueError, match="single number"):
        round_blocks(1.0, fmt, 0)
    with pytest.raises(ValueError, match="axis"):
        round_blocks(np.ones((2, 2)), fmt, 2)
    with pytest.raises(ValueError, match="1 to"):
        round_block([], fmt)
    with pytest.raises(ValueError, match="1 to"):
        round_block(np.ones(fmt.block_size + 1), fmt)


def test_rules_must_be_those_of_the_element() -> None:
    with pytest.raises(ValueError, match="bare magnitude"):
        BlockFormat("odd", 7, 16, "floor_minus_element_max")
    with pytest.raises(ValueError, match="block_size"):
        BlockFormat("odd", FORMATS["fp8_e4m3"], 0, "floor_minus_element_max")


def test_names_and_stored_bits() -> None:
    assert known_formats() == (*FORMATS, *BLOCK_FORMATS)
    assert {name: stored_bits(name) for name in known_formats()} == {
        "fp32": 32.0,
        "tf32": 32.0,
        "bf16": 16.0,
        "fp16": 16.0,
        "fp8_e4m3": 8.0,
        "fp8_e5m2": 8.0,
        "int8": 8.0,
        "bfp8_b": 8.5,
        "bfp4_b": 4.5,
        "bfp2_b": 2.5,
        "mxfp8_e4m3": 8.25,
        "mxfp8_e5m2": 8.25,
    }
    assert all(format_named(name).name == name for name in known_formats())


@pytest.mark.parametrize(("wrong", "nearest"), [("bfp8", "bfp8_b"), ("fp8_e4m3fn", "fp8_e4m3"), ("bfloat16", "bf16")])
def test_unknown_name_says_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"nearest is '{nearest}'"):
        stored_bits(wrong)
