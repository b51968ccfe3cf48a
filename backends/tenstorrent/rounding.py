"""Roundings of the Tensix packer and unpacker and of ttnn's host side, on float32 tensors by their bits.

Source: tenstorrent/ttsim v1.10.0 (the vendor's functional simulator) and the ttnn 0.81.1 wheel, measured.
"""

import torch
from torch import Tensor

BLOCK = 16
"""Neighbours that share an exponent in bfp8_b and bfp4_b."""
MAGNITUDE_BITS = {"bfp8_b": 7, "bfp4_b": 3}
# hardshrink drops magnitudes up to this one; a denormal bound would be exact and ten times slower on x86.
_SMALLEST_NORMAL = 2.0**-126
_EXPONENT = 0x7F800000


def clear_low_bits(values: Tensor, bits: int) -> Tensor:
    """Truncate the magnitude: drop the lowest `bits` of the 23 mantissa bits."""
    return (values.view(torch.int32) & -(1 << bits)).view(torch.float32)


def pack_float(values: Tensor, mantissa_bits: int, kept_bits: int | None = None) -> Tensor:
    """Round to `mantissa_bits` as the packer does, half away from zero, then truncate to `kept_bits`.

    Magnitudes up to 2**-126 become +0 (on the card below it), NaN becomes +inf (there with its sign), the largest
    values may carry to inf.
    bf16 is 7 mantissa bits, the packer's first step towards bfp8_b is 6.
    """
    dropped = 23 - mantissa_bits
    kept = mantissa_bits if kept_bits is None else min(kept_bits, mantissa_bits)
    return _pack(torch.hardshrink(values, _SMALLEST_NORMAL), dropped, 23 - kept)


def truncate_float(values: Tensor, mantissa_bits: int) -> Tensor:
    """What the unpacker makes of fp32: tf32 (10 bits) or bf16 (7), truncated; magnitudes up to 2**-126 become +0."""
    flushed = torch.hardshrink(values, _SMALLEST_NORMAL)
    flushed.view(torch.int32).bitwise_and_(-(1 << (23 - mantissa_bits)))
    return flushed


def pack_blocks(values: Tensor, fmt: str, axis: int) -> Tensor:
    """Round to bfp8_b or bfp4_b as `ttnn.typecast` has the packer do it.

    To bfp8_b by way of the upper 16 bits (bfp8_pack_precise), half away from zero to the block's shared exponent. To
    bfp4_b by the packer's default: half away from zero to 6 mantissa bits, so again to the shared exponent, and of the
    7-bit result 3 bits are kept.

    Args:
        values: float32, any shape; Inf and NaN make their block Inf and NaN.
        fmt: a key of MAGNITUDE_BITS.
        axis: along which 16 neighbours share an exponent, from index 0; a short last block is filled up with zeros.

    Blocks whose largest magnitude lies below 2**-120 lose bits earlier than on the card.
    """
    axis %= values.ndim
    length = values.shape[axis]
    first = values.clone(memory_format=torch.contiguous_format)
    first = _upper_half(first) if fmt == "bfp8_b" else _pack(first, 17, 17)
    missing = -length % BLOCK if length > BLOCK else 0
    if missing:
        shape = list(first.shape)
        shape[axis] = missing
        first = torch.cat([first, first.new_zeros(shape)], axis)
    blocks = torch.unflatten(first, axis, (-1, min(BLOCK, max(length, 1))))
    fields = blocks.abs().amax(axis + 1, keepdim=True).view(torch.int32) & _EXPONENT
    quantum = (fields.clamp_min(7 << 23) - (6 << 23)).view(torch.float32)
    # Values have 8 significant bits at most here, so a nudge of 2**-12 turns ties (round() has them go to even) away
    # from zero and moves nothing else across one.
    codes = blocks.mul_((1 + 2**-12) / quantum).round_()
    if fmt == "bfp4_b":
        codes.mul_(1 / 16).trunc_().mul_(16)
    else:
        codes.clamp_(-127, 127)  # the shared exponent is never raised
    rounded = codes.mul_(quantum).flatten(axis, axis + 1)
    return rounded.narrow(axis, 0, length) if missing else rounded


def host_bf16(values: Tensor) -> Tensor:
    """Nearest bf16, ties to even, denormals kept, NaN stays NaN: what `ttnn.from_torch` stores."""
    return values.to(torch.bfloat16).to(torch.float32)


def _pack(values: Tensor, rounded_bits: int, cleared_bits: int) -> Tensor:
    """Round in place; fresh memory costs more than arithmetic here."""
    values.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)  # the bits of a NaN could wrap around to 0
    values.view(torch.int32).add_(1 << (rounded_bits - 1)).bitwise_and_(-(1 << cleared_bits))
    return values


def _upper_half(values: Tensor) -> Tensor:
    """Cut to the upper 16 bits in place, NaN to Inf."""
    values.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).view(torch.int32).bitwise_and_(-(1 << 16))
    return values


class WeightBlocks:
    """Which weights share an exponent: 16 neighbouring output channels, at one place along K.

    ttnn stores a weight as [K, output channels]. A group of a grouped convolution sees zeros from the others, so blocks
    end at a group's border, too.
    """

    def __init__(self, channels: int, groups: int) -> None:
        """Lay blocks over `channels` outputs in `groups` equal runs."""
        channel = torch.arange(channels)
        labels = (channel // (channels // groups)) * channels + channel // BLOCK
        self._index = torch.unique_consecutive(labels, return_inverse=True)[1]
        self._count = int(self._index[-1]) + 1

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """Sum ("sum") or largest ("amax") of each block of [channels, k], spread over its channels; values >= 0."""
        index = self._index.to(values.device)[:, None].expand(values.shape)
        blocks = values.new_zeros((self._count, values.shape[1])).scatter_reduce(0, index, values, how)
        return blocks.gather(0, index)

    def shared_exponent(self, weight: Tensor) -> Tensor:
        """Largest exponent field of each block of a float32 [channels, k], spread over its channels, int32."""
        return self.reduce((weight.view(torch.int32) >> 23) & 255, "amax")


def host_blocks(weight: Tensor, fmt: str, blocks: WeightBlocks) -> Tensor:
    """Round [channels, k] to bfp8_b or bfp4_b as `ttnn.from_torch` does, and decode.

    The 24-bit significand is aligned by truncation, then rounded once to nearest, ties to even, and saturated; the
    shared exponent is never raised. Denormals count as zero. The exponent field 255 is an ordinary one until decoding:
    a block with Inf or NaN keeps those and turns everything else to zero.
    """
    width = MAGNITUDE_BITS[fmt]
    bits = weight.contiguous().view(torch.int32)
    fields = (bits >> 23) & 255
    shared = blocks.shared_exponent(weight.contiguous())
    significand = torch.where(fields > 0, (bits & 0x7FFFFF) | 0x800000, 0)
    aligned = significand >> (shared - fields).clamp_max(31)
    dropped = 24 - width
    odd = (aligned >> dropped) & 1
    codes = ((aligned + (1 << (dropped - 1)) - 1 + odd) >> dropped).clamp_max((1 << width) - 1)
    top = 1 << (width - 1)
    magnitude = torch.ldexp(codes.double(), shared - 127 - (width - 1))
    special = torch.where(codes == top, torch.inf, torch.nan).double()
    magnitude = torch.where((shared == 255) & (codes >= top), special, magnitude)
    return torch.where((bits < 0) & (codes > 0), -magnitude, magnitude).float()
