"""`precision-search judge`: two folders of audio, a verdict, and what is wrong with them said at once."""

import csv
import json

import numpy as np
import pytest
import soundfile

from precision_search import commands
from precision_search.main import main

RATE = 16000
NAMES = ("alpha", "bravo", "charlie", "delta")


def voiced(seed):
    """One second of a gliding pitch under formants, in two syllables with a pause between them."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE) / RATE
    f0 = 110.0 + 10.0 * seed + 20.0 * np.sin(2 * np.pi * time)
    angle = 2 * np.pi * np.cumsum(f0) / RATE
    sound = np.zeros_like(time)
    for harmonic in range(1, 25):
        shape = sum(np.exp(-(((harmonic * f0 - centre) / 250.0) ** 2)) for centre in (600.0, 1500.0, 2700.0))
        sound += (0.05 + shape) * np.sin(harmonic * angle)
    sound *= np.clip(np.sin(2 * np.pi * 2 * time), 0.0, None) ** 0.5
    return 0.5 * sound / np.max(np.abs(sound)) + 3e-4 * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def clips():
    return {name: voiced(seed) for seed, name in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path, clips):
    """Make a folder of clips, each changed by a function of its samples and name."""

    def make(name, change=lambda samples, _: samples, ending="wav", rate=RATE):
        made = tmp_path / name
        made.mkdir()
        for clip, samples in clips.items():
            subtype = "FLOAT" if ending == "wav" else "PCM_24"
            soundfile.write(made / f"{clip}.{ending}", change(samples, clip), rate, subtype=subtype)
        return made

    return make


@pytest.fixture
def judged(capsys):
    """Run the command; give its exit code and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["judge", "--quiet", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return exit_.value.code, said.out, said.err

    return run


def hissing(samples, name):
    level = {"alpha": 1e-4, "bravo": 1e-4, "charlie": 2e-2, "delta": 2e-3}[name]
    return samples + level * np.random.default_rng(5).standard_normal(len(samples))


def test_the_same_clips_keep_every_gate(folder, judged):
    code, out, _ = judged(folder("reference"), folder("same", ending="flac"))
    assert code == 0
    assert out.startswith("transparent: every gate kept on 4 clips, 4.0 s at 16000 Hz")
    assert "BROKEN" not in out
    line = next(line for line in out.splitlines() if line.strip().startswith("not judged") and "pesq_change" in line)
    assert "natural recording" in line
    assert "lsd_high_db: needs a sample rate above 17392 Hz" in out


def test_broken_gates_name_the_clips_that_broke_most(folder, judged, tmp_path):
    paths = ("--json", tmp_path / "found.json", "--csv", tmp_path / "scores.csv")
    code, out, _ = judged(folder("reference"), folder("hissing", hissing), *paths)
    assert code == 1
    assert out.startswith("transparent: GATES BROKEN on 4 clips")
    worst = next(line for line in out.splitlines() if line.split()[:2] == ["pesq_wb", "charlie"])
    assert worst.split()[3] == "delta"
    assert "power 80 %" in out

    found = json.loads((tmp_path / "found.json").read_text())
    assert found["verdict"] == "broken"
    assert (found["clips"], found["sample_rate_hz"], found["seconds"]) == (4, RATE, 4.0)
    gates = {(gate["metric"], gate["over"]): gate for gate in found["gates"]}
    assert not gates["pesq_wb", "worst"]["kept"]
    assert gates["pesq_wb", "worst"]["value"] == found["scores"]["charlie"]["pesq_wb"]
    assert gates["lsd_db", "mean"]["value"] == pytest.approx(found["statistics"]["lsd_db"]["mean"])
    assert found["statistics"]["lsd_db"]["resolvable_change"] > 0.0
    assert {left["metric"] for left in found["unjudged"]} >= {"pesq_change", "lsd_high_db"}
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == list(NAMES)
    assert float(rows[2]["pesq_wb"]) == found["scores"]["charlie"]["pesq_wb"]


def test_numbers_depend_neither_on_workers_nor_on_stopping(folder, judged):
    pair = (folder("reference"), folder("hissing", hissing), "--json", "-")
    _, out, _ = judged(*pair, "--workers", 1)
    alone = json.loads(out)
    assert json.loads(judged(*pair, "--workers", 3)[1]) == alone
    code, out, _ = judged(*pair, "--workers", 3, "--stop")
    stopped = json.loads(out)
    assert code == 1
    assert stopped["unreached"]
    assert "pesq_wb" not in stopped["scores"]["alpha"]
    for clip, scores in stopped["scores"].items():
        assert scores == {metric: alone["scores"][clip][metric] for metric in scores}
    assert "not reached: " in judged(*pair[:2], "--stop")[1]


def test_natural_recordings_add_the_change_against_them(folder, judged):
    natural = folder("natural", lambda x, _: x + 1e-3 * np.random.default_rng(8).standard_normal(len(x)))
    soundfile.write(natural / "of no concern.wav", np.zeros((9, 2)), RATE)
    reference, slight = folder("reference"), folder("slight", lambda x, _: np.round(x * 32768) / 32768)
    code, out, _ = judged(reference, slight, "--natural", natural, "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert abs(found["statistics"]["pesq_change"]["mean"]) < 0.05
    assert "pesq_change" not in {left["metric"] for left in found["unjudged"]}


def test_two_files_are_one_clip(folder, judged):
    reference, other = folder("reference"), folder("hissing", hissing)
    code, out, _ = judged(reference / "alpha.wav", other / "bravo.wav", "--profile", "8bit")
    assert code == 1
    assert out.startswith("8bit: GATES BROKEN on 1 clip,")
    assert "one clip says nothing of others" in out
    arguments = (reference / "alpha.wav", reference / "alpha.wav", "--natural", reference / "alpha.wav")
    code, out, _ = judged(*arguments)
    assert code == 0
    assert "not judged: pesq_change: a confidence bound needs at least 2 clips" in out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: np.where(np.arange(len(x)) == 9, np.nan, x), "NaN or Inf"),
        (lambda x: 0.0 * x, "silent"),
        (lambda x: x[:-7], "one length"),
        (lambda x: x[:0], "audio is a mono array"),
    ],
)
def test_a_broken_render_is_a_finding_and_no_mistake(change, reason, folder, judged):
    made = folder("made", lambda samples, name: change(samples) if name == "bravo" else samples)
    code, out, _ = judged(folder("reference"), made, "--json", "-")
    found = json.loads(out)
    assert code == 1
    assert {left["clip"] for left in found["undefined"]} == {"bravo"}
    assert any(reason in left["reason"] for left in found["undefined"])
    assert found["scores"]["bravo"]["pesq_wb"] == found["statistics"]["pesq_wb"]["mean"] == "nan"
    assert found["scores"]["alpha"]["pesq_wb"] > 4.5
    text = judged(*(made.parent / name for name in ("reference", "made")))[1]
    lines = [line for line in text.splitlines() if "bravo: " in line]
    assert any(reason in line for line in lines)
    assert any("pesq_wb" in line for line in lines)


def test_every_mistake_of_the_clips_is_named_at_once(folder, judged, clips, tmp_path):
    reference, made, natural = folder("reference"), folder("made"), folder("natural")
    (reference / "alpha.wav").unlink()
    (made / "charlie.wav").unlink()
    soundfile.write(made / "delta.wav", np.stack([clips["delta"]] * 2, axis=1), RATE)
    soundfile.write(reference / "charlie.wav", clips["charlie"], 22050)
    soundfile.write(made / "bravo.flac", clips["bravo"], RATE)
    soundfile.write(natural / "bravo.wav", clips["bravo"][:-100], RATE)
    (natural / "delta.wav").unlink()
    code, out, err = judged(reference, made, "--natural", natural, "--csv", tmp_path / "scores.csv")
    assert (code, out) == (2, "")
    for said in (
        f"{made}: has two files of one name (bravo)",
        f"{made}: has no partner for 1 of {reference}: charlie",
        f"{reference}: has no partner for 1 of {made}: alpha",
        f"{natural}: has no partner for 1 of {reference}: delta",
        f"{made / 'delta.wav'}: has 2 channels",
        "clips have 2 sample rates, one is needed: 16000 Hz for the most, 22050 Hz: reference charlie",
        f"{natural / 'bravo.wav'}: has 15900 samples and its reference 16000",
        "7 mistakes",
    ):
        assert said in err, err
    assert not (tmp_path / "scores.csv").exists()


def test_what_is_no_folder_of_audio_is_refused(folder, judged, tmp_path):
    reference = folder("reference")
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, said in (
        ((reference, tmp_path / "nowhere"), "there is no such file or folder"),
        ((reference, reference / "alpha.wav"), "give folders or files, not both"),
        ((reference, empty), "holds no .wav or .flac file"),
        ((reference / "alpha.wav", reference / "alpha.wav", "--natural", reference), "not both"),
    ):
        code, out, err = judged(*arguments)
        assert (code, out) == (2, "")
        assert said in err
        assert "1 mistake in the clips" in err


def test_a_file_of_gates_takes_the_place_of_a_profile(folder, judged, tmp_path):
    gates = tmp_path / "gates.yaml"
    gates.write_text("gates: [{metric: lsd_db, over: tail, max: 30}, {metric: estoi, over: worst, min: 0.2}]")
    pair = (folder("reference"), folder("hissing", hissing))
    code, out, _ = judged(*pair, "--gates", gates, "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert found["promise"] == str(gates)
    assert [(gate["metric"], gate["over"]) for gate in found["gates"]] == [("lsd_db", "tail"), ("estoi", "worst")]
    assert found["gates"][0]["value"] == pytest.approx(found["statistics"]["lsd_db"]["tail"])

    gates.write_text("gates: [{metric: lsd, max: 3}, {metric: estoi}]")
    code, out, err = judged(*pair, "--gates", gates)
    assert (code, out) == (2, "")
    assert "gates[0].metric (line 1): got 'lsd'" in err
    assert "gates[1] (line 1): got neither min nor max" in err

    gates.write_text("gates: [{metric: pesq_change, min: 0}]")
    code, out, err = judged(*pair, "--gates", gates)
    assert (code, out) == (2, "")
    assert "no gate can be judged" in err
    assert "natural recording" in err


def test_where_nothing_can_be_written_nothing_is_computed(folder, judged, tmp_path):
    reference = folder("reference")
    code, out, err = judged(reference, reference, "--json", tmp_path / "no" / "found.json", "--csv", reference)
    assert (code, out) == (2, "")
    assert f"there is no folder {tmp_path / 'no'}" in err
    assert f"{reference}: is a folder" in err


def test_progress_tells_clips(folder, capsys):
    reference = folder("reference")
    with pytest.raises(SystemExit):
        main(["judge", str(reference), str(reference), "--profile", "8bit"])
    said = capsys.readouterr().err
    assert "reading clips 4 of 4" in said
    assert "scoring clips 4 of 4" in said


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["judge", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "precision-search judge fp32/ int8/ --natural recordings/" in text
    assert "over: tail" in text
    assert "exit codes: 0 every gate kept, 1 a gate broken, 2 bad input" in text


def test_ctrl_c_promises_no_resuming(folder, monkeypatch, judged):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "judge_files", stopped)
    reference = folder("reference")
    code, _, err = judged(reference, reference)
    assert code == 130
    assert "stopped" in err
    assert "--resume" not in err


def test_renders_with_nothing_forced_may_differ_in_length(folder, judged, tmp_path):
    reference, longer = folder("reference"), folder("longer", lambda samples, _: np.pad(samples, (0, RATE // 200)))
    code, _, _ = judged(reference, longer, "--json", tmp_path / "forced.json")
    assert code == 1
    code, said, _ = judged(reference, longer, "--free", "--json", tmp_path / "free.json")
    found = json.loads((tmp_path / "free.json").read_text())
    by_metric = {gate["metric"]: gate for gate in found["gates"] if gate["over"] == "worst"}
    assert code == 0, said
    assert set(by_metric) >= {"duration_change", "dtw_mcd_db"}
    assert by_metric["duration_change"]["value"] == pytest.approx(0.005)
    assert "lsd_db" not in said


def test_gates_of_a_file_on_what_the_clips_do_not_have_are_mistakes(folder, judged, tmp_path):
    gates = tmp_path / "gates.yaml"
    gates.write_text(
        "gates: [{metric: lsd_db, max: 9}, {metric: duration_change, max: 1}, {metric: text_kl_nats, max: 1}]"
    )
    code, _, said = judged(folder("reference"), folder("degraded"), "--gates", gates)
    assert code == 2
    assert "duration_change: hears renders with nothing forced" in said
    assert "text_kl_nats: the model has no text tokens" in said
