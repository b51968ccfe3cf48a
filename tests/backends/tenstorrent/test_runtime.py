"""What an export runs by: arrays to tensors and back, chunks, traces, the command line; on a mock card, which computes
nothing, so shapes and calls are what is looked at."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from backends.tenstorrent.exported import FILES, FOLDER

pytestmark = pytest.mark.tenstorrent

SCRIPT = Path(__file__).parent / "runtime_script.py"


@pytest.fixture(scope="session")
def said(tiny, mock_folder, tmp_path_factory):
    """What the script says of the tiny model."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    shutil.copytree(tiny["whole"], folder)
    done = subprocess.run([sys.executable, SCRIPT, folder, mock_folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_packed_is_read_back(said):
    exact, largest, dtype = said["fp32"]
    assert (exact, largest, dtype) == (True, 0.0, "float32")
    for name, bound in (("bf16", 2**-7), ("bfp8_b", 2**-5), ("bfp4_b", 2**-1)):
        exact, largest, dtype = said[name]
        assert exact  # packing what was read back changes nothing
        assert 0 < largest <= bound
        assert dtype == "float32"


def test_integers_and_special_values_go_as_they_are(said):
    assert said["uint32"] == [[0, 1, 2**31 + 5]]
    assert said["special"] == ["inf", "-inf", "nan", "-0.0"]


def test_chunks_are_cut_along_an_axis_or_have_their_own(said):
    assert said["along"] == [False, [list(range(8)), list(range(8, 16)), list(range(16, 24))]]
    assert said["own"] == [True, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]]
    assert said["once"] == [False, 1]


def test_inputs_that_make_no_chunks_are_told(said):
    assert said["ragged"] == "x (2, 9) is no whole number of chunks of (2, 8); pad it with zeros"
    assert said["unlike"] == "inputs have different numbers of chunks: {'x': 4, 'y': 3}"
    assert said["missing"] == "input y (3,) is missing; there are x"


def test_inputs_that_make_no_chunks_are_told_all_at_once(said):
    assert said["all at once"] == (
        "x (2, 9) is no whole number of chunks of (2, 8); pad it with zeros; input y (3,) is missing; there are x"
    )


def test_a_trace_keeps_what_shares_a_buffer_with_what_it_reads(said):
    tensor, view, flat, other, freed = said["kept"]
    assert tensor
    assert view
    assert flat
    assert not other
    assert not freed


def test_a_card_that_a_program_was_not_made_for_is_told(said):
    assert said["fits"] is None
    assert said["unfit"] == [
        "the program was made for blackhole_p150 (blackhole, 13 x 10 cores), and this card is a wormhole of 8 x 8",
        "the program was made for wormhole_n150 (wormhole, 8 x 9 cores), and this card is a wormhole of 8 x 8",
    ]


def test_what_the_host_raises_is_told_without_a_trace_of_calls(said):
    assert said["host"] == (
        "the run stopped in host.py, line 2: are durations, say, of another sum than the program's frames?: "
        "repeats must sum to 7"
    )


def test_a_session_runs_and_streams(said):
    assert said["shapes"] == {"waveform": [128]}
    assert said["stream"] == {"waveform": [384]}
    assert said["inputs"] == "the program was made for other inputs: x must have shape (64, 64), got (64, 63)"


def test_times_of_a_mock_card_are_refused(said):
    assert said["time"] == "a mock card computes nothing, so its times mean nothing; time on a real card"


def test_times_of_a_stream_are_those_of_chunks_and_say_whether_it_keeps_up(said):
    operations, factor = said["timed"]
    assert operations == 13 - 2  # less what the host does, and the operation that is refused
    assert factor == pytest.approx(1)
    wanted = "3 chunks of 80.0 ms, median 20.000 ms: a real-time factor of 0.2500, which must stay below 1"
    assert said["report"] == wanted
    assert said["plain"] == "1 runs, median 20.000 ms"


def test_a_trace_is_captured_at_the_second_run_and_replayed_from_then(said):
    first = ["linear", "run"]
    captured = ["begin", "linear", "end 7", "write", "execute 7", "run"]
    assert said["calls"] == [*first, *captured, "write", "execute 7", "run"]
    assert said["traced"] == {"waveform": [128]}


def test_what_is_held_is_written_where_it_changed_and_stays_where_it_lies(said):
    calls, same = said["held"]["Session"]
    write = ["pack", "write"]
    plain = ["run 0", "upload", "linear", "run 1", *write, "linear", "run 2", "linear", "run 3", *write, "linear"]
    assert calls == plain
    assert same


def test_a_trace_reads_what_is_held_after_it_was_written(said):
    calls, same = said["held"]["Traced"]
    write = ["pack", "write"]
    captured = ["run 1", "begin", "linear", "end 7", *write, "execute 7"]
    assert calls == ["run 0", "upload", "linear", *captured, "run 2", "execute 7", "run 3", *write, "execute 7"]
    assert same


def test_a_program_that_goes_back_to_the_host_can_not_be_traced(said):
    assert said["midst"].startswith("the program goes back to the host in its midst")


def call(folder, *arguments, **options):
    command = [str(part) for part in (sys.executable, folder / "run.py", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def test_an_export_plans_by_itself(tiny, mock_folder, tmp_path):
    """Away from this toolkit, and without torch, which ttnn does not need."""
    folder = shutil.copytree(tiny["refused"], tmp_path / "elsewhere")
    (tmp_path / "without").mkdir()
    hidden = "import sys\nsys.modules.update(torch=None, backends=None, precision=None)\n"
    (tmp_path / "without" / "sitecustomize.py").write_text(hidden)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "without")}
    before = sorted(folder.rglob("*"))
    status, out, err = call(folder, "--plan", "--mock-folder", mock_folder, env=environment, cwd=tmp_path)
    assert (status, err) == (1, "")  # not a line of ttnn's own
    assert "ttnn.conv_transpose2d" in out
    assert "1 refused" in out
    assert "The width of the first tensor must be equal to the height" in out
    assert sorted(folder.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "without"]


def test_nothing_of_the_toolkit_is_imported():
    for name in FILES:
        text = (FOLDER / name).read_text()
        assert "import backends" not in text
        assert "from backends" not in text
        assert ("import ttnn" in text) == (name == "runtime.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to do: give --input, --plan or --check"),
        (("--input", "none.npz"), "there is no none.npz"),
        (("--plan", "--check"), "not allowed with argument"),
        (("--plan", "--card", "n300"), "invalid choice: 'n300'"),
        (("--input", "x.npz", "--trace"), "give --time or --stream, too"),
        (("--input", "x.npz", "--time", "0"), "runs are a whole number, 1 or more; got '0'"),
        (("--input", "x.npz", "--time", "-3"), "runs are a whole number, 1 or more; got '-3'"),
        (("--input", "x.npz", "--mesh", "two"), "a mesh is ROWSxCOLUMNS, as 1x2; got 'two'"),
    ],
)
def test_wrong_use_is_told_in_a_line(tiny, arguments, message):
    status, out, err = call(tiny["whole"], *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_all_that_is_wrong_is_told_before_a_card_is_opened(tiny, tmp_path):
    given = np.zeros((64, 64), np.float32)
    given[0, :3] = np.nan
    np.savez(tmp_path / "x.npz", x=given)
    np.savez(tmp_path / "other.npz", y=given)
    wanted = ("--input", tmp_path / "x.npz", "--output", tmp_path / "none" / "out.wav", "--json", tmp_path)
    status, _, err = call(tiny["whole"], *wanted)
    assert status == 2
    assert "there is no folder" in err
    assert f"{tmp_path} is a folder" in err
    assert "x has 3 of 4096 values that are NaN or infinite" in err
    assert "no card could be opened" not in err
    for more in ((), ("--stream",)):
        status, _, err = call(tiny["whole"], "--input", tmp_path / "other.npz", "--output", "out.mp3", *more)
        assert status == 2
        assert "x (64, 64) is missing; there are y" in err
        assert "got out.mp3" in err
        assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("--plan",), ("--input", "x.npz")])
def test_an_export_that_is_damaged_or_of_another_ttnn_is_told(tiny, tmp_path, arguments):
    folder = shutil.copytree(tiny["whole"], tmp_path / "damaged")
    text = (folder / "program.json").read_text()
    for broken, message in ((text[:100], "is damaged"), (text.replace('"ttnn": "', '"ttnn": "9'), "is installed: pip")):
        (folder / "program.json").write_text(broken)
        status, out, err = call(folder, *arguments)
        assert (status, out) == (2, "")
        assert message in err
        assert "Traceback" not in err


def test_a_plan_on_another_card_says_so_first(tiny, mock_folder):
    options = ("--plan", "--card", "blackhole_p150", "--mock-folder", mock_folder)
    status, out, err = call(tiny["whole"], *options)
    assert status == 0
    assert "13 x 10 cores" in out
    (line,) = err.splitlines()
    assert "(wormhole, 8 x 8 cores), and this card is a blackhole of 13 x 10" in line


def test_only_steps_that_were_given_one_by_one_are_late_in_a_wav(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("run_of_an_export", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)
    for imported in ("arrays", "checked", "mock_card"):
        sys.modules.pop(imported, None)
    assert module._late({}) == 0
    assert module._late({"stream": {"inputs": {}, "latency_samples": 96}}) == 96
    assert module._late({"stream": {"inputs": {"mel": {}}, "latency_samples": 96}}) == 0


def test_help_has_examples(tiny):
    status, out, _ = call(tiny["whole"], "--help")
    assert status == 0
    assert "python run.py --input sample/input.npz --output out.wav" in out
    assert "exit status" in out


@pytest.fixture
def arrays():
    """The file as an export has it; it needs numpy alone."""
    spec = importlib.util.spec_from_file_location("arrays_of_an_export", FOLDER / "arrays.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_outputs_are_written_as_sound(arrays, tmp_path):
    outputs = {"waveform": np.array([0.0, 0.5, -1.0, 2.0], np.float32), "text": np.zeros(3)}
    arrays.write_outputs(tmp_path / "out.wav", outputs, 16000)
    with wave.open(str(tmp_path / "out.wav")) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16000)
        assert np.frombuffer(sound.readframes(4), "<i2").tolist() == [0, 16384, -32767, 32767]
    arrays.write_outputs(tmp_path / "out.wav", outputs, 16000, late=3)
    with wave.open(str(tmp_path / "out.wav")) as sound:
        assert np.frombuffer(sound.readframes(4), "<i2").tolist() == [32767]
    arrays.write_outputs(tmp_path / "out.npz", outputs, None)
    assert list(np.load(tmp_path / "out.npz")) == ["waveform", "text"]
    arrays.write_outputs(tmp_path / "out.npy", outputs, None)
    assert np.load(tmp_path / "out.npy").shape == (4,)


def test_sound_that_is_none_is_refused(arrays, tmp_path):
    with pytest.raises(arrays.UseError, match="no sample_rate_hz"):
        arrays.write_outputs(tmp_path / "out.wav", {"text": np.zeros(3)}, None)
    with pytest.raises(arrays.UseError, match="NaN or infinite"):
        arrays.write_outputs(tmp_path / "out.wav", {"waveform": np.array([np.nan])}, 16000)
    with pytest.raises(arrays.UseError, match=r"\.npz, \.npy or \.wav, got out\.mp3"):
        arrays.write_outputs(tmp_path / "out.mp3", {"waveform": np.zeros(3)}, 16000)


def test_a_sample_is_held_against_its_tolerance(arrays, tmp_path):
    expected = np.sin(np.arange(100)).astype(np.float32)
    (tmp_path / "sample").mkdir()
    np.savez(tmp_path / "sample" / "expected.npz", waveform=expected)
    manifest = {"outputs": {"waveform": {"tolerance": {"max_abs": 0.01, "snr_db": 50.0}}}}
    near = arrays.compare(tmp_path, manifest, {"waveform": expected + np.float32(1e-4)})
    assert near["waveform"][0]
    missed = arrays.compare(tmp_path, manifest, {"waveform": expected * np.float32(1.1)})
    text = "SNR 20.0 dB (at least 50.0 dB is asked), off by 0.1 (at most 0.01 is allowed)"
    assert missed == {"waveform": (False, text)}
    assert arrays.told({**near, "mel": missed["waveform"]}).splitlines() == [
        f"waveform: within the tolerance: {near['waveform'][1]}",
        f"mel: BEYOND THE TOLERANCE: {text}",
    ]
    within, text = arrays.compare(tmp_path, manifest, {"waveform": np.full(100, np.nan, np.float32)})["waveform"]
    assert (within, text.partition(" (")[0]) == (False, "SNR nan dB")
    shorter = arrays.compare(tmp_path, manifest, {"waveform": expected[:50]})
    assert shorter == {"waveform": (False, "has shape (50,), expected (100,)")}
    several = {"outputs": {"waveform": {"tolerance": {"cpu": {"max_abs": 0.2, "snr_db": 19.0}}}}}
    assert arrays.compare(tmp_path, several, {"waveform": expected * np.float32(1.1)}, "cpu")["waveform"][0]
    with pytest.raises(arrays.UseError, match="exported without a sample"):
        arrays.compare(tmp_path / "none", manifest, {})


def test_inputs_are_read_of_arrays(arrays, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    np.savez(tmp_path / "x.npz", x=np.arange(3), y=np.zeros(1))
    assert arrays.read_inputs(tmp_path / "x.npy", ["x"])["x"].tolist() == [0, 1, 2]
    assert set(arrays.read_inputs(tmp_path / "x.npz", ["x", "y"])) == {"x", "y"}
    with pytest.raises(arrays.UseError, match=r"inputs x, y are read of an \.npz$"):
        arrays.read_inputs(tmp_path / "x.npy", ["x", "y"])
