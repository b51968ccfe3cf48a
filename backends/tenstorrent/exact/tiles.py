"""Tiles as they lie in the card's memory: 32x32 values in four 16x16 faces, and blocks of 16 that share an exponent.

A tensor [R, C] is a row-major list of tiles; the faces of one follow each other as rows 0-15/columns 0-15, rows
0-15/columns 16-31, rows 16-31/columns 0-15, rows 16-31/columns 16-31, each row-major. Source: tenstorrent/ttsim v1.10.0
and the ttnn 0.81.1 wheel, measured.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.shards import TILE
from precision.blocks import BLOCK_FORMATS

BLOCK = 16
"""Neighbours along the last axis that share an exponent."""
_BFP_FORMATS = ("bfp8_b", "bfp4_b")
_EXPONENTS = TILE * TILE // BLOCK

_Value = TypeVar("_Value", bound=np.generic)


def magnitude_bits(fmt: str) -> int:
    """Bits of a code below its sign: 7 for bfp8_b, 3 for bfp4_b.

    Raises:
        ValueError: another format.
    """
    width = BLOCK_FORMATS[fmt].element if fmt in _BFP_FORMATS else None
    if not isinstance(width, int):
        raise ValueError(f"a packed tile is one of {', '.join(_BFP_FORMATS)}, got {fmt!r}")
    return width


def count_blocks(length: int) -> int:
    """Blocks that `length` neighbours take, the last one perhaps short."""
    return -(-length // BLOCK)


def to_blocks(values: NDArray[_Value]) -> NDArray[_Value]:
    """Cut the last axis into blocks: [blocks, 16], a short last one of each row filled up with zeros.

    A view where the axis is a multiple of 16, else a copy.

    Raises:
        ValueError: values have no axis.
    """
    if values.ndim == 0:
        raise ValueError("blocks of 16 need an axis to lie along, got a single number; give an array")
    length = values.shape[-1]
    missing = count_blocks(length) * BLOCK - length
    if missing:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(values).reshape(-1, BLOCK)


def from_blocks(blocks: NDArray[_Value], shape: tuple[int, ...]) -> NDArray[_Value]:
    """Undo `to_blocks` for an array of `shape`."""
    rows = blocks.reshape(*shape[:-1], count_blocks(shape[-1]) * BLOCK)
    return np.ascontiguousarray(rows[..., : shape[-1]])


def to_faces(values: NDArray[_Value]) -> NDArray[_Value]:
    """Lay [R, C] out as tiles [tiles, 1024], each in the order of its faces; zeros fill up the last ones.

    Raises:
        ValueError: values are not a matrix.
    """
    if values.ndim != 2:
        raise ValueError(f"tiles are cut from a matrix, got an array of shape {values.shape}; reshape it to [R, C]")
    return _cut(values, TILE // 2)


def from_faces(tiles: NDArray[_Value], shape: tuple[int, int]) -> NDArray[_Value]:
    """Undo `to_faces`: [tiles, 1024] in the order of their faces to a matrix of `shape`.

    Raises:
        ValueError: another number of tiles than the shape takes.
    """
    return _join(tiles, shape, TILE // 2)


def tiles_to_bytes(exponents: NDArray[np.uint8], codes: NDArray[np.uint8], fmt: str) -> NDArray[np.uint8]:
    """Lay packed values out as the card stores them: 64 exponents, then 1024 codes.

    Args:
        exponents: of the blocks, [R, ceil(C / 16)].
        codes: sign above the magnitude, [R, C]; two bfp4_b codes make a byte, the first in the low half.
        fmt: bfp8_b (1088 bytes a tile) or bfp4_b (576).

    Returns:
        [tiles, bytes of a tile]; zeros fill up the last tiles.

    Raises:
        ValueError: another format, no matrix, or exponents that are not those of the codes.
    """
    width = magnitude_bits(fmt)
    body = to_faces(codes)
    wanted = (codes.shape[0], count_blocks(codes.shape[1]))
    if exponents.shape != wanted:
        raise ValueError(f"codes {codes.shape} go with exponents {wanted}, got {exponents.shape}")
    if width == 3:
        body = np.bitwise_or(body[:, 0::2], body[:, 1::2] << 4, dtype=np.uint8)
    return np.concatenate([_cut(exponents, 1), body], axis=1)


def bytes_to_tiles(
    data: NDArray[np.uint8], fmt: str, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Undo `tiles_to_bytes`: exponents [R, ceil(C / 16)] and codes of `shape` [R, C].

    Raises:
        ValueError: another format, or another number of bytes than the shape takes.
    """
    width = magnitude_bits(fmt)
    size = _EXPONENTS + TILE * TILE * (width + 1) // 8
    if data.ndim != 2 or data.shape[1] != size:
        raise ValueError(f"tiles of {fmt} are an array [tiles, {size}], got {data.shape}")
    head, body = data[:, :_EXPONENTS], data[:, _EXPONENTS:]
    if width == 3:
        body = np.stack([body & 15, body >> 4], axis=-1).reshape(len(data), -1)
    return _join(head, (shape[0], count_blocks(shape[1])), 1), from_faces(body, shape)


def floats_to_bytes(values: NDArray[np.float32], fmt: str) -> NDArray[np.uint8]:
    """Lay [R, C] out as the card stores fp32 (4096 bytes a tile) or bf16 (2048, the upper half of the bits kept).

    Raises:
        ValueError: another format, or no matrix.
    """
    patterns = to_faces(np.asarray(values, np.float32)).view(np.uint32)
    if _float_type(fmt) == "<u2":
        return (patterns >> 16).astype("<u2").view(np.uint8)
    return patterns.astype("<u4").view(np.uint8)


def bytes_to_floats(data: NDArray[np.uint8], fmt: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Undo `floats_to_bytes`: values of `shape` [R, C].

    Raises:
        ValueError: another format, or another number of bytes than the shape takes.
    """
    stored = np.ascontiguousarray(data).view(_float_type(fmt)).astype(np.uint32)
    if stored.ndim != 2 or stored.shape[1] != TILE * TILE:
        raise ValueError(f"tiles of {fmt} are an array [tiles, bytes of a tile], got {data.shape}")
    return from_faces((stored << 16 if fmt == "bf16" else stored).view(np.float32), shape)


def _float_type(fmt: str) -> str:
    if fmt not in ("fp32", "bf16"):
        raise ValueError(f"a tile of floats is fp32 or bf16, got {fmt!r}")
    return "<u4" if fmt == "fp32" else "<u2"


def _cut(values: NDArray[_Value], face_columns: int) -> NDArray[_Value]:
    """Cut [R, C] into tiles of 32 rows and two faces' columns: [tiles, what a tile holds]."""
    rows, columns = (count_tiles(size, step) for size, step in zip(values.shape, (TILE, 2 * face_columns), strict=True))
    padded = np.zeros((rows * TILE, columns * 2 * face_columns), values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    faces = padded.reshape(rows, 2, TILE // 2, columns, 2, face_columns).transpose(0, 3, 1, 4, 2, 5)
    return faces.reshape(rows * columns, -1)


def _join(tiles: NDArray[Any], shape: tuple[int, int], face_columns: int) -> NDArray[Any]:
    rows, columns = (count_tiles(size, step) for size, step in zip(shape, (TILE, 2 * face_columns), strict=True))
    wanted = (rows * columns, TILE * 2 * face_columns)
    if tiles.shape != wanted:
        raise ValueError(f"an array {shape} takes {wanted[0]} tiles of {wanted[1]}, got {tiles.shape}")
    faces = tiles.reshape(rows, columns, 2, 2, TILE // 2, face_columns).transpose(0, 2, 4, 1, 3, 5)
    whole = faces.reshape(rows * TILE, columns * 2 * face_columns)
    return np.ascontiguousarray(whole[: shape[0], : shape[1]])


def count_tiles(length: int, step: int = TILE) -> int:
    """Tiles that `length` rows or columns take, the last one perhaps not full."""
    return -(-length // step)
