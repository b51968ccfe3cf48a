"""Geometry of convolutions: shards of the input, and what of a core's L1 they and the weights take.

Sources: the refusals and buffers of ttnn 0.81.1, asked on mock cards (tests/backends/tenstorrent).
"""

from dataclasses import dataclass
from typing import Literal

from backends.tenstorrent.cards import Card
from backends.tenstorrent.geometry import TILE_BYTES, GeometryError, budget, tiles
from backends.tenstorrent.shards import TILE, padded_channels, shard_channels

SHARED = ("bfp8_b", "bfp4_b")
"""Types that exist in tiles only, so that channels are filled up to a tile's."""
SLICE_POSITIONS = 8192
"""Of the input, in a slice from DRAM: a longer one has more pieces than the kernel that moves them takes arguments."""
_INDICES_BYTES = 256  # of windows, and what ttnn rounds up


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution along one axis, transposed or not, and what its operands are stored in."""

    taps: int
    in_channels: int
    """All of them: ttnn fills up the weights of a grouped convolution with zeros."""
    out_channels: int
    length: int
    """Positions of the result."""
    reach: int | None = None
    """Positions between the first tap and the last, and one; None: as many as taps."""
    stride: int = 1
    """Of a convolution that is not transposed."""
    activation: str = "bf16"
    weight: str = "bf16"
    result: str = "bf16"
    bias: bool = True
    sums_in_l1: bool = False
    """Whether the packer adds partial sums of fp32."""


@dataclass(frozen=True, slots=True)
class Shards:
    """How a convolution lies on the cores."""

    layout: Literal["height", "block"]
    grid: tuple[int, int] | None
    """Columns, each with a shard of the channels, and rows; None: as many cores as ttnn likes."""
    channels: int
    """Of a shard; all of them where the layout is height."""
    slices: int | None = None
    """Parts of the length that are done one after the other, from DRAM; None: ttnn finds out."""


def convolution_shards(convolution: Convolution, card: Card, in0_block_w: int | None = None) -> Shards:
    """How a convolution lies on the cores so that its blocks of K are those that a policy wants.

    Args:
        convolution: what is computed.
        card: whose grid and L1 are to do.
        in0_block_w: tiles of K in a block; None: all of K in one.

    Raises:
        GeometryError: the blocks are more than L1 holds, the card has fewer columns than there would be shards, or
            the shards would not be those that the policy means.
    """
    channels = convolution.in_channels
    if in0_block_w is None:
        needed = least_bytes(convolution)
        if needed > budget(card):
            fits = largest_width(convolution, card)
            raise GeometryError(
                f"L1: all of K in one block, with its weights for {convolution.out_channels} channels, takes"
                f" {needed:,} bytes of a core's {budget(card):,};"
                + (f" use in0_block_w {fits}" if fits else " no in0_block_w fits")
            )
        return Shards("height", None, channels)
    shard = _checked_shard(convolution, card, in0_block_w)
    columns = -(-channels // shard)
    for slices in range(1, tiles(convolution.length) + 1):
        if slices > 1 and convolution.taps == 1:
            break  # a plain product to ttnn, which it does not cut
        if slices > 1 and convolution.length * convolution.stride > slices * SLICE_POSITIONS:
            continue
        rows = min(card.grid[1], tiles(-(-convolution.length // slices)))
        if _block_bytes(convolution, card, in0_block_w, shard, rows, slices) <= budget(card):
            return Shards("block", (columns, rows), shard, slices)
    needed = _block_bytes(convolution, card, in0_block_w, shard, 1, tiles(convolution.length))
    fits = largest_width(convolution, card)
    raise GeometryError(
        f"L1: {in0_block_w} tiles of K in a block take {needed:,} bytes of a core's {budget(card):,};"
        + (f" use in0_block_w {fits}" if fits else " no in0_block_w fits")
    )


def _checked_shard(convolution: Convolution, card: Card, in0_block_w: int) -> int:
    taps, channels, (columns, _) = convolution.taps, convolution.in_channels, card.grid
    shard = shard_channels(taps, channels, in0_block_w)
    if not shard:
        raise GeometryError(f"in0_block_w {in0_block_w} holds no 8 channels of all {taps} taps")
    needed = -(-channels // shard)
    if needed > columns:
        raise GeometryError(
            f"in0_block_w {in0_block_w} gives {needed} shards of {shard} channels, and {card.name} has {columns}"
            f" columns of cores; use {tiles(padded_channels(-(-channels // columns)) * taps)} or more"
        )
    even = padded_channels(-(-channels // needed))
    if even != shard:
        raise GeometryError(
            f"in0_block_w {in0_block_w} gives shards of {shard} of {channels} channels, the last one smaller, and ttnn"
            f" makes them alike, {even} each; use {tiles(even * taps)}"
        )
    if convolution.activation in SHARED and needed > 1 and shard % TILE:
        raise GeometryError(
            f"in0_block_w {in0_block_w} gives shards of {shard} channels, and {convolution.activation} activations"
            f" come in tiles of {TILE}; use a multiple of {taps}, or bf16 activations"
        )
    if convolution.activation in SHARED and in0_block_w < taps * tiles(shard):
        raise GeometryError(
            f"in0_block_w {in0_block_w} holds {shard} channels of all {taps} taps, and {convolution.activation}"
            f" activations come in tiles of {TILE}, which take {taps * tiles(shard)}; use that, or leave it out"
        )
    return shard


def largest_width(convolution: Convolution, card: Card) -> int | None:
    """The most tiles of K in a block that ttnn takes and L1 holds, all rows of the grid at work; None: not one."""
    least = tiles(convolution.taps * convolution.in_channels)
    for width in range(least, 0, -1):
        try:
            shard = _checked_shard(convolution, card, width)
        except GeometryError:
            continue
        if _block_bytes(convolution, card, width, shard, 1, tiles(convolution.length)) <= budget(card):
            return tiles(shard * convolution.taps)
    return None


def least_bytes(convolution: Convolution) -> int:
    """L1 of a core that a convolution takes with all of K in a block and one tile of rows: weights, rows, result."""
    channels = convolution.in_channels
    per_tap = tiles(channels) * TILE if convolution.activation in SHARED else padded_channels(channels)
    width, breadth = tiles(convolution.taps * per_tap), tiles(convolution.out_channels)
    return _buffers(convolution, width, breadth) + _rows_bytes(convolution, per_tap, breadth, 1)


def _block_bytes(convolution: Convolution, card: Card, width: int, shard: int, rows: int, slices: int) -> int:
    breadth = -(-tiles(convolution.out_channels) // card.grid[0])
    height = -(-tiles(-(-convolution.length // slices)) // rows)
    # One tap is a plain product to ttnn, which keeps all rows of its result in fp32, too.
    times = 4 if convolution.taps == 1 else 2
    return _buffers(convolution, width, breadth) + times * _rows_bytes(convolution, shard, breadth, height)


def _buffers(convolution: Convolution, width: int, breadth: int) -> int:
    """Of one tile of rows: the weights of a block, the rows before and after they are tiled, the bias, partial sums."""
    weights = width * breadth * TILE_BYTES[convolution.weight]
    rows = 2 * width * TILE_BYTES[_row_type(convolution)]
    bias = breadth * TILE_BYTES[convolution.weight] if convolution.bias else 0
    return weights + rows + bias + (breadth * TILE_BYTES["fp32"] if convolution.sums_in_l1 else 0) + _INDICES_BYTES


def _rows_bytes(convolution: Convolution, channels: int, breadth: int, height: int) -> int:
    """What lies in L1 of input, with what its windows reach, and of the result."""
    reach = convolution.taps if convolution.reach is None else convolution.reach
    positions = height * TILE * convolution.stride + reach - 1
    held = 4 if _row_type(convolution) == "fp32" else 2
    return positions * channels * held + height * breadth * TILE_BYTES[convolution.result]


def _row_type(convolution: Convolution) -> str:
    return "fp32" if convolution.activation == "fp32" else "bf16"
