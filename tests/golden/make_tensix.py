"""Make tests/golden/tensix again: `python tests/golden/make_tensix.py VECTORS`.

VECTORS is the folder of the full vectors, recorded from ttsim and ttnn (tensix/README.md says what they are). Nothing
is computed here: arrays are left out, and others cut to some tiles, rows or columns, which do not depend on the rest.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent / "tensix"
Arrays = dict[str, npt.NDArray[Any]]
EVERY = 16
"""One in so many single steps is kept."""


def steps(full: Mapping[str, Any]) -> Arrays:
    """Some of the single steps: all kinds of fuzz follow each other in the file."""
    return {key: full[key][::EVERY] for key in full}


def tiles(full: Mapping[str, Any], kept: list[int]) -> Arrays:
    """Some tiles of everything but the exhaustive tables."""
    return {key: full[key] if key.endswith("_table") else full[key][kept] for key in full}


def matmul(full: Mapping[str, Any], pattern: str) -> Arrays:
    """Arrays of some distributions, and the operands that they need."""
    return {key: full[key] for key in full if re.fullmatch(pattern, key)}


def linear(full: Mapping[str, Any], dists: str, rows: int, columns: int) -> Arrays:
    """Some rows of A, columns of B (in whole blocks of 16) and of the results."""
    cut: Arrays = {}
    for key in full:
        if re.match(rf"({dists})__", key):
            name = key.split("__", 1)[1]
            part = (slice(rows), slice(None)) if name == "A_raw" else (slice(None), slice(columns))
            cut[key] = full[key][part][:rows] if name.startswith("C__") else full[key][part]
    return cut


def binary(full: Mapping[str, Any], rows: int, columns: int) -> Arrays:
    """A corner of everything."""
    return {key: full[key][:rows, :columns] for key in full}


def conv1d(full: Mapping[str, Any], channels: int) -> Arrays:
    """Some output channels, in whole blocks of 16."""
    cuts = {"x_raw": (...,), "w_raw": (slice(channels),)}
    return {key: full[key][cuts.get(key, (..., slice(channels)))] for key in full}


def subset(source: Path) -> Iterator[tuple[str, Arrays]]:
    """Name and arrays of each file."""

    def load(name: str) -> Mapping[str, Any]:
        with np.load(source / name) as full:
            return {key: full[key] for key in full.files}

    yield "steps.npz", steps(load("steps.npz"))
    for name, kept in {
        "packer.npz": [0, 3, 7, 12, 18, 23],
        "packer_l1acc.npz": [0, 3, 6],
        "unpacker.npz": [0, 5],
        "host.npz": [2, 4, 5, 6, 7, 20],
    }.items():
        yield name, tiles(load(name), kept)
    yield "eltwise.npz", tiles(load("eltwise.npz"), [5, 9])  # tiny and special
    yield "matmul_32x32x32.npz", matmul(load("matmul_32x32x32.npz"), "(normal|special|tinycancel)__.+")
    # Wormhole and Blackhole differ where a result is minus one unit.
    yield (
        "matmul_32x256x32.npz",
        matmul(load("matmul_32x256x32.npz"), r"neg1__([AB]_raw|C__(bf16_bf16|tf32_tf32)__.+dst32__(wh|bh))"),
    )
    for chip in ("wh", "bh"):
        small, blocks, long = f"matmul_32x64x32_{chip}", f"matmul_64x256x96_{chip}", f"matmul_128x512x128_{chip}"
        yield f"ops/{small}.npz", linear(load(f"ops/{small}.npz"), "normal", 32, 32)
        yield f"ops/matmul_32x256x32_{chip}.npz", linear(load(f"ops/{blocks}.npz"), "normal", 32, 32)
        yield f"ops/matmul_32x512x16_{chip}.npz", linear(load(f"ops/{long}.npz"), "normal", 32, 16)
        yield f"ops/matmulx_32x256x32_{chip}.npz", linear(load(f"ops/matmulx_64x256x96_{chip}.npz"), "normal", 32, 32)
        yield f"ops/eltwise_{chip}.npz", binary(load(f"ops/eltwise_{chip}.npz"), 32, 32)
        for kind in ("conv1d", "conv1dh"):
            yield f"ops/{kind}_{chip}.npz", conv1d(load(f"ops/{kind}_{chip}.npz"), 16)


def configs(source: Path, chip: str, kind: str) -> dict[str, Any]:
    """Blocks of K that ttnn chose, under the names of the files that were cut."""
    names = {
        "32x64x32__": "32x64x32__",
        "64x256x96__": "32x256x32__",
        "x64x256x96__": "x32x256x32__",
        "128x512x128__": "32x512x16__",
    }
    full = json.loads((source / "ops" / f"configs_{chip}_{kind}.json").read_text())
    kept = {}
    for key, entry in full.items():
        shape, rest = key.split("__", 1)
        args = {name: entry["args"][name] for name in ("in0_block_w", "num_blocks_inner_dim")}
        kept[names[shape + "__"] + rest] = {"args": args}
    return kept


def main() -> None:
    """Write every file."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "ops").is_dir():
        sys.exit("usage: python tests/golden/make_tensix.py VECTORS, the folder with steps.npz and ops/")
    source = Path(sys.argv[1])
    (FOLDER / "ops").mkdir(parents=True, exist_ok=True)
    for name, arrays in subset(source):
        np.savez_compressed(FOLDER / name, **arrays)
    for chip in ("wh", "bh"):
        for kind in ("mm", "mmx"):
            text = json.dumps(configs(source, chip, kind)).replace("}}, ", "}},\n")
            (FOLDER / "ops" / f"configs_{chip}_{kind}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
