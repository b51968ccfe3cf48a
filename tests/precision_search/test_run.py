"""The main job from end to end, on a small random vocoder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from precision_search.main import main

FILES = {
    "recipe.yaml",
    "sites.json",
    "damage.json",
    "study.jsonl",
    "policy.yaml",
    "summary.json",
    "report.html",
    "samples",
}


def precision_search(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def study(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    assert precision_search("run", made / "tiny.yaml", "--out", folder, "--quiet", "--workers", 1) == 0
    return folder


def test_a_run_leaves_its_whole_study(study):
    assert {path.name for path in study.iterdir()} >= FILES
    summary = json.loads((study / "summary.json").read_text())
    for key in (
        "recipe_digest",
        "device",
        "lofi_mac_share",
        "bfp8_weight_share",
        "fp8_mac_share",
        "gates",
        "evaluations",
        "seconds",
        "cost",
    ):
        assert key in summary
    assert summary["verdict"] == "kept"
    assert summary["lofi_mac_share"] > 0
    assert {gate["metric"] for gate in summary["gates"]} >= {"lsd_db", "group_delay_rad"}
    assert all(gate["kept"] and gate["margin"] >= 0 for gate in summary["gates"])
    cost = summary["cost"]
    assert cost["low"] <= cost["ratio"] <= cost["high"]
    assert set(cost["usd_per_stream"]) == {"candidate", "baseline"}


def test_yardsticks_and_scatter_stand_beside_every_gate(study):
    summary = json.loads((study / "summary.json").read_text())
    assert set(summary["yardsticks"]) == {"baseline", "bf16", "fp16"}  # this vocoder draws no noise
    lsd = next(gate for gate in summary["gates"] if gate["metric"] == "lsd_db")
    assert 0 < float(lsd["beside"]["fp16"]) < float(lsd["beside"]["bf16"])
    assert summary["comparison"]["family"] == "vocoder"
    found = summary["statistics"]["lsd_db"]
    assert found["clips"] == 2
    assert found["mean"] <= found["tail"] <= found["worst"]
    assert "Own bf16" in (study / "report.html").read_text()
    log = [json.loads(line) for line in (study / "study.jsonl").read_text().splitlines()]
    assert [line["name"] for line in log if line["kind"] == "yardstick"] == ["bf16", "fp16"]


def test_the_policy_is_total(study):
    policy = yaml.safe_load((study / "policy.yaml").read_text())
    sites = json.loads((study / "sites.json").read_text())
    assert list(policy["sites"]) == [site["name"] for site in sites]
    assert set(policy["sites"].values()) <= set(policy["schemes"])


def test_samples_are_pairs_of_the_clips_held_back(study):
    names = [sorted(path.name for path in (study / "samples" / kind).iterdir()) for kind in ("reference", "candidate")]
    assert names[0] == names[1] == ["clip2.wav", "clip3.wav"]


def test_two_runs_give_the_same_policy_whatever_the_workers(study, tiny, tmp_path):
    again = tmp_path / "again"
    assert precision_search("run", tiny.recipe, "--out", again, "--quiet", "--workers", 2) == 0
    for name in ("policy.yaml", "samples/candidate/clip2.wav", "samples/candidate/clip3.wav"):
        assert (again / name).read_bytes() == (study / name).read_bytes()


def test_a_finished_study_is_refused_without_resume_and_repeated_with_it(study, tiny, capsys):
    assert precision_search("run", tiny.recipe, "--out", study, "--quiet") == 2
    assert "--resume" in capsys.readouterr().err
    before = (study / "study.jsonl").read_bytes(), (study / "policy.yaml").read_bytes()
    assert precision_search("run", tiny.recipe, "--out", study, "--quiet", "--workers", 1, "--resume") == 0
    assert ((study / "study.jsonl").read_bytes(), (study / "policy.yaml").read_bytes()) == before


def test_a_study_cut_anywhere_is_finished_to_the_same_policy(study, tiny, tmp_path):
    log = (study / "study.jsonl").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "study.jsonl").write_bytes(log[: len(log) * 2 // 3])  # in the middle of a line, as a kill leaves it
    assert precision_search("run", tiny.recipe, "--out", cut, "--quiet", "--workers", 1, "--resume") == 0
    assert (cut / "policy.yaml").read_bytes() == (study / "policy.yaml").read_bytes()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_finished_by_resume(study, tiny, tmp_path, kill):
    folder = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "precision_search",
        "run",
        str(tiny.recipe),
        "--out",
        str(folder),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has them, and their children, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = folder / "study.jsonl"
    limit = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") > 8) and process.poll() is None:
        assert time.monotonic() < limit, "the run measured nothing in two minutes"
        time.sleep(0.02)
    process.send_signal(kill)
    _, said = process.communicate(timeout=60)
    if kill is signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in said
    held = log.read_bytes().rpartition(b"\n")[0]
    assert precision_search("run", tiny.recipe, "--out", folder, "--quiet", "--workers", 1, "--resume") == 0
    assert log.read_bytes().startswith(held), "what was measured before the kill must not be measured again"
    assert (folder / "policy.yaml").read_bytes() == (study / "policy.yaml").read_bytes()


@pytest.mark.parametrize(("exact", "key"), [((), "fast_value"), (("--exact",), "value")])
def test_evaluate_finds_what_the_run_found(study, capsys, exact, key):
    assert precision_search("evaluate", study, "--json", *exact) == 0
    answer = json.loads(capsys.readouterr().out)
    summary = json.loads((study / "summary.json").read_text())
    assert answer["arithmetic"] == summary["arithmetic" if exact else "search_arithmetic"]
    found = {(g["metric"], g["over"]): g["value"] for g in answer["gates"]}
    assert found == {(g["metric"], g["over"]): pytest.approx(g[key]) for g in summary["gates"]}


def test_the_verdict_is_of_the_exact_arithmetic(study):
    summary = json.loads((study / "summary.json").read_text())
    assert summary["arithmetic"] == "tensix_exact_blackhole"
    assert summary["search_arithmetic"] == "tensix_fast"
    found = summary["agreement"]
    assert set(found["snr_db"]) == {"clip2", "clip3"}
    assert 20 < found["worst_snr_db"] < 120, "the fast arithmetic is near the exact one, and not the same"
    assert summary["arithmetic"] in (study / "report.html").read_text(encoding="utf-8")


def test_report_is_written_again(study, capsys):
    page = (study / "report.html").read_bytes()
    (study / "report.html").unlink()
    assert precision_search("report", study) == 0
    assert (study / "report.html").read_bytes() == page


def test_gates_that_nothing_keeps_are_no_success(tiny, tmp_path, capsys):
    recipe = tmp_path / "hard.yaml"
    recipe.write_text(tiny.recipe.read_text().replace("max: 3.0", "max: 0.0001"))
    assert precision_search("run", recipe, "--out", tmp_path / "hard", "--workers", 1) == 1
    out = capsys.readouterr().out
    assert "GATES BROKEN" in out
    assert json.loads((tmp_path / "hard" / "summary.json").read_text())["verdict"] == "broken"
