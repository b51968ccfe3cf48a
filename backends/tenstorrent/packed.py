"""Packed: the .tensorbin files of a program's constants, held against what our own packer makes of the same numbers."""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.exact.host import host_pack, host_pack_bf16
from backends.tenstorrent.exact.tiles import floats_to_bytes, tiles_to_bytes
from backends.tenstorrent.program import Constant

WEIGHTS = "weights"
SUFFIX = ".tensorbin"


class PackingError(RuntimeError):
    """Files that do not hold what was to be packed: the library packs otherwise than it did when it was measured."""


def packed_bytes(constant: Constant) -> NDArray[np.uint8]:
    """Bytes that ttnn's packer makes of a constant, by ours: tiles one after another, or rows.

    Raises:
        ValueError: a type that shares exponents in rows, or an unknown one.
    """
    values, fmt = constant.values, constant.file_dtype
    if constant.file_layout == "row_major":
        return _rows(values, fmt)
    whole = np.asarray(values, np.float32)
    matrices = whole.reshape(prod(whole.shape[:-2]), *((1, 1, *whole.shape)[-2:]))
    if fmt in ("bfp8_b", "bfp4_b"):
        parts = [tiles_to_bytes(*host_pack(matrix, fmt), fmt) for matrix in matrices]
    else:
        rounded = [host_pack_bf16(matrix) if fmt == "bf16" else matrix for matrix in matrices]
        parts = [floats_to_bytes(matrix, fmt) for matrix in rounded]
    return np.concatenate([part.reshape(-1) for part in parts])


def _rows(values: NDArray[Any], fmt: str) -> NDArray[np.uint8]:
    if fmt in ("uint32", "int32"):
        return np.ascontiguousarray(values, fmt).reshape(-1).view(np.uint8)
    floats = np.ascontiguousarray(values, np.float32).reshape(-1)
    if fmt == "fp32":
        return floats.view(np.uint8)
    if fmt == "bf16":
        return (host_pack_bf16(floats).view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    raise ValueError(f"rows hold fp32, bf16, uint32 or int32, got {fmt}; pack it in tiles")


def file_bytes(path: Path) -> NDArray[np.uint8]:
    """What a .tensorbin holds after its header (the header's length in 8 bytes, little-endian, and the header)."""
    content = path.read_bytes()
    return np.frombuffer(content, np.uint8, offset=8 + int.from_bytes(content[:8], "little"))


def check_packed(constants: Iterable[tuple[str, Constant]], folder: Path) -> int:
    """Hold every file of `folder` against our packer's bytes.

    Returns:
        How many bytes were compared, all of them alike.

    Raises:
        PackingError: naming each constant whose file is missing or holds other bytes.
    """
    compared, wrong = 0, []
    for name, constant in constants:
        path = folder / f"{name}{SUFFIX}"
        if not path.is_file():
            wrong.append(f"{name}: there is no {path.name}")
            continue
        got, wanted = file_bytes(path), packed_bytes(constant)
        if got.size != wanted.size:
            wrong.append(f"{name}: {got.size} bytes, and ours are {wanted.size}")
        elif (differing := int(np.count_nonzero(got != wanted))) > 0:
            wrong.append(f"{name}: {differing} of {wanted.size} bytes differ from ours")
        compared += wanted.size
    if wrong:
        raise PackingError(f"{folder}: {len(wrong)} files do not hold what was packed\n  " + "\n  ".join(wrong))
    return compared
