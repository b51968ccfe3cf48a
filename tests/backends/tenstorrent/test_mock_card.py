"""The card that is not there: its kernel, its compiler, its descriptors, and the folder that they are kept in."""

import ast
import importlib.util
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.exported import FOLDER

needs_ttnn = pytest.mark.tenstorrent


@pytest.fixture
def mock_card():
    """The file as an export has it: by path, of no package."""
    spec = importlib.util.spec_from_file_location("mock_card_of_an_export", FOLDER / "mock_card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(elf):
    """Name -> (type, address, content, link, entry size) of a 32-bit ELF file."""
    at, entry, count, names = struct.unpack_from("<I10xHHH", elf, 32)
    rows = [struct.unpack_from("<10I", elf, at + index * entry) for index in range(count)]
    text = elf[rows[names][4] :][: rows[names][5]]
    return {
        text[row[0] : text.index(b"\0", row[0])].decode(): (
            row[1],
            row[3],
            elf[row[4] : row[4] + row[5]],
            row[6],
            row[9],
        )
        for row in rows
    }


def test_the_idle_kernel_is_a_program_of_one_jump(mock_card):
    elf = mock_card.idle_kernel()
    assert len(elf) < 600
    assert elf[:7] == b"\x7fELF\x01\x01\x01"  # 32 bits, little-endian
    assert struct.unpack_from("<HH", elf, 16) == (2, 243)  # an executable of RISC-V
    held = sections(elf)
    _, start, text, _, _ = held[".text"]
    assert struct.unpack("<I", text) == (0x6F,)  # jal x0, 0
    assert struct.unpack_from("<I", elf, 24) == (start,)
    offset, info, addend = struct.unpack("<IIi", held[".rela.text"][2])
    assert (offset, info & 0xFF, addend) == (start, 17, 0)  # R_RISCV_JAL
    symbol = held[".symtab"][2][16 * (info >> 8) :][:16]
    assert struct.unpack_from("<I", symbol, 4) == (start,)


def test_segments_hold_code_and_data(mock_card):
    elf = mock_card.idle_kernel()
    at, count = struct.unpack_from("<I", elf, 28)[0], struct.unpack_from("<H", elf, 44)[0]
    loaded = [struct.unpack_from("<8I", elf, at + 32 * index) for index in range(count)]
    assert [(row[0], row[2], row[6]) for row in loaded] == [(1, 0x8000, 5), (1, 0xFFB00000, 6)]
    assert all(row[1] + row[4] <= len(elf) for row in loaded)


@pytest.mark.parametrize("card", CARDS)
def test_a_descriptor_names_one_board(mock_card, card):
    data = yaml.safe_load(mock_card.descriptor(card))
    assert data["arch"] == {0: {"wormhole": "wormhole_b0", "blackhole": "blackhole"}[CARDS[card].architecture]}
    assert data["boards"][0][1] == {"board_type": card.split("_")[1]}
    assert data["boards"][0][0]["board_id"] >> 36 == {"wormhole_n150": 0x18, "blackhole_p150": 0x41}[card]
    columns, rows = CARDS[card].grid
    # A bit a row of Wormhole's 8 x 10 cores, a bit a column of Blackhole's 14 x 10.
    off = data["harvesting"][0]["harvest_mask"].bit_count()
    assert (8, 10 - off) == (columns, rows) if card == "wormhole_n150" else (14 - off, 10) == (columns, rows)


def test_the_compiler_answers_and_makes_idle_kernels(mock_card, tmp_path):
    compiler = tmp_path / "riscv-tt-elf-g++"
    compiler.write_text(mock_card.COMPILER)
    compiler.chmod(0o755)
    (tmp_path / "idle.elf").write_bytes(mock_card.idle_kernel())

    def call(*arguments):
        return subprocess.run([compiler, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert "15.1.0" in call("--version")
    call("-DKERNEL_COMPILE_TIME_ARGS=14,1", "-c", "kernel.cpp", "-o", "kernel.o")
    assert "-DKERNEL_COMPILE_TIME_ARGS=14,1 -c" in (tmp_path / "kernel.o").read_text()
    assert (tmp_path / "kernel.d").read_text() == "kernel.o:\n"
    call("-x", "c++-header", "pch.h", "-o", "pch.h.gch")
    assert (tmp_path / "pch.h.gch").read_bytes() == b""
    call("kernel.o", "-o", "kernel.elf")
    assert (tmp_path / "kernel.elf").read_bytes() == mock_card.idle_kernel()


def test_it_needs_the_standard_library_only(mock_card):
    tree = ast.parse(Path(mock_card.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_card_that_there_is_not_is_refused(mock_card, tmp_path):
    with pytest.raises(mock_card.MockCardError, match="no mock card 'n300'; there are wormhole_n150, blackhole_p150"):
        mock_card.prepare("n300", tmp_path)


def test_a_real_card_is_not_to_be_shadowed(mock_card, tmp_path, monkeypatch):
    monkeypatch.setattr(mock_card, "REAL_CARDS", tmp_path)
    with pytest.raises(mock_card.MockCardError, match="kernels of a mock card do nothing"):
        mock_card.prepare("wormhole_n150", tmp_path)


def test_without_ttnn_it_says_how_to_get_it(mock_card, tmp_path, monkeypatch):
    monkeypatch.setattr(mock_card.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(mock_card, "REAL_CARDS", tmp_path / "none")
    with pytest.raises(mock_card.MockCardError, match="pip install ttnn"):
        mock_card.prepare("wormhole_n150", tmp_path)


def test_it_is_kept_in_the_users_cache(mock_card, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mock_card.default_folder() == tmp_path / "precision-search" / "mock-ttnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert mock_card.default_folder() == tmp_path / "home" / ".cache" / "precision-search" / "mock-ttnn"


@needs_ttnn
def test_what_is_prepared_is_found_again(mock_card, mock_folder, tmp_path):
    environment = mock_card.prepare("wormhole_n150", tmp_path)
    root = Path(environment["TT_METAL_RUNTIME_ROOT"])
    package = Path(importlib.util.find_spec("ttnn").origin).parent
    assert (root / "__init__.py").resolve() == (package / "__init__.py").resolve()
    assert (root / "runtime" / "hw").resolve() == (package / "runtime" / "hw").resolve()
    assert os.access(root / "runtime" / "sfpi" / "compiler" / "bin" / "riscv-tt-elf-g++", os.X_OK)
    assert Path(environment["TT_METAL_MOCK_CLUSTER_DESC_PATH"]).read_text() == mock_card.descriptor("wormhole_n150")
    made = (root / "runtime" / "sfpi").stat().st_mtime_ns
    other = mock_card.prepare("blackhole_p150", tmp_path)
    assert other["TT_METAL_RUNTIME_ROOT"] == environment["TT_METAL_RUNTIME_ROOT"]
    assert (root / "runtime" / "sfpi").stat().st_mtime_ns == made


@needs_ttnn
def test_the_installed_package_is_not_touched(mock_card, mock_folder, tmp_path):
    package = Path(importlib.util.find_spec("ttnn").origin).parent
    before = sorted(path.name for path in (package / "runtime").iterdir())
    root = Path(mock_card.prepare("wormhole_n150", tmp_path)["TT_METAL_RUNTIME_ROOT"])
    assert not (root / "runtime").is_symlink()
    assert sorted(path.name for path in (package / "runtime").iterdir()) == before


@needs_ttnn
def test_many_may_prepare_at_once(mock_card, mock_folder, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: mock_card.prepare("wormhole_n150", tmp_path / "shared"), range(16)))
    assert all(environment == made[0] for environment in made)
    assert len(list((tmp_path / "shared").iterdir())) == 1  # no drafts are left
