"""ttnn.conv1d, to the bit: the input unfolded, blocks of channels, partial sums that are mostly bf16.

Source: ttnn 0.81.1, block-sharded and height-sharded, on ttsim v1.10.0, measured with 64 channels, kernel 7, stride 1.
Other geometries follow the same rules: the planner gives them the same blocks, with channels filled up to eights as a
row-major input has them. Not covered: groups, and a tiled input, whose channels are filled up to 32.
"""

import numpy as np

from backends.tenstorrent.exact.operations import Format, Program, Values, host_registers, sum_blocks
from backends.tenstorrent.shards import SHARD_MULTIPLE, TILE, padded_channels, shard_channels


def conv1d(
    x: Values,
    weight: Values,
    bias: Values | None,
    program: Program,
    weight_format: Format = "bf16",
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Values:
    """`ttnn.conv1d` of a bf16 input and prepared weights.

    Args:
        x: float32 [positions, channels], before it is stored as bf16.
        weight: float32 [out, channels, taps]; blocks of 16 that share an exponent lie along out.
        bias: float32 [out], stored in the format of the weights (as bf16 where those are fp32: not measured), or None.
        program: `in0_block_w` None is height-sharded (one block of K), a number block-sharded: see
            `convolution_registers`.
        weight_format: dtype of weights and bias on the card.
        stride: positions between two outputs.
        padding: zeros on both ends.
        dilation: positions between two taps.

    Returns:
        float32 [outputs, out], as `ttnn.to_torch` gives it; NaN and Inf as in `linear`.

    Raises:
        ValueError: shapes that do not fit, or 8 channels that do not fit in a block.
    """
    out, channels, taps = weight.shape
    span = dilation * (taps - 1) + 1
    if x.ndim != 2 or x.shape[1] != channels or len(x) + 2 * padding < span:
        raise ValueError(
            f"x is {list(x.shape)} with {padding} zeros on both ends; a weight {list(weight.shape)} with dilation "
            f"{dilation} takes [positions, {channels}] with {span} positions or more, zeros counted"
        )
    padded = np.pad(x, [(padding, padding), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=0)[::stride, :, ::dilation]
    columns = np.ascontiguousarray(weight.transpose(2, 1, 0)).reshape(taps * channels, out)
    return convolution_registers(
        host_registers(windows.transpose(0, 2, 1), "bf16", program.dst16),
        host_registers(columns, weight_format, program.dst16).reshape(taps, channels, out),
        None
        if bias is None
        else host_registers(bias, "bf16" if weight_format == "fp32" else weight_format, program.dst16),
        program,
        tf32=not program.dst16 and weight_format == "fp32",
    )


def convolution_registers(rows: Values, weight: Values, bias: Values | None, program: Program, *, tf32: bool) -> Values:
    """A convolution of operands as source registers show them, any number of spatial axes.

    K runs over taps, then over channels. With `in0_block_w` None all of it is one block. Otherwise channels are split
    in shards, each the largest multiple of 8 channels of which all taps fit in that many tiles; a shard is a block of
    K, filled up with zeros.

    Args:
        rows: float32 [m, taps, channels], the unfolded input.
        weight: float32 [taps, channels, n].
        bias: float32 [n], or None.
        program: how it is computed.
        tf32: whether a source register holds tf32.

    Returns:
        float32 [m, n], values in the output format.

    Raises:
        ValueError: 8 channels do not fit in a block.
    """
    taps, channels = weight.shape[:2]
    whole = padded_channels(channels)
    # A tap's channels are filled up with zeros, so that another eight begins with the next tap.
    if whole > channels:
        rows = np.pad(rows, [(0, 0), (0, 0), (0, whole - channels)])
        weight = np.pad(weight, [(0, 0), (0, whole - channels), (0, 0)])
    shard = whole if program.in0_block_w is None else shard_channels(taps, channels, program.in0_block_w)
    if not shard:
        raise ValueError(
            f"in0_block_w {program.in0_block_w} gives blocks of {(program.in0_block_w or 0) * TILE} along K, and"
            f" {SHARD_MULTIPLE} channels of {taps} taps need {taps * SHARD_MULTIPLE}: give in0_block_w"
            f" {-(-taps * SHARD_MULTIPLE // TILE)} or more, or None for one block"
        )
    shards = [slice(start, start + shard) for start in range(0, whole, shard)]
    blocks = [(rows[:, :, part], weight[:, part]) for part in shards]
    partials: Format = "fp32" if program.accumulates_in_l1(len(blocks)) and not program.dst16 else "bf16"
    return sum_blocks(blocks, bias, program, partials, tf32=tf32, reloads_whole=False)
