from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from backends.tenstorrent import rounding
from backends.tenstorrent.exact.definition import packing as define
from backends.tenstorrent.exact.host import host_decode, host_pack, host_pack_bf16, host_round
from backends.tenstorrent.exact.packer import l1_accumulate, pack, pack_bytes
from backends.tenstorrent.exact.threads import set_threads, threads
from backends.tenstorrent.exact.tiles import (
    BLOCK,
    bytes_to_floats,
    bytes_to_tiles,
    count_blocks,
    floats_to_bytes,
    from_faces,
    tiles_to_bytes,
    to_faces,
)
from backends.tenstorrent.exact.unpacker import unpack_bf16, unpack_bfp, unpack_tf32
from precision.blocks import BLOCK_FORMATS, round_blocks

VECTORS = Path(__file__).parents[4] / "shared" / "numerics"
BFP = ["bfp8_b", "bfp4_b"]
MODES = [(dst16, precise) for dst16 in (False, True) for precise in (False, True)]

SPECIAL = [
    0,
    1,
    0x007EFFFF,
    0x007F0000,  # rounds up to the smallest normal number at 6 bits
    0x007F8000,  # at 7 bits
    0x007FFFFF,
    0x00800000,
    0x7F7EFFFF,
    0x7F7F0000,  # carries to inf at 6 bits
    0x7F7F8000,  # at 7 bits
    0x7F7FFFFF,
    0x7F800000,
    0x7F800001,  # a NaN that truncation turns into inf
    0x7F80FFFF,
    0x7F810000,
    0x7FC00000,
    0x7FFFFFFF,
]


def _pattern(sign, field, fraction, cleared):
    return sign << 31 | field << 23 | fraction >> cleared << cleared


PATTERNS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from(SPECIAL + [0x80000000 | bits for bits in SPECIAL]),
    # Blocks of like magnitude, with ties and all but ties, at both ends of the range of exponents and in the middle.
    st.builds(
        _pattern,
        st.integers(0, 1),
        st.one_of(st.integers(120, 130), st.integers(0, 12), st.integers(240, 255)),
        st.integers(0, 2**23 - 1),
        st.sampled_from([0, 8, 13, 14, 15, 16, 17, 20, 21]),
    ),
)
BITS = arrays(np.uint32, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=37), elements=PATTERNS)
ROWS = arrays(np.uint32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=PATTERNS)


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


def assert_same(got, wanted):
    assert got.dtype == np.float32
    np.testing.assert_array_equal(bits(got), wanted)


def each(function, patterns):
    return np.array([function(int(p)) for p in patterns.reshape(-1)], np.uint32).reshape(patterns.shape)


def each_block(function, rows):
    """Shared exponents and codes of a matrix, block by block."""
    exponents = np.zeros((rows.shape[0], count_blocks(rows.shape[1])), np.uint8)
    codes = np.zeros(rows.shape, np.uint8)
    for row, block in np.ndindex(*exponents.shape):
        span = slice(BLOCK * block, BLOCK * (block + 1))
        exponents[row, block], codes[row, span] = function([int(p) for p in rows[row, span]])
    return exponents, codes


def each_code(function, exponents, codes, fmt):
    shared = np.repeat(exponents, BLOCK, axis=-1)[..., : codes.shape[-1]]
    patterns = [function(int(e), int(c), fmt) for e, c in zip(shared.reshape(-1), codes.reshape(-1), strict=True)]
    return np.array(patterns, np.uint32).reshape(codes.shape)


@pytest.mark.parametrize("fmt", BFP)
@given(rows=ROWS)
def test_the_host_packs_as_defined(fmt, rows):
    exponents, codes = host_pack(rows.view(np.float32), fmt)
    wanted = each_block(lambda block: define.host_pack(block, fmt), rows)
    np.testing.assert_array_equal(exponents, wanted[0])
    np.testing.assert_array_equal(codes, wanted[1])
    decoded = each_code(define.host_decode, *wanted, fmt)
    assert_same(host_decode(exponents, codes, fmt), decoded)
    assert_same(host_round(rows.view(np.float32), fmt), decoded)


@given(patterns=BITS)
def test_values_one_at_a_time_are_as_defined(patterns):
    values = patterns.view(np.float32)
    assert_same(host_pack_bf16(values), each(define.host_bf16, patterns))
    assert_same(host_round(values, "bf16"), each(define.host_bf16, patterns))
    assert_same(unpack_tf32(values), each(define.unpack_tf32, patterns))
    assert_same(unpack_bf16(values), each(define.unpack_bf16, patterns))
    for output in ("fp32", "bf16"):
        for dst16 in (False, True):
            wanted = each(lambda p, out=output, narrow=dst16: define.pack_float(p, out, narrow), patterns)
            assert_same(pack(values, output, dst16), wanted)


@pytest.mark.parametrize("fmt", BFP)
@pytest.mark.parametrize(("dst16", "precise"), MODES)
@given(rows=ROWS)
@settings(max_examples=60)
def test_the_packer_packs_blocks_as_defined(fmt, dst16, precise, rows):
    wanted = each_block(lambda block: define.pack_block(block, fmt, dst16, precise), rows)
    exponents, codes = pack_bytes(rows.view(np.float32), fmt, dst16, precise)
    np.testing.assert_array_equal(exponents, wanted[0])
    np.testing.assert_array_equal(codes, wanted[1])
    assert_same(pack(rows.view(np.float32), fmt, dst16, precise), each_code(define.unpack_bfp, *wanted, fmt))


@pytest.mark.parametrize("fmt", BFP)
def test_every_code_at_every_exponent_reads_as_defined(fmt):
    codes = np.tile(np.arange(256 if fmt == "bfp8_b" else 16, dtype=np.uint8), (256, 1))
    exponents = np.repeat(np.arange(256, dtype=np.uint8)[:, None], count_blocks(codes.shape[1]), axis=1)
    assert_same(unpack_bfp(exponents, codes, fmt), each_code(define.unpack_bfp, exponents, codes, fmt))
    assert_same(host_decode(exponents, codes, fmt), each_code(define.host_decode, exponents, codes, fmt))


@given(data=st.data(), shape=array_shapes(max_dims=2, max_side=40))
def test_sums_in_memory_are_as_defined(data, shape):
    old, new = (data.draw(arrays(np.uint32, shape, elements=PATTERNS)) for _ in range(2))
    for fmt, kept, function in (
        ("fp32", 0xFFFFFFFF, define.accumulate_fp32),
        ("bf16", 0xFFFF0000, define.accumulate_bf16),
    ):
        a, b = old & np.uint32(kept), new & np.uint32(kept)
        if fmt == "bf16":
            b = bits(pack(b.view(np.float32), "bf16", True))  # the packer writes no NaN
        wanted = [function(int(x), int(y)) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
        total = l1_accumulate(a.view(np.float32), b.view(np.float32), fmt)
        assert_same(total, np.array(wanted, np.uint32).reshape(shape))


def test_sums_in_memory_that_round_or_cancel():
    tiny, one, small = 2.0**-126, 1.0, 2.0**-8
    old = np.array([one, -one, tiny * 1.5, np.nan, np.inf, -0.0, 1 + 2.0**-7], np.float32)
    new = np.array([small, one, -tiny, 1.0, -np.inf, -0.0, small], np.float32)
    in_bf16, in_fp32 = (bits(l1_accumulate(old, new, fmt)) for fmt in ("bf16", "fp32"))
    wanted = [0x3F800000, 0, 0, 0x7F800000, 0x7FC00000, 0x80000000, 0x3F820000]
    np.testing.assert_array_equal(in_bf16, np.array(wanted, np.uint32))
    np.testing.assert_array_equal(in_fp32[2:6], np.array([0, 0x7FC00000, 0x7FC00000, 0x80000000], np.uint32))
    np.testing.assert_array_equal(in_fp32.view(np.float32)[[0, 1, 6]], [1 + small, 0, 1 + 3 * small])


@pytest.mark.parametrize("fmt", BFP)
@given(rows=ROWS)
@settings(max_examples=60)
def test_the_host_rounds_as_the_other_two_versions_of_its_rule(fmt, rows):
    values = rows.view(np.float32)
    got = host_round(values, fmt)
    number = ~np.isnan(got)
    for other in (
        round_blocks(values, BLOCK_FORMATS[fmt], axis=-1),
        rounding.host_blocks(torch.from_numpy(values.T.copy()), fmt, rounding.WeightBlocks(values.shape[1], 1))
        .numpy()
        .T,
    ):
        np.testing.assert_array_equal(np.isnan(other), ~number)
        np.testing.assert_array_equal(bits(got)[number], bits(other)[number])


@pytest.mark.parametrize("fmt", BFP)
@pytest.mark.parametrize("shape", [(64, 96), (5, 7, 33)])
def test_activations_are_packed_as_on_the_fast_path(fmt, shape):
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    fast = rounding.pack_blocks(torch.from_numpy(values), fmt, -1).numpy()
    np.testing.assert_array_equal(pack(values, fmt, False, precise=fmt == "bfp8_b"), fast)


@pytest.mark.parametrize("fmt", BFP)
@given(rows=ROWS)
@settings(max_examples=30)
def test_what_is_packed_once_packs_to_itself(fmt, rows):
    values = rows.view(np.float32)
    stored = host_round(values, fmt)
    assert_same(host_round(stored, fmt), bits(stored))
    exponents, codes = host_pack(values, fmt)
    assert_same(unpack_bfp(exponents, codes, fmt), bits(stored))


def test_a_tie_is_seen_after_what_alignment_cut_off():
    # Half of the last place and a little more; alignment cuts the little off, and what is left goes to even.
    row = np.array([1.0, 2.0**-7 * (1 + 2.0**-23)], np.float32)
    assert host_round(row, "bfp8_b").tolist() == [1.0, 0.0]
    row[1] = 2.0**-7 * (1 + 2.0**-16)
    assert host_round(row, "bfp8_b").tolist() == [1.0, 2.0**-6]
    assert pack(row, "bfp8_b", False).tolist() == [1.0, 2.0**-6]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_do_not_depend_on_threads(count):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**32, (1000, 401), dtype=np.uint32).view(np.float32)

    def everything():
        exponents, codes = host_pack(values, "bfp8_b")
        floats = [
            host_decode(exponents, codes, "bfp8_b"),
            unpack_bfp(exponents, codes, "bfp8_b"),
            host_round(values, "bfp4_b"),
            host_pack_bf16(values),
            unpack_tf32(values),
            pack(values, "bfp4_b", True),
            pack(values, "bf16", False),
            l1_accumulate(values, values[::-1], "bf16"),
            l1_accumulate(values, values[::-1], "fp32"),
        ]
        return [exponents, codes, *pack_bytes(values, "bfp8_b", False), *(bits(array) for array in floats)]

    before = threads()
    try:
        set_threads(3)
        wanted = everything()
        set_threads(count)
        got = everything()
    finally:
        set_threads(before)
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fmt", [*BFP, "bf16"])
@pytest.mark.parametrize("shape", [(64, 32), (3, 50)])
def test_rounding_into_given_memory(fmt, shape):
    values = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
    wanted, out = bits(host_round(values, fmt)), np.full(shape, np.nan, np.float32)
    assert host_round(values, fmt, out=out) is out
    assert_same(out, wanted)
    assert host_round(values, fmt, out=values) is values
    assert_same(values, wanted)


def test_views_and_other_types_are_read_in_their_order():
    values = np.random.default_rng(3).standard_normal((32, 48)).astype(np.float32)
    wanted = bits(host_round(values.T.copy(), "bfp8_b"))
    assert_same(host_round(values.T, "bfp8_b"), wanted)
    assert_same(host_round(values.T.astype(np.float64), "bfp8_b"), wanted)
    assert_same(pack(values.T, "bf16", False), bits(pack(values.T.copy(), "bf16", False)))


@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_tiles_come_back_as_they_were(shape, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**32, shape, dtype=np.uint32)
    floats = values.view(np.float32)
    np.testing.assert_array_equal(from_faces(to_faces(values), shape), values)
    assert_same(bytes_to_floats(floats_to_bytes(floats, "fp32"), "fp32", shape), values)
    assert_same(bytes_to_floats(floats_to_bytes(floats, "bf16"), "bf16", shape), values & np.uint32(0xFFFF0000))
    for fmt, size in (("bfp8_b", 1088), ("bfp4_b", 576)):
        exponents, codes = host_pack(floats, fmt)
        data = tiles_to_bytes(exponents, codes, fmt)
        assert data.shape == (-(-shape[0] // 32) * -(-shape[1] // 32), size)
        back = bytes_to_tiles(data, fmt, shape)
        np.testing.assert_array_equal(back[0], exponents)
        np.testing.assert_array_equal(back[1], codes)


@pytest.mark.parametrize("fmt", BFP)
@given(row=st.integers(0, 63), column=st.integers(0, 95))
@settings(max_examples=40)
def test_a_datum_lies_in_its_face(fmt, row, column):
    values = np.zeros((64, 96), np.float32)
    values[row, column] = -1.0
    data = tiles_to_bytes(*host_pack(values, fmt), fmt)
    tile, face = row // 32 * 3 + column // 32, row % 32 // 16 * 2 + column % 32 // 16
    place = 256 * face + 16 * (row % 16) + column % 16
    wanted = np.zeros_like(data)
    wanted[tile, 16 * face + row % 16] = 127
    if fmt == "bfp8_b":
        wanted[tile, 64 + place] = 0x80 | 64
    else:
        wanted[tile, 64 + place // 2] = (8 | 4) << 4 * (place % 2)
    np.testing.assert_array_equal(data, wanted)


def test_what_does_not_fit_is_refused():
    values, exponents, codes = np.zeros((4, 20), np.float32), np.zeros((4, 2), np.uint8), np.zeros((4, 20), np.uint8)
    with pytest.raises(ValueError, match="one of bfp8_b, bfp4_b, got 'bfp2_b'"):
        host_pack(values, "bfp2_b")
    with pytest.raises(ValueError, match="got a single number"):
        host_round(np.float32(1), "bfp8_b")
    with pytest.raises(ValueError, match="out must be contiguous float32"):
        host_round(values, "bfp8_b", out=np.zeros((4, 20)))
    for read in (unpack_bfp, host_decode):
        with pytest.raises(ValueError, match=r"go with exponents \(4, 2\), got \(4, 1\)"):
            read(exponents[:, :1], codes, "bfp8_b")
        with pytest.raises(ValueError, match="are uint8, got uint8 and int64"):
            read(exponents, codes.astype(np.int64), "bfp8_b")
    with pytest.raises(ValueError, match="adds fp32 or bf16, got 'bfp8_b'"):
        l1_accumulate(values, values, "bfp8_b")
    with pytest.raises(ValueError, match=r"as large as what lies in memory, \(4, 20\), got \(4, 19\)"):
        l1_accumulate(values, values[:, 1:], "fp32")
    with pytest.raises(ValueError, match="from a matrix"):
        to_faces(values[0])
    with pytest.raises(ValueError, match="takes 2 tiles of 1024, got"):
        from_faces(to_faces(values), (4, 40))
    with pytest.raises(ValueError, match=r"an array \[tiles, 1088\], got \(1, 576\)"):
        bytes_to_tiles(tiles_to_bytes(exponents, codes, "bfp4_b"), "bfp8_b", (4, 20))
    with pytest.raises(ValueError, match="fp32 or bf16, got 'fp16'"):
        floats_to_bytes(values, "fp16")


def golden(name):
    path = VECTORS / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no golden vectors: {name}.npz does not lie in ../shared/numerics")
    with np.load(path) as archive:
        return dict(archive.items())


def rows_of(patterns):
    widened = patterns.astype(np.uint32) << (16 if patterns.dtype == np.uint16 else 0)
    return widened.view(np.float32).reshape(-1, 32)


def assert_golden(got, wanted):
    got = bits(got) if got.dtype == np.float32 else got
    if wanted.dtype == np.uint16:
        assert not (got & 0xFFFF).any()
        got = got >> 16
    np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("fmt", BFP)
def test_golden_host_conversions(fmt):
    vectors, short = golden("host"), fmt[:4]
    values = rows_of(vectors["in"])
    packed = host_pack(values, fmt)
    assert_golden(tiles_to_bytes(*packed, fmt), vectors[f"fp32__{short}_bytes"])
    assert_golden(host_decode(*packed, fmt), vectors[f"fp32__{short}_value"])
    assert_golden(host_round(values, fmt), vectors[f"fp32__{short}_value"])
    source = rows_of(vectors["bf16src_in"])
    assert_golden(tiles_to_bytes(*host_pack(source, fmt), fmt), vectors[f"bf16src__{short}_bytes"])
    assert_golden(host_pack_bf16(values), vectors["fp32__bf16"])


@pytest.mark.parametrize("dst16", [False, True])
def test_golden_packer(dst16):
    vectors, prefix = golden("packer"), "dst16__" if dst16 else "dst32__"
    dst = rows_of(vectors["in"])
    assert_golden(pack(dst, "fp32", dst16), vectors[prefix + "fp32"])
    assert_golden(pack(dst, "bf16", dst16), vectors[prefix + "bf16"])
    for fmt in BFP:
        for precise in (False, True):
            key = prefix + fmt[:4] + ("_precise" if precise else "")
            data = tiles_to_bytes(*pack_bytes(dst, fmt, dst16, precise), fmt)
            assert_golden(data, vectors[key + "_bytes"])
            assert_golden(pack(dst, fmt, dst16, precise), vectors[key + "_regs"])
            assert_golden(unpack_bfp(*bytes_to_tiles(data, fmt, dst.shape), fmt), vectors[key + "_regs"])


@pytest.mark.parametrize("dst16", [False, True])
@pytest.mark.parametrize("fmt", ["fp32", "bf16"])
def test_golden_sums_in_memory(dst16, fmt):
    vectors = golden("packer_l1acc")
    packed = pack(rows_of(vectors["dst"]), fmt, dst16)
    total = l1_accumulate(rows_of(vectors["prior32" if fmt == "fp32" else "prior16"]), packed, fmt)
    assert_golden(total, vectors[("dst16__" if dst16 else "dst32__") + fmt])


def test_golden_unpacker():
    vectors = golden("unpacker")
    for fmt in BFP:
        table = vectors[f"{fmt[:4]}_table"]
        codes = np.tile(np.arange(table.shape[1], dtype=np.uint8), (256, 1))
        exponents = np.repeat(np.arange(256, dtype=np.uint8)[:, None], table.shape[1] // BLOCK, axis=1)
        assert_golden(unpack_bfp(exponents, codes, fmt), table << 13)
        wanted = vectors[f"{fmt[:4]}_regs19"]
        packed = bytes_to_tiles(vectors[f"{fmt[:4]}_bytes"], fmt, (32 * len(wanted), 32))
        assert_golden(unpack_bfp(*packed, fmt), wanted << 13)
    values = rows_of(vectors["fp32_in"])
    assert_golden(unpack_tf32(values), vectors["fp32_to_tf32_regs19"] << 13)
    assert_golden(unpack_bf16(values), vectors["fp32_to_bf16_regs19"] << 13)
    assert_golden(rows_of(vectors["bf16_in"]), vectors["bf16_regs19"] << 13)
