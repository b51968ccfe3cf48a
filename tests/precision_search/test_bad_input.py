"""Bad input: one clear message, exit code 2, and nothing written."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from precision_search.main import main
from voice.hifigan import HifiganVoice


@pytest.fixture
def refused(tiny, tmp_path, capsys):
    """Run the tiny recipe with overrides; give the message, after seeing that nothing was written."""

    def run(*overrides: str, recipe: Path | None = None) -> str:
        out = tmp_path / "study"
        arguments = ["run", str(recipe or tiny.recipe), "--out", str(out), "--workers", "1"]
        for override in overrides:
            arguments += ["--set", override]
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        said = capsys.readouterr()
        assert exit_.value.code == 2
        assert said.out == ""
        assert not out.exists(), "a refused run must leave nothing behind"
        assert "Traceback" not in said.err
        return said.err

    return run


def test_five_mistakes_of_a_recipe_are_named_in_one_message(tiny, tmp_path, refused):
    recipe = tmp_path / "five.yaml"
    text = tiny.recipe.read_text()
    text = text.replace("device: p150a", "device: p150x")
    text = text.replace("weight: bfp8_b", "weight: bfp8")
    text = text.replace("baseline: bf16", "baseline: bf17")
    text = text.replace("metric: lsd_db", "metric: lsd")
    text = text.replace("search: 2", "serach: 2")
    recipe.write_text(text)
    said = refused(recipe=recipe)
    for path, got, near in (
        ("target.device", "p150x", "p150a"),
        ("schemes.lofi.weight", "bfp8", "bfp8_b"),
        ("baseline", "bf17", "bf16"),
        ("gates[0].metric", "lsd", "lsd_db"),
        ("data.serach", "serach", "search"),
    ):
        line = next(line for line in said.splitlines() if path in line)
        assert got in line
        assert near in line


def test_rules_that_match_nothing_and_sites_that_match_none_are_named(tiny, tmp_path, refused):
    recipe = tmp_path / "space.yaml"
    recipe.write_text(tiny.recipe.read_text().replace('match: "*"', 'match: "upz.*"'))
    said = refused(recipe=recipe)
    assert "upz.*" in said
    assert "conv_pre" in said


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def truncated(path: Path, state: dict) -> None:
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def missing(path: Path, state: dict) -> None:
    save_file({key: value for key, value in state.items() if not key.startswith("conv_post")}, path)


def unknown(path: Path, state: dict) -> None:
    save_file(state | {"conv_extra.weight": torch.zeros(3)}, path)


def truncated_torch(path: Path, state: dict) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def code(path: Path, _state: dict) -> None:
    path.write_bytes(pickle.dumps({"generator": Payload()}))


def empty(path: Path, _state: dict) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (truncated, ""),
        (truncated_torch, ""),
        (missing, "conv_post.weight"),
        (unknown, "conv_extra.weight"),
        (code, "safetensors"),
        (empty, "empty"),
    ],
)
def test_checkpoints_that_cannot_be_used(tiny, tmp_path, refused, monkeypatch, spoil, named):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spoiled.bin"
    shutil.copy(tiny.folder / "config.json", tmp_path / "config.json")
    spoil(path, load_file(tiny.checkpoint))
    said = refused(f"model.checkpoint={path}")
    assert str(path) in said
    assert named in said
    assert not (tmp_path / "executed").exists()


def test_a_model_that_needs_a_checkpoint_says_so(refused):
    assert "--set model.checkpoint=PATH" in refused("model.checkpoint=null")


TONE = 0.1 * np.sin(np.arange(22050) * 0.1)
SPOILED = {
    "empty": (np.zeros(0), "PCM_16"),
    "silent": (np.zeros(22050), "PCM_16"),
    "short": (TONE[:9000], "PCM_16"),
    "stereo": (np.stack([TONE, TONE], axis=1), "PCM_16"),
    "eight_bit": (TONE, "PCM_U8"),
    "nan": (np.where(np.arange(22050) == 500, np.nan, TONE), "FLOAT"),
}


def test_every_recording_that_cannot_be_used_is_named(tmp_path, refused):
    folder = tmp_path / "wavs"
    folder.mkdir()
    for name, (samples, subtype) in SPOILED.items():
        soundfile.write(folder / f"{name}.wav", samples, 22050, subtype=subtype)
    said = refused(f"data.audio={folder}")
    for name in SPOILED:
        assert f"{name}.wav" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gates=[{metric: lsd_db, max: 0}]", "gates: a search steers by how much of lsd_db is allowed, and that is 0"),
        ("gates=[{metric: lsd_db, min: 2}]", "gates: less lsd_db is better, and a minimum is set; set max"),
    ],
)
def test_gates_that_no_search_can_steer_by(refused, override, said):
    assert said in refused(override)


def test_a_sampler_that_is_not_installed_is_told_before_anything_is_measured(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'precision-search[optuna]'" in refused("search.method=tpe")


def test_sites_that_must_agree_and_cannot(refused, monkeypatch):
    monkeypatch.setattr(HifiganVoice, "protected", {"ups.0": "it is the first"})
    space = "space=[{match: 'ups.*', allow: [lofi, bold], agree: module}, {match: '*', allow: [bf16]}]"
    assert "ups.0, ups.1, ups.2: must agree, and no scheme is left that all may take" in refused(space)


def test_more_clips_than_there_are(refused):
    assert "4 clips" in refused("data.search=9")


def test_a_study_of_another_recipe_is_refused_with_what_differs(tiny, tmp_path, capsys):
    out = tmp_path / "study"
    for seed, code_ in ((0, 0), (1, 2)):
        before = (out / "study.jsonl").read_bytes() if out.exists() else b""
        with pytest.raises(SystemExit) as exit_:
            main(
                [
                    "run",
                    str(tiny.recipe),
                    "--out",
                    str(out),
                    "--workers",
                    "1",
                    "--resume",
                    "--set",
                    f"search.seed={seed}",
                ]
            )
        assert exit_.value.code == code_
    assert "recipe_digest" in capsys.readouterr().err
    assert (out / "study.jsonl").read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(tiny, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mail.txt").write_text("dear")
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(tiny.recipe), "--out", str(tmp_path / "letters")])
    assert exit_.value.code == 2
    assert "--out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mail.txt"]


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount the small file system that the test fills")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_is_said_and_the_study_can_be_gone_on_with(tiny, tmp_path, full_disk, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(tiny.recipe), "--out", str(full_disk / "study"), "--workers", "1"])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "space" in said
    assert "--resume" in said
    shutil.copytree(full_disk / "study", tmp_path / "moved")
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(tiny.recipe), "--out", str(tmp_path / "moved"), "--workers", "1", "--resume"])
    assert exit_.value.code == 0


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tiny, full_disk, capsys):
    with (full_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(tiny.recipe), "--out", str(full_disk / "study"), "--workers", "1"])
    assert exit_.value.code == 2
    assert "space" in capsys.readouterr().err
    assert not (full_disk / "study").exists()
