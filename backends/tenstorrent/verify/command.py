"""The command: walk a folder, check every file of vectors in it, say what differs."""

import argparse
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from backends.tenstorrent.verify import products, units, whole
from backends.tenstorrent.verify.report import FileReport, check
from backends.tenstorrent.verify.vectors import Layout, Vectors

EXACT, DIFFERENT, BAD_INPUT = 0, 1, 2
LAYOUTS: tuple[Layout, ...] = (
    units.STEPS,
    units.PACKER,
    units.PACKER_L1ACC,
    units.UNPACKER,
    units.HOST,
    products.MATMUL,
    products.ELTWISE,
    whole.LINEAR,
    whole.BINARY,
    whole.CONV1D,
)
_WORDS = """  DIST is any word. IN0, IN1, FMT: bf16, bfp8, bfp4, fp32; of matmul and eltwise, in place of fp32,
  tf32 (fp32 read as tf32) and fp32tr (fp32 truncated to bf16). FIDELITY: LoFi, HiFi2, HiFi3, HiFi4. DST: dst16 (sums in
  bf16) or dst32. Results are compared by their bits; bytes are tiles [tiles, bytes of a tile]."""
_RECORD = """recording vectors from your own card:
  Run the operation on known float32 inputs, with every field of the compute kernel config set (math_fidelity,
  math_approx_mode=False, fp32_dest_acc_en: dst32, packer_l1_acc: l1acc) and a program config that gives in0_block_w,
  and write inputs and results under the names above:
    a = ttnn.from_torch(A, dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device)   # and b of B
    c = ttnn.to_torch(ttnn.linear(a, b, dtype=ttnn.bfloat16, compute_kernel_config=..., program_config=...)).float()
    arrays = {"mine__A_raw": A, "mine__B_raw": B, "mine__C__bfp8_bfp8__HiFi2__dst32__l1acc__out_bf16__nobias__w2": c}
    np.savez_compressed("matmul_mine_bh.npz", **{name: np.asarray(array) for name, array in arrays.items()})
  Give --one-chip where only one card was recorded.
exit codes: 0 every array exact, 1 one or more differ, 2 there was something that could not be checked"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    layouts = "\n".join(f"  {layout.name}\n    {layout.holds}" for layout in LAYOUTS)
    parser = argparse.ArgumentParser(
        prog="python -m backends.tenstorrent.verify",
        description="Compare recorded Tensix vectors with the exact arithmetic, every array, bit for bit.",
        epilog=f"layouts, told by the names of the arrays in a file:\n{layouts}\n{_WORDS}\n\n{_RECORD}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="every .npz in it and below is checked")
    parser.add_argument(
        "--one-chip",
        action="store_true",
        help="an array of Wormhole (wh) with none of Blackhole (bh) beside it does not hold for both",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder; what was found goes to stdout, progress and complaints to stderr.

    Returns:
        The exit code: 0 every array exact, 1 one or more differ, 2 something could not be checked.
    """
    options = build_parser().parse_args(arguments)
    folder: Path = options.directory
    if not folder.is_dir():
        print(f"{folder}: no such folder; give one with .npz files of vectors (see --help)", file=sys.stderr)
        return BAD_INPUT
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        print(f"{folder}: no .npz in it or below; see --help for what such files hold", file=sys.stderr)
        return BAD_INPUT
    reports: list[FileReport] = []
    unrecognised = False
    for index, path in enumerate(paths):
        name = str(path.relative_to(folder))
        _progress(f"[{index + 1}/{len(paths)}] {name}")
        report = _check_file(path, one_chip=options.one_chip)
        _progress("")
        if isinstance(report, str):
            unrecognised = True
            print(f"{name}: {report}", flush=True)
            continue
        reports.append(report)
        print(f"{name}: {report.exact} of {report.arrays} arrays exact", flush=True)
        for line in report.differing:
            print(f"  differs: {line}")
        for line in report.unchecked:
            print(f"  not checked: {line}")
    exact, arrays = sum(report.exact for report in reports), sum(report.arrays for report in reports)
    print(f"in all: {exact} of {arrays} arrays exact, in {len(reports)} of {len(paths)} files")
    if any(report.differing for report in reports):
        return DIFFERENT
    return BAD_INPUT if unrecognised or any(report.unchecked for report in reports) else EXACT


def recognise(vectors: Vectors) -> Layout | None:
    """Tell a file's layout by the names of its arrays; None where no layout has any of them."""
    return next((layout for layout in LAYOUTS if any(layout.marks.fullmatch(key) for key in vectors)), None)


def _check_file(path: Path, *, one_chip: bool) -> FileReport | str:
    try:
        with Vectors(path, one_chip=one_chip) as vectors:
            layout = recognise(vectors)
            if layout is not None:
                return check(vectors, layout)
            return f"not checked, no layout of --help has any of its arrays: {', '.join(vectors) or 'it is empty'}"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return f"cannot be read: {error}; none of its arrays is checked"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
