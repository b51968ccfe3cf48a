"""A Tenstorrent card that is not there: what ttnn needs to plan a program, and to pack weights, without hardware.

ttnn opens a card that a file describes, checks every operation, lays out its buffers, and hands its kernels to a
compiler. Here that compiler is a script which writes an idle kernel for each: nothing computes, and what is read back
from such a card means nothing. The environment of Python is not touched: ttnn is given a folder of links to itself,
in which the compiler stands.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import struct
import tempfile
from pathlib import Path

CARDS = {
    # The mask switches off what a real card has not free: two of ten rows of cores on n150 (one is faulty or held back,
    # one dispatches), one of fourteen columns on p150. A number of the board has its kind in the bits from 36 on.
    "wormhole_n150": ("wormhole_b0", "n150", 0x18, {"harvest_mask": 0b11}),
    "blackhole_p150": (
        "blackhole",
        "p150",
        0x41,
        {"harvest_mask": 0b1, "eth_harvesting_mask": 0x120, "pcie_harvesting_mask": 0b10},
    ),
}
"""Architecture, board, kind and units switched off, by name. ttnn sees 8 x 8 and 13 x 10 cores, as with dispatch."""
REAL_CARDS = Path("/dev/tenstorrent")
COMPILER = """#!/bin/sh
# Stands where ttnn looks for the compiler of its kernels. Whatever is linked becomes the idle kernel beside this file;
# an object is the command that asked for it, in which a kernel's constants can be read.
idle=$(dirname "$0")/idle.elf
command=$*
result=
stage=link
while [ $# -gt 0 ]; do
  case $1 in
    --version | -dumpversion) echo "riscv-tt-elf-g++ (stand-in of mock_card.py) 15.1.0"; exit 0 ;;
    -o) shift; result=$1 ;;
    -c) stage=object ;;
    c++-header) stage=header ;;
  esac
  shift
done
case $stage in
  link) exec cp "$idle" "$result" ;;
  object) echo "$result:" > "${result%.o}.d"; echo "$command" > "$result" ;;
  header) : > "$result" ;;
esac
"""


class MockCardError(RuntimeError):
    """A mock card can't be had; the message says why and what to do."""


def default_folder() -> Path:
    """Where mock cards are kept, for all programs of a user: `precision-search/mock-ttnn` in the cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "precision-search" / "mock-ttnn"


def prepare(card: str, folder: Path | None = None, *, even_with_card: bool = False) -> dict[str, str]:
    """Make what a mock card needs, once for each version of ttnn; a later call, of any process, finds it.

    Args:
        card: A key of CARDS.
        folder: Where to keep it; None is `default_folder()`.
        even_with_card: Whether to go on where a real card is present.

    Returns:
        Environment variables, to be set before ttnn is imported. One process opens one kind of card.

    Raises:
        MockCardError: there is no such card, ttnn is not installed, or a real card is present.
    """
    if card not in CARDS:
        raise MockCardError(f"no mock card {card!r}; there are {', '.join(CARDS)}")
    if REAL_CARDS.exists() and not even_with_card:
        raise MockCardError(
            f"a Tenstorrent card is present ({REAL_CARDS}): kernels of a mock card do nothing, and a program that took "
            "one of them for its own would hang or give noise; run on the card, plan on a machine without one, or pass "
            "even_with_card=True (--even-with-card)"
        )
    home = _home((folder or default_folder()).absolute())
    return {
        "TT_METAL_RUNTIME_ROOT": str(home / "ttnn"),
        "TT_METAL_MOCK_CLUSTER_DESC_PATH": str(home / f"{card}.yaml"),
        "TT_METAL_CACHE": str(home / "kernels"),
        "TT_METAL_SLOW_DISPATCH_MODE": "1",  # a mock card has no queue of commands
    }


def _home(folder: Path) -> Path:
    """The folder of the installed ttnn's mock cards, made where it is not there yet."""
    spec = importlib.util.find_spec("ttnn")
    if spec is None or spec.origin is None:
        raise MockCardError("ttnn is not installed; pip install ttnn==0.81.1 (CPython 3.10 or 3.12, x86-64 Linux)")
    package = Path(spec.origin).parent
    # Another installation, or another text of this file, is another mock card.
    digest = hashlib.sha256(str(package).encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    home = folder / f"{importlib.metadata.version('ttnn')}-{digest}"
    if home.is_dir():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder, prefix="draft-"))
    try:
        _write(draft, package)
        draft.rename(home)
    except OSError:
        if not home.is_dir():  # or another process was first, and theirs is the same
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return home


def _write(home: Path, package: Path) -> None:
    """All that a mock card consists of: links to the package, the stand-in compiler, the cards' descriptors."""
    _link(package, home / "ttnn", but={"runtime", "__pycache__"})
    _link(package / "runtime", home / "ttnn" / "runtime", but={"sfpi"})
    tools = home / "ttnn" / "runtime" / "sfpi" / "compiler" / "bin"
    tools.mkdir(parents=True)
    compiler = tools / "riscv-tt-elf-g++"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    (tools / "idle.elf").write_bytes(idle_kernel())
    (home / "kernels").mkdir()
    for card in CARDS:
        (home / f"{card}.yaml").write_text(descriptor(card))


def _link(source: Path, folder: Path, but: set[str]) -> None:
    folder.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in but:
            (folder / entry.name).symlink_to(entry)


def descriptor(card: str) -> str:
    """Text of the cluster descriptor of one card, for TT_METAL_MOCK_CLUSTER_DESC_PATH."""
    architecture, board, kind, masks = CARDS[card]
    units = ("harvest_mask", "dram_harvesting_mask", "eth_harvesting_mask", "pcie_harvesting_mask")
    lines = [f"    {unit}: {masks.get(unit, 0)}" for unit in (*units, "l2cpu_harvesting_mask")]
    return "\n".join(
        [
            f"# One {board} that does not exist: written by mock_card.py, read by ttnn.",
            f"arch: {{0: {architecture}}}",
            "chips_with_mmio: [{0: 0}]",
            "ethernet_connections: []",
            "harvesting:",
            "  0:",
            "    noc_translation: true",
            *lines,
            "boards:",
            f"  - [{{board_id: {kind << 36:#x}}}, {{board_type: {board}}}, {{chips: [0]}}]",
            "",
        ]
    )


def idle_kernel() -> bytes:
    """The smallest program for a core that ttnn's loader takes: one jump to itself.

    The loader (tt_elffile.cpp) asks for an executable of 32-bit RISC-V with a segment of code and one of data, sections
    and symbols by name, and relocations of the code, by which it moves a kernel; so the jump has one.
    """
    code, data, header, segment = 0x8000, 0xFFB00000, 52, 32
    text = struct.pack("<I", 0x6F)  # jal x0, 0
    names = b"\0.text\0.data\0.symtab\0.strtab\0.rela.text\0.shstrtab\0"
    symbol_names = b"\0idle\0_start\0"
    symbols = (
        bytes(16)
        + struct.pack("<IIIBBH", symbol_names.index(b"idle"), code, 0, 0, 0, 1)
        + struct.pack("<IIIBBH", symbol_names.index(b"_start"), code, 4, 0x12, 0, 1)  # a global function
    )
    relocation = struct.pack("<IIi", code, 1 << 8 | 17, 0)  # R_RISCV_JAL against symbol 1
    # Each section: name, type, flags, address, content, link, information, alignment, size of an entry.
    sections = [
        (b".text", 1, 0x6, code, text, 0, 0, 4, 0),
        (b".data", 1, 0x3, data, bytes(4), 0, 0, 4, 0),
        (b".symtab", 2, 0, 0, symbols, 4, 2, 4, 16),
        (b".strtab", 3, 0, 0, symbol_names, 0, 0, 1, 0),
        (b".rela.text", 4, 0x40, 0, relocation, 3, 1, 4, 12),
        (b".shstrtab", 3, 0, 0, names, 0, 0, 1, 0),
    ]
    body, table = b"", bytes(40)
    for name, kind, flags, address, content, link, info, alignment, entry in sections:
        offset = header + 2 * segment + len(body)
        body += content + bytes(-len(content) % 4)
        at = names.index(b"\0" + name + b"\0") + 1
        table += struct.pack("<10I", at, kind, flags, address, offset, len(content), link, info, alignment, entry)
    start = header + 2 * segment
    segments = struct.pack("<8I", 1, start, code, code, 4, 4, 5, 4)  # loaded: read, execute
    segments += struct.pack("<8I", 1, start + 4, data, code + 4, 4, 4, 6, 4)  # loaded: read, write
    fields = (2, 0xF3, 1, code, header, start + len(body), 0, header, segment, 2, 40, len(sections) + 1, len(sections))
    return b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", *fields) + segments + body + table
