"""`export`: a folder that runs without this toolkit, and nothing where it could not be written whole."""

import errno
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from backends.tenstorrent.packed import file_bytes
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.tolerance import snr_db
from precision_search import written
from precision_search.lowering import Asked, choose
from precision_search.main import main
from precision_search.new_folder import new_folder
from precision_search.programs import make
from precision_search.progress import Progress
from voice.decoder import DecoderVoice

pytestmark = pytest.mark.tenstorrent
SECONDS = ("--seconds", "0.1")


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


def read(path):
    with np.load(path) as held:
        return dict(held)


@pytest.fixture(scope="module")
def exported(study, mock_cards, tmp_path_factory) -> Path:
    """The study, exported and moved elsewhere."""
    out = tmp_path_factory.mktemp("exports") / "tiny_p150"
    assert run("export", study, "--backend", "tenstorrent", *SECONDS, "--out", out, "--quiet") == 0
    return out.rename(tmp_path_factory.mktemp("elsewhere") / "moved")


def start(folder, *arguments):
    """Run an export's own run.py, with this toolkit out of reach."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, "run.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_folder_has_all_that_runs_it(exported):
    names = {path.name for path in exported.iterdir()}
    assert names >= {"README.md", "model.py", "policy.yaml", "program.json", "requirements.txt", "run.py", "sample"}
    assert "host.py" not in names
    assert (exported / "requirements.txt").read_text() == "ttnn==0.81.1\n"
    for path in exported.glob("*.py"):
        assert "import precision_search" not in path.read_text()
        assert "import backends" not in path.read_text()


def test_it_plans_elsewhere_with_ttnn_alone(exported):
    done = start(exported, "--plan", "--json", "-")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    manifest = json.loads((exported / "program.json").read_text())
    plan = plan[0] if isinstance(plan, list) else plan
    assert len(plan["steps"]) == len(manifest["steps"])
    assert not any(step["refused"] for step in plan["steps"])


def test_weights_are_ours_to_the_bit_and_as_many_as_the_manifest_has(exported):
    constants = json.loads((exported / "program.json").read_text())["constants"]
    assert {f"{name}.tensorbin" for name in constants} == {path.name for path in (exported / "weights").iterdir()}
    assert sum(file_bytes(exported / entry["file"]).size for entry in constants.values()) > 10_000


def test_the_sample_is_a_clip_and_what_the_program_makes_of_it(exported):
    manifest = json.loads((exported / "program.json").read_text())
    given, expected = read(exported / "sample" / "input.npz"), read(exported / "sample" / "expected.npz")
    assert {name: list(array.shape) for name, array in given.items()} == {
        spec["name"]: spec["shape"] for spec in manifest["inputs"]
    }
    tolerance = manifest["outputs"]["waveform"]["tolerance"]
    assert np.isfinite(expected["waveform"]).all()
    assert tolerance["max_abs"] >= 2 * tolerance["seen_max_abs"] > 0
    assert tolerance["snr_db"] == pytest.approx(tolerance["seen_snr_db"] - 20 * math.log10(2))
    assert manifest["sample_rate_hz"] == 22050
    assert manifest["clip"].startswith("clip")


def test_the_policy_is_the_studys(exported, study):
    policy = yaml.safe_load((exported / "policy.yaml").read_text())
    assert policy["sites"] == yaml.safe_load((study / "policy.yaml").read_text())["sites"]
    assert set(policy["schemes"]) == {"bf16", "lofi"}
    text = (exported / "README.md").read_text()
    assert policy["policy_digest"] in text
    assert f"ttnn {importlib.metadata.version('ttnn')}" in text
    assert "has not run on a card" in text


def test_chunks_are_exported_with_their_state(study, mock_cards, tmp_path):
    command = ("--stream", "--chunk-ms", "40", "--seconds", "0.2", "--quiet")
    assert run("export", study, "--out", tmp_path / "live", *command) == 0
    manifest = json.loads((tmp_path / "live" / "program.json").read_text())
    assert manifest["streaming"]
    assert manifest["states"]
    assert manifest["stream"]["chunk_ms"] == pytest.approx(40, rel=0.2)
    given = read(tmp_path / "live" / "sample" / "input.npz")
    expected = read(tmp_path / "live" / "sample" / "expected.npz")["waveform"]
    assert list(given) == ["mel"]  # an utterance: run.py cuts it, and makes the masks
    assert expected.shape == (given["mel"].shape[2] * 256,)
    calls = [step["call"] for step in manifest["steps"]]
    assert calls.count("runtime.upload") == 1
    assert calls.count("runtime.hold") == len(manifest["stream"]["masks"]) > 5
    assert "`python run.py --stream --check`" in (tmp_path / "live" / "README.md").read_text()
    planned = start(tmp_path / "live", "--plan")
    assert planned.returncode == 0, planned.stderr


def test_chunks_say_what_the_whole_clip_says(study, mock_cards):
    """Streamed and lowered at once, the sound is that of the program of the whole clip, to the bit."""
    asked = choose(Asked(str(study), seconds=0.1))
    whole, live = (make(asked, host=False, chunk_ms=ms, progress=Progress(quiet=True)) for ms in (None, 40.0))
    sounds = [made.parts_by(Simulator(made.program).run)["waveform"].flatten() for made in (whole, live)]
    assert len(live.runs) >= 4
    assert np.array_equal(*sounds)


@pytest.mark.slow
def test_a_decoder_is_exported_row_by_row(mock_cards, tmp_path):
    """Steps of 80 ms, keys and values in bf16 on the card, a sample of forced rows that says what the whole says."""
    assert run("export", "decoder_blackhole", "--stream", "--out", tmp_path / "live", "--quiet") == 0
    manifest = json.loads((tmp_path / "live" / "program.json").read_text())
    given = read(tmp_path / "live" / "sample" / "input.npz")
    expected = read(tmp_path / "live" / "sample" / "expected.npz")
    rows = len(given["position"])
    assert given["codes"].shape == (rows, 8)
    assert given["position"][:, 0].tolist() == list(range(rows))
    assert expected["waveform"].shape == (rows, 1280)
    assert {spec["dtype"] for name, spec in manifest["states"].items() if "layers" in name} == {"bf16"}
    assert manifest["stream"]["chunk_ms"] == 80.0
    late = manifest["stream"]["latency_samples"]
    voice = DecoderVoice.seeded()
    clip = next(clip for clip in voice.clips(7) if clip.name == manifest["clip"])
    sound = voice.render(clip).sound.numpy()
    assert late == (1 + clip.inputs[0].shape[1] + 7) * 1280
    streamed = expected["waveform"].flatten()[late:]
    assert streamed.shape == sound.shape
    assert snr_db(sound, streamed) > 20  # of bf16, by exact arithmetic, against the model in fp32
    assert "the first 15360 samples (12 runs)" in (tmp_path / "live" / "README.md").read_text()
    planned = start(tmp_path / "live", "--plan")
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--chunk-ms", "40"), "a step is one row of 80 ms, and no other chunks: got 40 ms"),
        (("--seconds", "1"), "decoder cannot be cut"),
    ],
)
def test_steps_that_a_decoder_has_not_are_told(tmp_path, capsys, options, said):
    assert run("export", "decoder_blackhole", "--stream", *options, "--out", tmp_path / "live", "--quiet") == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(study, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert run("export", study, "--out", tmp_path) == 2
    assert "is not empty; name a new folder by --out" in capsys.readouterr().err
    assert run("export", study, "--out", tmp_path / "mine.txt") == 2
    assert "is a file, and an export is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; nothing is left of it"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_could_not_be_written_whole_is_not_there(study, tmp_path, capsys, monkeypatch, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(written, "write", fail)
    assert run("export", study, *SECONDS, "--out", tmp_path / "new", "--quiet") == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_may_be_there_if_it_is_empty(tmp_path):
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    with new_folder(out) as folder:
        (folder / "file").write_text("x")
        assert list(out.iterdir()) == []
    assert [path.name for path in out.iterdir()] == ["file"]
    assert [path.name for path in out.parent.iterdir()] == ["b"]


def test_other_bits_than_ours_are_an_error(study, mock_cards, tmp_path, capsys, monkeypatch):
    real = written.pack

    def bent(folder, arrays):
        real(folder, arrays)
        path = folder / "weights" / "conv_pre_weight.tensorbin"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(written, "pack", bent)
    assert run("export", study, *SECONDS, "--out", tmp_path / "new", "--quiet") == 2
    assert "conv_pre_weight: 1 of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
