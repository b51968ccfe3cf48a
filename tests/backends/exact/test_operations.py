from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tenstorrent.exact.binary import binary
from backends.tenstorrent.exact.convolution import conv1d
from backends.tenstorrent.exact.eltwise import elementwise
from backends.tenstorrent.exact.host import host_pack_bf16, host_round
from backends.tenstorrent.exact.linear import linear
from backends.tenstorrent.exact.matmul import matmul
from backends.tenstorrent.exact.operations import Program, device_registers, host_registers
from backends.tenstorrent.exact.packer import l1_accumulate, pack
from backends.tenstorrent.exact.unpacker import unpack_tf32
from backends.tenstorrent.shards import shard_channels

WIDE = Program("hifi4", dst16=False, wormhole=False, output="fp32")


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def program(**fields):
    return Program(**{"fidelity": "hifi2", "dst16": False, "wormhole": False, **fields})


def same(left, right):
    return left.shape == right.shape and np.array_equal(left.view(np.uint32), right.view(np.uint32))


X, W, B = random(5, 200), random(200, 24, seed=1), random(24, seed=2)


@settings(max_examples=20)
@given(width=st.integers(1, 8), dst16=st.booleans(), bias=st.booleans(), m=st.integers(1, 6), k=st.integers(1, 200))
def test_spills_that_keep_every_bit_change_nothing(width, dst16, bias, m, k):
    x, weight, offset = X[:m, :k], W[:k], B if bias else None
    for output in ("bf16", "fp32"):
        whole = linear(x, weight, offset, program(dst16=dst16, output=output))
        assert same(linear(x, weight, offset, program(dst16=dst16, output=output, in0_block_w=width)), whole)
    # One block alone is never added in memory.
    whole = linear(x, weight, offset, program(dst16=dst16))
    assert same(linear(x, weight, offset, program(dst16=dst16, packer_l1_acc=True, in0_block_w=7)), whole)


@pytest.mark.parametrize("dst16", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_partial_sums_in_memory(dst16, bias):
    fmt = "bf16" if dst16 else "fp32"
    x, weight = host_pack_bf16(X), host_pack_bf16(W)
    blocks = [(x[:, k : k + 64], weight[k : k + 64]) for k in range(0, 200, 64)]
    total = pack(matmul(*blocks[0], "hifi2", dst16), fmt, dst16)
    for block in blocks[1 : None if bias else -1]:
        total = l1_accumulate(total, pack(matmul(*block, "hifi2", dst16), fmt, dst16), fmt)
    if bias:
        left = total if dst16 else unpack_tf32(total)
        rows = np.broadcast_to(host_pack_bf16(B), left.shape)
        dst = elementwise("add", left, rows, "lofi", dst16, False, not dst16)
    else:
        dst = matmul(*blocks[-1], "hifi2", dst16, start=total)
    got = linear(X, W, B if bias else None, program(dst16=dst16, output="fp32", packer_l1_acc=True, in0_block_w=2))
    assert same(got, pack(dst, "fp32", dst16))


def test_a_bfp8_output_rounds_bf16_sums_after_every_block():
    x, weight = host_pack_bf16(X[:, :64]), host_pack_bf16(W[:64])
    first = pack(matmul(x[:, :32], weight[:32], "hifi2", True), "bfp8_b", True)
    wanted = pack(matmul(x[:, 32:], weight[32:], "hifi2", True, start=first), "bfp8_b", True)
    fields = {"dst16": True, "output": "bfp8_b"}
    got = linear(x, weight, None, program(in0_block_w=1, **fields))
    assert same(got, wanted)
    assert not same(got, linear(x, weight, None, program(**fields)))
    exact = X.astype(np.float64) @ W

    def error(**more):
        return float(np.linalg.norm(linear(X, W, None, program(**fields, **more)) - exact))

    assert error(in0_block_w=1) > 1.3 * error(in0_block_w=1, packer_l1_acc=True)


def test_a_bias_leaves_eleven_bits_of_an_fp32_sum():
    x, weight = np.ones((1, 32), np.float32), np.zeros((32, 1), np.float32)
    weight[[0, 8], 0] = 1, 2.0**-12  # in two groups of eight, which are not aligned to each other's products
    zero = np.zeros(1, np.float32)
    assert linear(x, weight, None, WIDE).item() == 1 + 2.0**-12
    assert linear(x, weight, zero, WIDE).item() == 1
    weight[8, 0] = 2.0**-10
    assert linear(x, weight, zero, WIDE).item() == 1 + 2.0**-10


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"not x \[5, 200\], weight \[199, 24\]"):
        linear(X, W[:199], None, WIDE)
    with pytest.raises(ValueError, match=r"bias \[23\]"):
        linear(X, W, B[:23], WIDE)
    with pytest.raises(ValueError, match="k of 1 or more"):
        linear(X[:, :0], W[:0], None, WIDE)


@pytest.mark.parametrize("fmt", ["bf16", "bfp8_b", "bfp4_b", "fp32"])
@pytest.mark.parametrize("dst16", [False, True])
def test_registers_show_what_was_stored(fmt, dst16):
    values = random(3, 40) * np.float32(2.0) ** np.arange(-20, 20, dtype=np.float32)
    host, device = host_registers(values, fmt, dst16), device_registers(values, fmt, dst16)
    if fmt == "fp32":
        dropped = 16 if dst16 else 13
        assert same(host, (values.view(np.uint32) >> dropped << dropped).view(np.float32))
        assert same(device, host)
    else:
        assert same(host, host_round(values, fmt))
        assert same(device, pack(values, fmt, False, precise=fmt == "bfp8_b"))


CONV_X, CONV_W, CONV_B = random(40, 24, seed=3), random(16, 24, 5, seed=4), random(16, seed=5)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 3, 1), (3, 1, 2), (1, 8, 4)])
def test_a_height_sharded_convolution_is_a_linear_layer_of_the_unfolded_input(stride, padding, dilation):
    padded = np.pad(CONV_X, [(padding, padding), (0, 0)])
    reach = 4 * dilation
    starts = range(0, len(padded) - reach, stride)
    rows = np.stack([padded[start : start + reach + 1 : dilation].reshape(-1) for start in starts])
    columns = CONV_W.transpose(2, 1, 0).reshape(-1, 16)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    for fmt, dst16 in product(("bf16", "bfp8_b"), (False, True)):
        plain = program(dst16=dst16)
        got = conv1d(CONV_X, CONV_W, None, plain, fmt, **geometry)
        assert same(got, linear(rows, columns, None, plain, "bf16", fmt))
    # A bias is added to bf16 partials, and in the format of the weights.
    dst = matmul(host_pack_bf16(rows), host_round(columns, "bfp8_b"), "hifi2")
    bias = np.broadcast_to(host_round(CONV_B, "bfp8_b"), dst.shape)
    wanted = pack(elementwise("add", pack(dst, "bf16", False), bias, "lofi"), "bf16", False)
    assert same(conv1d(CONV_X, CONV_W, CONV_B, program(), "bfp8_b", **geometry), wanted)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_block_sharded_convolution_sums_shards_of_channels(in_memory):
    rows = np.stack([CONV_X[start : start + 5] for start in range(36)])
    x, weight = host_pack_bf16(rows), host_pack_bf16(CONV_W.transpose(2, 1, 0).copy())
    shards = [slice(0, 8), slice(8, 16), slice(16, 24)]  # 5 taps of 8 channels in 2 tiles
    parts = [(x[:, :, s].reshape(36, -1), weight[:, s].reshape(-1, 16)) for s in shards]
    partial = pack(matmul(*parts[0], "hifi2"), "fp32" if in_memory else "bf16", False)
    if in_memory:
        # fp32 partials come back through a register that holds tf32.
        partial = unpack_tf32(l1_accumulate(partial, matmul(*parts[1], "hifi2"), "fp32"))
    else:
        partial = pack(matmul(*parts[1], "hifi2", start=partial), "bf16", False)
    wanted = pack(matmul(*parts[2], "hifi2", start=partial), "fp32", False)
    got = conv1d(CONV_X, CONV_W, None, program(output="fp32", packer_l1_acc=in_memory, in0_block_w=2))
    assert same(got, wanted)
    assert not same(got, conv1d(CONV_X, CONV_W, None, program(output="fp32")))


def test_channels_of_a_shard():
    assert shard_channels(7, 64, 2) == 8
    assert shard_channels(3, 64, 2) == 16
    assert shard_channels(3, 20, 3) == 24  # a tap's channels are filled up to eights
    assert shard_channels(3, 20, 2) == 16
    assert shard_channels(11, 5, 3) == 8
    assert shard_channels(11, 512, 2) == 0


def test_a_block_too_small_for_eight_channels_is_refused():
    x, weight = np.zeros((20, 16), np.float32), np.zeros((4, 16, 11), np.float32)
    program = Program("lofi", dst16=False, wormhole=False, in0_block_w=2)
    with pytest.raises(ValueError, match="8 channels of 11 taps need 88: give in0_block_w 3 or more"):
        conv1d(x, weight, None, program)


def test_channels_short_of_eights_are_filled_up_with_zeros():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(40, 12)).astype(np.float32), rng.normal(size=(8, 12, 3)).astype(np.float32)
    filled = np.pad(x, [(0, 0), (0, 4)]), np.pad(weight, [(0, 0), (0, 4), (0, 0)])
    for width in (None, 1):
        program = Program("hifi4", dst16=True, wormhole=False, in0_block_w=width)
        assert np.array_equal(conv1d(x, weight, None, program), conv1d(*filled, None, program))


def test_an_input_that_does_not_fit_a_convolution_is_refused():
    for x, padding in ((CONV_X[:, :23], 0), (CONV_X[:4], 0), (CONV_X[:2], 1), (CONV_X[0], 0)):
        with pytest.raises(ValueError, match=r"takes \[positions, 24\] with 5 positions or more"):
            conv1d(x, CONV_W, None, WIDE, padding=padding)


@given(st.lists(st.floats(width=32), min_size=2, max_size=40))
def test_sums_and_differences_of_bf16_are_those_of_the_engine(values):
    x = np.array(values, np.float32)
    y = x[::-1].copy()
    for op, output in product(("add", "sub"), ("bf16", "fp32")):
        dst16 = output == "bf16"
        dst = elementwise(op, host_pack_bf16(x), host_pack_bf16(y), "lofi", dst16)
        assert same(binary(op, x, y, "bf16", "bf16", output, wormhole=False), pack(dst, output, dst16))


def test_what_the_vector_unit_computes_is_refused():
    x = random(4, 32)
    with pytest.raises(ValueError, match="mul of two bf16 tensors runs on the vector unit"):
        binary("mul", x, x, "bf16", "bf16", "bf16", wormhole=False)
    with pytest.raises(ValueError, match="add of fp32 and bf16 is not covered"):
        binary("add", x, x, "fp32", "bf16", "bf16", wormhole=False)
    with pytest.raises(ValueError, match="bfp4_b output is not covered"):
        binary("sub", x, x, "bf16", "bf16", "bfp4_b", wormhole=False)
    with pytest.raises(ValueError, match=r"one shape, not \[4, 32\] and \[3, 32\]"):
        binary("add", x, x[:3], "bf16", "bf16", "bf16", wormhole=False)
    exact = x.astype(np.float64) ** 2
    error = binary("mul", x, x, "bfp8_b", "bf16", "fp32", wormhole=True) - exact
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(exact)
