"""What ttnn does around the matrix engine: K cut into blocks, partial sums spilled between them, and the bias.

Source: ttnn 0.81.1 run on ttsim v1.10.0, for linear and conv1d; products and transposed convolutions follow the same
program factories.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.tenstorrent.rounding import clear_low_bits, host_bf16, pack_float
from backends.tenstorrent.shards import SHARD_MULTIPLE, TILE, padded_channels, shard_channels
from precision.policy import Scheme
from voice.site_call import SiteCall

_TF32_DROPPED = 13
_EXPONENT = 0x7F800000


def k_blocks(call: SiteCall, scheme: Scheme) -> list[slice]:
    """The runs of K between two spills: of a linear layer or product along k, of a convolution along channels.

    A convolution's block is a shard of its channels (of a group's, where there are groups) with all their taps; see
    `shard_channels`. Without `in0_block_w` all of K is one block.

    Raises:
        ValueError: `in0_block_w` tiles hold no 8 channels.
    """
    length = call.x.shape[-1] if call.options is None else _channels(call)
    if scheme.in0_block_w is None:
        return [slice(0, length)]
    if call.options is None:
        run = scheme.in0_block_w * TILE
    else:
        run = shard_channels(math.prod(call.weight.shape[2:]), length, scheme.in0_block_w)
        if not run:
            raise ValueError(
                f"site {call.site}: in0_block_w={scheme.in0_block_w} holds no {SHARD_MULTIPLE} channels of all taps;"
                " raise it, or leave it out"
            )
    return [slice(start, min(start + run, length)) for start in range(0, length, run)]


def adds_in_memory(scheme: Scheme, blocks: list[slice]) -> bool:
    """Whether packer_l1_acc takes effect; with a single block ttnn leaves it off."""
    return scheme.packer_l1_acc and len(blocks) > 1


def of_channels(call: SiteCall, block: slice, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Operands of a convolution cut to some channels of each group, still in the call's layout."""
    options = call.options
    assert options is not None
    channels, groups = _channels(call), options.groups
    if block == slice(0, channels):
        return x, weight
    part = torch.unflatten(x, 1, (groups, channels))[:, :, block].flatten(1, 2)
    if call.op == "conv_transpose1d":
        return part, torch.unflatten(weight, 0, (groups, channels))[:, block].flatten(0, 1)
    return part, weight[:, block]


def of_rows(call: SiteCall, block: slice) -> Tensor | slice:
    """The same block in the order of K that `in_eights` has: taps, then channels."""
    if call.options is None:
        return block
    taps, whole = math.prod(call.weight.shape[2:]), padded_channels(_channels(call))
    stop = whole if block.stop == _channels(call) else block.stop
    return (torch.arange(taps)[:, None] * whole + torch.arange(block.start, stop)).flatten()


def in_eights(call: SiteCall, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [..., m, k] and columns [..., k, n] of a convolution with each tap's channels filled up to eights."""
    missing = 0 if call.options is None else padded_channels(_channels(call)) - _channels(call)
    if not missing:
        return rows, columns
    taps = math.prod(call.weight.shape[2:])
    rows = F.pad(torch.unflatten(rows, -1, (taps, -1)), (0, missing)).flatten(-2)
    return rows, F.pad(torch.unflatten(columns, -2, (taps, -1)), (0, 0, 0, missing)).flatten(-3, -2)


def keeps_fp32(call: SiteCall, scheme: Scheme, *, in_memory: bool) -> bool:
    """Whether partial sums are spilled as fp32, or as bf16.

    A convolution does so only where the packer adds them up; a linear layer whenever it sums in fp32.
    """
    return scheme.accumulate == "fp32" and (is_matmul(call, scheme.in0_block_w) or in_memory)


def is_matmul(call: SiteCall, in0_block_w: int | None) -> bool:
    """Whether ttnn multiplies matrices for a call: so it does for a convolution of one tap that skips and pads nothing.

    Source: ttnn 0.81.1 plans a MatmulDeviceOperation there; with shards of channels of its own it has not been seen.
    """
    options = call.options
    if options is None:
        return True
    plain = set(options.stride) == {1} and not any(options.padding) and in0_block_w is None
    return call.op == "conv1d" and math.prod(call.weight.shape[2:]) == 1 and plain


def through_tf32(total: Tensor) -> Tensor:
    """What a source register holds of fp32 partial sums: 10 mantissa bits, by truncation."""
    return clear_low_bits(total, _TF32_DROPPED)


def add_in_bf16(old: Tensor, new: Tensor) -> Tensor:
    """The packer's sum of bf16 values in memory: nearest, ties to even."""
    return host_bf16(
        old + new
    )  # the sum of two bf16 values in fp32 rounds only where it cannot matter: 24 >= 2 * 8 + 2


def add_bias(partial: Tensor, bias: Tensor, scheme: Scheme) -> Tensor:
    """ELWADD of a partial sum and a bias: the smaller is rounded to the larger's 10th mantissa bit, halves away.

    Args:
        partial: float32, at most 11 significant bits.
        bias: float32, bf16 values, broadcasts to `partial`.
        scheme: with bf16 accumulation the sum is rounded to bf16, half away from zero.
    """
    largest = torch.maximum(partial.abs(), bias.abs())
    # Adding and taking away 1.5 * 2**23 units rounds to a unit, ties to even; the nudge turns those away from zero.
    rounder = (largest.view(torch.int32) & _EXPONENT).view(torch.float32).mul_(1.5 * 2.0**13)
    nudge = 1 + 2.0**-12
    total = (partial * nudge).add_(rounder).sub_(rounder)
    total += (bias * nudge + rounder).sub_(rounder)
    return pack_float(total, 7) if scheme.accumulate == "bf16" else total


def bias_shape(call: SiteCall) -> tuple[int, ...]:
    """Shape that broadcasts a bias [n] to the call's result."""
    return (-1, *[1] * (call.x.ndim - 2)) if call.options is not None else (-1,)


def _channels(call: SiteCall) -> int:
    """Input channels of one group of a convolution."""
    assert call.options is not None
    return call.weight.shape[0] // call.options.groups if call.op == "conv_transpose1d" else call.weight.shape[1]
