"""Geometry: how a product is spread over a card's cores and cut into blocks that its L1 holds.

Only the blocks of K change a bit of the result; the rest is room and speed.
Sources: the refusals and program factories of ttnn 0.81.1, asked on mock cards (tests/backends/tenstorrent).
"""

from dataclasses import dataclass, replace
from typing import Literal

from backends.tenstorrent.cards import Card
from backends.tenstorrent.shards import TILE

TILE_BYTES = {"fp32": 4096, "bf16": 2048, "bfp8_b": 1088, "bfp4_b": 576}
"""Of a tile of 32 x 32."""
L1_SMALL_BYTES = 65_536
"""What a program opens a card with for the indices of convolutions: `l1_small_size`."""
RESERVED_BYTES = 2_112
"""What ttnn keeps of L1 beside the buffers of an operation: its refusals count it."""


class GeometryError(ValueError):
    """Blocks that do not fit in a card's L1, or that the library does not take; the message says what would."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A program config of a matrix product, in tiles."""

    kind: Literal["rows", "columns", "grid", "batched"]
    """What cores share out: rows of the result, columns of it, both, or the products of a batch."""
    grid: tuple[int, int]
    in0_block_w: int
    out_subblock_h: int
    out_subblock_w: int
    out_block_h: int
    out_block_w: int
    per_core_m: int
    per_core_n: int
    fuse_batch: bool = True
    """Whether the rows of a batch lie behind each other as one product's."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product [m, k] x [k, n], `batch` of them, and what its operands are stored in."""

    m: int
    k: int
    n: int
    batch: int = 1
    left: str = "bf16"
    right: str = "bf16"
    result: str = "bf16"
    bias: bool = False
    fp32_accumulation: bool = True
    packer_l1_acc: bool = False
    full_sync: bool = False


def tiles(extent: int) -> int:
    """Tiles that an extent takes."""
    return -(-extent // TILE)


def budget(card: Card) -> int:
    """Bytes of a core's L1 that the buffers of one operation may take."""
    return card.l1_bytes - L1_SMALL_BYTES - RESERVED_BYTES


def linear_blocks(product: Product, card: Card, in0_block_w: int | None = None) -> Blocks:
    """Blocks of a product whose right operand all rows share.

    Args:
        product: `batch` counts among its rows: m is padded to whole tiles once for each.
        card: whose grid and L1 are to do.
        in0_block_w: tiles of K in a block; None: all of them.

    Raises:
        GeometryError: one row of tiles by one column of that many tiles of K is more than L1 holds, or the number
            does not divide the tiles of K.
    """
    width = _width(product, in0_block_w)
    columns, rows = card.grid
    m, n = product.batch * tiles(product.m), tiles(product.n)
    if m >= rows and n >= columns and m * n > columns * rows:
        kind: Literal["rows", "columns", "grid"] = "grid"
        per_core_m, per_core_n = -(-m // rows), -(-n // columns)
    elif m >= n:
        kind, per_core_m, per_core_n = "rows", -(-m // (columns * rows)), n
    else:
        kind, per_core_m, per_core_n = "columns", m, -(-n // (columns * rows))
    return _fitted(product, card, width, kind, per_core_m, per_core_n)


def batched_blocks(product: Product, card: Card, in0_block_w: int | None = None) -> Blocks:
    """Blocks of a batch of products, each with a right operand of its own; errors as in `linear_blocks`.

    Cores share out the products and their rows; where all columns of one are more than L1 holds, they share out each
    product in turn.
    """
    width = _width(product, in0_block_w)
    m, n = tiles(product.m), tiles(product.n)
    if product_bytes(product, width, 1, n, twice=True) <= budget(card):
        sub_h, sub_w = _subblock(1, n, product)
        return Blocks("batched", card.grid, width, sub_h, sub_w, 1, n, 1, n)
    cores = card.grid[0] * card.grid[1]
    if m >= n:
        blocks = _fitted(product, card, width, "rows", -(-m // cores), n, twice=True)
    else:
        blocks = _fitted(product, card, width, "columns", m, -(-n // cores), twice=True)
    return replace(blocks, fuse_batch=False)


def _fitted(
    product: Product,
    card: Card,
    width: int,
    kind: Literal["rows", "columns", "grid"],
    per_core_m: int,
    per_core_n: int,
    *,
    twice: bool = False,
) -> Blocks:
    """The largest blocks of the result that L1 holds."""
    sizes = sorted(
        ((height, breadth) for height in divisors(per_core_m) for breadth in divisors(per_core_n)),
        key=lambda size: (size[0] * size[1], size[1]),
    )
    for height, breadth in reversed(sizes):
        if product_bytes(product, width, height, breadth, twice=twice) <= budget(card):
            sub_h, sub_w = _subblock(height, breadth, product)
            return Blocks(kind, card.grid, width, sub_h, sub_w, height, breadth, per_core_m, per_core_n)
    needed, fits = product_bytes(product, width, 1, 1, twice=twice), largest_width(product, card, twice=twice)
    raise GeometryError(
        f"L1: {width} tiles of K in a block take {needed:,} bytes of a core's {budget(card):,};"
        + (f" use in0_block_w {fits}" if fits else " no in0_block_w fits")
    )


def largest_width(product: Product, card: Card, *, twice: bool = False) -> int | None:
    """The most tiles of K in a block that L1 holds, blocks of the result being one tile; None: not one."""
    for width in reversed(divisors(tiles(product.k))):
        if product_bytes(product, width, 1, 1, twice=twice) <= budget(card):
            return width
    return None


def product_bytes(product: Product, width: int, height: int, breadth: int, *, twice: bool = False) -> int:
    """L1 of a core that the buffers of a matrix product take.

    Args:
        product: what is computed.
        width: tiles of K in a block.
        height: tiles of the result's block, down.
        breadth: across.
        twice: whether operands have room twice though K has one block, as in a batch that is not fused.
    """
    spilled = tiles(product.k) > width
    operands = width * (height * TILE_BYTES[product.left] + breadth * TILE_BYTES[product.right])
    operands *= 2 if spilled or twice else 1  # the next block is fetched while this one is used
    result = height * breadth * TILE_BYTES[product.result]
    partials = TILE_BYTES["fp32"] if product.fp32_accumulation else TILE_BYTES[_partials(product, spilled)]
    held = partials != TILE_BYTES[product.result]
    bias = breadth * TILE_BYTES["bf16"] if product.bias else 0
    return operands + result + (height * breadth * partials if held else 0) + bias


def _partials(product: Product, spilled: bool) -> str:
    return "bf16" if product.packer_l1_acc and spilled else product.result


def _width(product: Product, in0_block_w: int | None) -> int:
    depth = tiles(product.k)
    if in0_block_w is None:
        return depth
    if in0_block_w < 1 or depth % in0_block_w:
        raise GeometryError(f"in0_block_w {in0_block_w} does not divide the {depth} tiles of K (k={product.k})")
    return in0_block_w


def _subblock(height: int, breadth: int, product: Product) -> tuple[int, int]:
    """What Dst holds at a time: whole rows of a block, or part of one row."""
    room = (4 if product.fp32_accumulation else 8) * (2 if product.full_sync else 1)
    if breadth <= room:
        return max(rows for rows in divisors(height) if rows * breadth <= room), breadth
    return 1, max(part for part in divisors(breadth) if part <= room)


def divisors(number: int) -> list[int]:
    """In rising order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
