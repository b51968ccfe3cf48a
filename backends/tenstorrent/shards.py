"""Shards: how many channels of a convolution lie in one block of K."""

TILE = 32
"""Rows, and columns, of a tile."""
SHARD_MULTIPLE = 8
"""Channels of a convolution's shard come in multiples of this."""


def padded_channels(channels: int) -> int:
    """Channels of one tap along K: filled up with zeros to eights, as ttnn has them for a row-major input."""
    return -(-channels // SHARD_MULTIPLE) * SHARD_MULTIPLE


def shard_channels(taps: int, channels: int, in0_block_w: int) -> int:
    """Channels in a block of `in0_block_w` tiles: all where they fit, or the largest multiple of 8 that does, or 0.

    ttnn 0.81.1 itself chooses the shards by the columns of the grid, and in0_block_w follows from them; a program that
    is to have these shards says so by its core_grid.
    """
    run = in0_block_w * TILE
    whole = padded_channels(channels)
    return whole if taps * whole <= run else run // taps // SHARD_MULTIPLE * SHARD_MULTIPLE
