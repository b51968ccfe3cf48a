import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from backends.tenstorrent.verify.command import build_parser, main
from backends.tenstorrent.verify.vectors import Vectors

GOLDEN = Path(__file__).parents[2] / "golden" / "tensix"
FULL = Path(__file__).parents[4] / "shared" / "numerics"


def load(name):
    with np.load(GOLDEN / name) as file:
        return {key: file[key] for key in file.files}


def is_input(key):
    return key.endswith(("_raw", "_in", "__srca", "__srcb", "__dst")) or key in {
        "in",
        "dst",
        "dists",
        "prior16",
        "prior32",
        "bfp8_bytes",
        "bfp4_bytes",
    }


def flip(array, index, bit):
    flipped = array.copy()
    flipped.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize])[index] ^= bit
    return flipped


def run(folder, capsys, *options):
    code = main([str(folder), *options])
    return code, capsys.readouterr()


def test_every_golden_array_is_exact(capsys):
    code, said = run(GOLDEN, capsys)
    last = said.out.splitlines()[-1].split()
    assert (code, last[:2]) == (0, ["in", "all:"]), said.out
    assert last[2] == last[4]
    assert int(last[4]) > 700
    assert len(said.out.splitlines()) == 1 + len(list(GOLDEN.rglob("*.npz")))


def test_every_array_of_the_full_vectors_is_exact(capsys):
    if not FULL.is_dir():
        pytest.skip("no full vectors: ../shared/numerics is not there")
    code, said = run(FULL, capsys)
    assert code == 0, said.out
    assert int(said.out.splitlines()[-1].split()[2]) > 3000


CORRUPTED = [
    ("steps.npz", "elwmul__p1__dst16__out_wh", (7,)),
    ("packer.npz", "dst32__bfp4_precise_bytes", (2, 100)),
    ("packer.npz", "dst16__bfp8_regs", (1, 3, 4)),
    ("packer_l1acc.npz", "dst16__bf16", (0, 31, 31)),
    ("unpacker.npz", "bfp8_table", (130, 3)),
    ("host.npz", "fp32__bfp4_value", (5, 0, 9)),
    ("matmul_32x256x32.npz", "neg1__C__tf32_tf32__HiFi4__dst32__bh", (3, 17)),
    ("matmul_32x32x32.npz", "special__A_bfp8_bytes", (0, 63)),
    ("eltwise.npz", "B_tf32", (1, 0, 0)),
    ("eltwise.npz", "C__sub__bf16_bfp8__LoFi__dst16__wh", (1, 30, 2)),
    ("ops/matmul_32x64x32_wh.npz", "normal__C__bfp8_bfp8__LoFi__dst32__noacc__out_bf16__nobias", (31, 0)),
    ("ops/eltwise_bh.npz", "wide__C__mul__bf16_bfp8__out_bf16", (0, 1)),
    ("ops/conv1dh_wh.npz", "y__w_bfp8__dil3__LoFi__dst16__l1acc__bias", (255, 15)),
]


@pytest.mark.parametrize(("name", "key", "index"), CORRUPTED, ids=[key for _, key, _ in CORRUPTED])
def test_a_single_wrong_bit_is_found_and_shown(name, key, index, tmp_path, capsys):
    arrays = load(name)
    given = {other: value for other, value in arrays.items() if is_input(other)}
    path = tmp_path / Path(name).name
    wanted = flip(arrays[key], index, 1 << 3)
    np.savez(path, **given, **{key: wanted})
    for configs in (GOLDEN / "ops").glob("configs_*.json"):
        shutil.copy(configs, tmp_path)
    code, said = run(tmp_path, capsys)
    line = next(line for line in said.out.splitlines() if line.startswith("  differs"))
    assert code == 1
    assert f"{key} " in line
    assert str(list(index)) in line
    assert f"; 1 of {wanted.size} values differ" in line
    digits = 2 * wanted.dtype.itemsize
    pattern = wanted.view(f"u{wanted.dtype.itemsize}")[index]
    assert f"wanted {int(pattern):#0{digits + 2}x}" in line
    assert f"got {int(pattern) ^ 8:#0{digits + 2}x}" in line
    assert said.out.splitlines()[-1].startswith("in all: 0 of 1 arrays exact")


def test_a_folder_that_is_not_there_or_empty_is_bad_input(tmp_path, capsys):
    code, said = run(tmp_path / "nowhere", capsys)
    assert code == 2
    assert "nowhere: no such folder" in said.err
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "no .npz" in said.err


def test_what_is_not_recognised_is_named_and_the_rest_still_checked(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3), names=np.zeros(2))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    shutil.copy(GOLDEN / "packer_l1acc.npz", tmp_path)
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "other.npz: not checked, no layout of --help has any of its arrays: weights, names" in said.out
    assert "broken.npz: cannot be read" in said.out
    assert "single.npz: cannot be read: it is a single array" in said.out
    assert "packer_l1acc.npz: 4 of 4 arrays exact" in said.out
    assert "in 1 of 4 files" in said.out


def test_an_array_that_the_layout_lacks_is_named_and_not_counted_as_exact(tmp_path, capsys):
    arrays = load("packer_l1acc.npz")
    np.savez(tmp_path / "packer_l1acc.npz", **arrays, extra=np.zeros(3))
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "4 of 5 arrays exact" in said.out
    assert "not checked: extra: the layout has no array of that name" in said.out


def test_a_difference_weighs_more_than_what_could_not_be_checked(tmp_path, capsys):
    arrays = load("packer_l1acc.npz")
    arrays["dst32__fp32"] = flip(arrays["dst32__fp32"], (0, 0, 0), 1)
    np.savez(tmp_path / "packer_l1acc.npz", **arrays, extra=np.zeros(3))
    assert run(tmp_path, capsys)[0] == 1


def test_missing_inputs_and_wrong_types_are_said(tmp_path, capsys):
    arrays = load("packer_l1acc.npz")
    del arrays["prior16"]
    arrays["dst32__fp32"] = arrays["dst32__fp32"].astype(np.float64)
    np.savez(tmp_path / "packer_l1acc.npz", **arrays)
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "not checked: dst16__bf16: needs prior16, which the file lacks" in said.out
    assert "not checked: dst32__fp32: is float64 [3, 32, 32]; the layout has float32 [3, 32, 32]" in said.out


KEY = "normal__C__bfp8_bfp8__LoFi__dst16__l1acc__out_bf16__nobias"


def test_blocks_of_k_come_from_the_name_or_the_configurations(tmp_path, capsys):
    arrays = load("ops/matmul_32x256x32_wh.npz")
    given = {key: arrays[key] for key in arrays if key.endswith("_raw")}
    path = tmp_path / "mine_wh.npz"
    np.savez(path, **given, **{KEY: arrays[KEY]})
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "in0_block_w that ttnn chose is not known" in said.out
    entry = {f"32x256x32__{KEY.split('__C__')[1]}": {"args": {"in0_block_w": 1}}}
    (tmp_path / "configs_wh_mm.json").write_text(json.dumps(entry))
    assert run(tmp_path, capsys)[0] == 0
    (tmp_path / "configs_wh_mm.json").write_text("[")
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "configs_wh_mm.json is not JSON" in said.out
    (tmp_path / "configs_wh_mm.json").unlink()
    np.savez(path, **given, **{f"{KEY}__w1": arrays[KEY]})
    assert run(tmp_path, capsys)[0] == 0
    np.savez(path, **given, **{f"{KEY}__w4": arrays[KEY]})
    assert run(tmp_path, capsys)[0] == 1


def test_a_whole_operation_needs_its_chip_in_the_name_of_the_file(tmp_path, capsys):
    arrays = load("ops/matmul_32x256x32_wh.npz")
    np.savez(tmp_path / "mine.npz", **{key: arrays[key] for key in arrays if key.endswith("_raw") or key == KEY})
    code, said = run(tmp_path, capsys)
    assert code == 2
    assert "name the file mine_wh.npz or mine_bh.npz" in said.out


def test_wormhole_alone_stands_for_blackhole_unless_one_chip_was_recorded(tmp_path, capsys):
    key = "neg1__C__bf16_bf16__HiFi4__dst32__wh"
    arrays = load("matmul_32x256x32.npz")
    assert not np.array_equal(arrays[key], arrays[key[:-2] + "bh"])
    np.savez(
        tmp_path / "mine.npz",
        neg1__A_raw=arrays["neg1__A_raw"],
        neg1__B_raw=arrays["neg1__B_raw"],
        **{key: arrays[key]},
    )
    code, said = run(tmp_path, capsys)
    assert code == 1
    assert f"{key} on Blackhole" in said.out
    assert run(tmp_path, capsys, "--one-chip")[0] == 0


def test_the_help_names_every_kind_of_file(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    said = capsys.readouterr().out
    for word in ("srca,srcb", "prior32", "_regs19", "bf16src", "_CHIP", "y__w_FMT", "--one-chip", "ttnn.from_torch"):
        assert word in said


def test_patterns_keep_their_bits(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([0x7F80], np.uint16), b=np.array([0x80000001], np.uint32))
    with Vectors(tmp_path / "x.npz") as vectors:
        assert vectors.floats("a").view(np.uint32).tolist() == [0x7F800000]
        assert vectors.floats("b").view(np.uint32).tolist() == [0x80000001]
