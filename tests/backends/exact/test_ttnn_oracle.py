"""Our host packer, its readable and its fast forms, against the vendor's: values, codes and bytes of the ttnn wheel."""

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backends.tenstorrent.exact.host import host_decode, host_pack, host_pack_bf16, host_round
from backends.tenstorrent.exact.tiles import bytes_to_floats, bytes_to_tiles, floats_to_bytes, tiles_to_bytes
from backends.tenstorrent.rounding import WeightBlocks, host_bf16, host_blocks
from backends.tenstorrent.storage import store_weight
from precision.blocks import BLOCK_FORMATS, round_blocks
from precision.policy import Scheme

pytestmark = pytest.mark.tenstorrent

BFP = ("bfp8_b", "bfp4_b")
SPECIAL = [
    0x00000000, 0x80000000,  # zeros
    0x00000001, 0x807FFFFF, 0x00400000,  # denormals
    0x00800000, 0x80FFFFFF, 0x01000000,  # the smallest normal numbers
    0x3F800000, 0x3FFFFFFF, 0xBF7F8000, 0x3F808000, 0x3F818000, 0x40C10000, 0x3FE80000,  # about 1: carries and ties
    0x7F7FFFFF, 0xFF7F8000,  # the largest
    0x7F800000, 0xFF800000,  # infinities
    0x7FC00000, 0xFFC00001, 0x7F800001, 0xFFBFFFFF, 0x7FFFFFFF,  # NaN, quiet and signalling
]  # fmt: skip
# Lengths about the borders of blocks (16) and tiles (32).
LENGTHS = st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33, 48, 63, 65])
SHAPES = st.one_of(st.tuples(LENGTHS), st.tuples(LENGTHS, LENGTHS), st.tuples(st.integers(1, 3), LENGTHS, LENGTHS))


@st.composite
def patterns(draw, shapes=SHAPES, finite=False):
    """float32 bit patterns: few drawn one by one, or many from a seed with exponents that lie near each other."""
    shape = draw(shapes)
    if prod(shape) <= 48 and draw(st.booleans()):
        one = st.one_of(st.sampled_from(SPECIAL), st.integers(0, 2**32 - 1))
        bits = draw(hnp.arrays(np.uint32, shape, elements=one))
    else:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        centre, spread = draw(st.integers(0, 255)), draw(st.sampled_from([0, 1, 3, 8, 25, 255]))
        fields = np.clip(rng.integers(centre - spread, centre + spread, shape, endpoint=True), 0, 255)
        # Zeros in the middle make ties, and near ties whose lowest bits alignment shifts out; all ones carry.
        high, low = draw(st.integers(0, 22)), draw(st.integers(0, 4))
        fraction = rng.integers(0, 2**23, shape) & (-(1 << high) | ((1 << low) - 1))
        fraction |= 0x7FFFFF if draw(st.integers(0, 9)) == 0 else 0
        bits = (rng.integers(0, 2, shape) << 31 | fields << 23 | fraction).astype(np.uint32)
        rare = rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.5]))
        bits = np.where(rare, rng.choice(np.array(SPECIAL, np.uint32), shape), bits)
    return np.where(bits & 0x7F800000 == 0x7F800000, bits & 0xBFFFFFFF, bits) if finite else bits


def as_torch(bits, source="float32"):
    if source == "bfloat16":
        return torch.from_numpy((bits >> 16).astype(np.uint16).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(bits.view(np.int32)).view(torch.float32)


def as_values(bits, source="float32"):
    """The same numbers as `as_torch`."""
    return (bits & 0xFFFF0000 if source == "bfloat16" else bits).view(np.float32)


def same_bits(a, b):
    return a.shape == b.shape and np.array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


def same_numbers(a, b):
    """Bit for bit, but any NaN is like any other."""
    a, b = np.asarray(a), np.asarray(b)
    return same_bits(np.where(np.isnan(a), np.float32(0), a), np.where(np.isnan(b), np.float32(0), b)) and bool(
        (np.isnan(a) == np.isnan(b)).all()
    )


def matrices(array):
    """[count, R, C]: ttnn makes tiles of one matrix after another; a list of numbers is one row."""
    shape = (1,) * max(0, 2 - array.ndim) + array.shape
    return array.reshape(prod(shape[:-2]), *shape[-2:])


@pytest.mark.parametrize("source", ["float32", "bfloat16"])
@pytest.mark.parametrize("fmt", BFP)
@given(bits=patterns())
@settings(max_examples=100)
def test_blocks_hold_the_vendors_values(vendor, fmt, source, bits):
    got = vendor.read(vendor.store(as_torch(bits, source), fmt))
    values = as_values(bits, source)
    assert same_bits(host_round(values, fmt), got)
    assert same_numbers(round_blocks(values, BLOCK_FORMATS[fmt], axis=-1), got)
    channels = torch.from_numpy(values.view(np.int32).reshape(-1, bits.shape[-1]).T.copy()).view(torch.float32)
    ours = host_blocks(channels, fmt, WeightBlocks(len(channels), 1)).T.reshape(bits.shape)
    assert same_numbers(ours.numpy(), got)


@pytest.mark.parametrize("source", ["float32", "bfloat16"])
@given(bits=patterns())
@settings(max_examples=100)
def test_bf16_holds_the_vendors_values(vendor, source, bits):
    got = vendor.read(vendor.store(as_torch(bits, source), "bf16"))
    if source == "bfloat16":
        assert same_bits(as_values(bits, source), got)  # copied; what is no conversion keeps NaN, too
    else:
        assert same_bits(host_pack_bf16(bits.view(np.float32)), got)
        assert same_bits(host_round(bits.view(np.float32), "bf16"), got)
    assert same_numbers(host_bf16(as_torch(bits & 0xFFFF0000 if source == "bfloat16" else bits)).numpy(), got)


@pytest.mark.parametrize("source", ["float16", "float64"])
@pytest.mark.parametrize("fmt", BFP)
@given(bits=patterns())
@settings(max_examples=30)
def test_blocks_of_other_dtypes_are_rounded_to_bf16_first(vendor, fmt, source, bits):
    with np.errstate(over="ignore", invalid="ignore"):
        given = as_torch(bits).to(getattr(torch, source))
    ours = host_round(host_pack_bf16(given.to(torch.float32).numpy()), fmt)
    assert same_numbers(ours, vendor.read(vendor.store(given, fmt)))


@pytest.mark.parametrize("source", ["float32", "bfloat16"])
@pytest.mark.parametrize("fmt", BFP)
@given(bits=patterns())
@settings(max_examples=60)
def test_blocks_are_stored_as_the_vendors_bytes(vendor, fmt, source, bits):
    stored = vendor.store(as_torch(bits, source), fmt)
    tiles = vendor.tiles(stored, fmt)
    whole = matrices(as_values(bits, source))
    ours = [tiles_to_bytes(*host_pack(matrix, fmt), fmt) for matrix in whole]
    assert np.array_equal(np.concatenate(ours), tiles)
    unpacked = [host_decode(*bytes_to_tiles(part, fmt, whole.shape[1:]), fmt) for part in np.split(tiles, len(whole))]
    assert same_bits(np.stack(unpacked).reshape(bits.shape), vendor.read(stored))


@pytest.mark.parametrize("fmt", ["bf16", "fp32"])
@given(bits=patterns())
@settings(max_examples=40)
def test_floats_are_stored_as_the_vendors_bytes(vendor, fmt, bits):
    tiles = vendor.tiles(vendor.store(as_torch(bits), fmt), fmt)
    values = bits.view(np.float32)
    whole = matrices(host_pack_bf16(values) if fmt == "bf16" else values)
    assert np.array_equal(np.concatenate([floats_to_bytes(matrix, fmt) for matrix in whole]), tiles)
    read = [bytes_to_floats(part, fmt, whole.shape[1:]) for part in np.split(tiles, len(whole))]
    assert same_bits(np.stack(read), whole)


@pytest.mark.parametrize("fmt", BFP)
@given(data=st.data())
@settings(max_examples=60)
def test_any_bytes_are_read_as_the_vendor_reads_them(vendor, fmt, data):
    rows, columns = data.draw(LENGTHS), data.draw(LENGTHS)
    shape = vendor.tiles(vendor.store(torch.zeros(rows, columns), fmt), fmt).shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tiles = rng.integers(0, 256, shape, dtype=np.uint8)
    lowest, highest = data.draw(st.sampled_from([(0, 255), (0, 8), (250, 255), (127, 127)]))
    tiles[:, :64] = rng.integers(lowest, highest, (len(tiles), 64), endpoint=True)
    got = vendor.read(vendor.load(tiles, fmt, (rows, columns)))
    assert same_bits(host_decode(*bytes_to_tiles(tiles, fmt, (rows, columns)), fmt), got)


@pytest.mark.parametrize("fmt", BFP)
@given(bits=patterns(shapes=st.tuples(LENGTHS, LENGTHS), finite=True))
@settings(max_examples=60)
def test_a_linears_weight_is_stored_as_the_vendors(vendor, fmt, bits):
    """ttnn.linear takes [K, out]; col_tilize makes it [out, K], blocks along K, which linear(transpose_b=True) takes.

    The matmul kernel itself turns the tiles as it unpacks them: nothing is packed again. A convolution's never does.
    """
    columns = as_torch(bits)
    plain, turned = vendor.store(columns, fmt), vendor.store(columns, fmt, col_tilize=True)
    assert tuple(plain.shape) == bits.shape
    assert tuple(turned.shape) == bits.shape[::-1]
    assert np.array_equal(vendor.tiles(turned, fmt), vendor.tiles(vendor.store(columns.T.contiguous(), fmt), fmt))
    weight = columns.T.contiguous()
    ours = store_weight(weight, "linear", 1, Scheme("plain", weight=fmt, activation="bf16", fidelity="hifi4"))
    assert same_bits(ours.numpy(), np.ascontiguousarray(vendor.read(plain).T))
    scheme = Scheme("turned", weight=fmt, activation="bf16", fidelity="hifi4", levers=("col_tilize",))
    assert same_bits(store_weight(weight, "linear", 1, scheme).numpy(), vendor.read(turned))
