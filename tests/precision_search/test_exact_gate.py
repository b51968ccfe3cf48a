"""The final gate: what is reported as kept was kept in the exact arithmetic, whatever the fast one said."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from backends.base import Arithmetic, Backend, Prepared
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.support import refuses
from calibrate.calibration import Calibration
from precision.candidate import Candidate
from precision.policy import Policy, Scheme
from precision.site import Site
from precision.study import Study
from precision_search.agreement import agreement, snr_db
from precision_search.deciding import REPAIRS
from precision_search.main import main
from precision_search.progress import Progress
from precision_search.renders import FOLDER
from precision_search.report import write_report
from precision_search.results import write_results
from precision_search.run import Found, run
from precision_search.setting import Setting
from precision_search.table import table
from precision_search.wire import make_setting, read_recipe
from voice.site_call import SiteCall


@dataclass
class Noisy:
    """The fast arithmetic, but for noise at every site that a scheme's weights narrower than bf16 bring with them."""

    level: float
    """Of the noise over that of the result."""
    everywhere: bool = False
    """Whether bf16 is as noisy."""
    stop_after: int | None = None
    """Calls until Ctrl-C is pressed."""
    name: str = "noisy"
    calls: int = 0
    _fast: TensixArithmetic = field(default_factory=TensixArithmetic)

    def prepare(self, call: SiteCall, scheme: Scheme, moments: object = None) -> Prepared:
        return self._fast.prepare(call, scheme)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        result = self._fast.compute(call, scheme, prepared, calibration)
        if scheme.weight == "bf16" and not self.everywhere:
            return result
        noise = torch.randn(result.shape, generator=torch.Generator().manual_seed(call.index))
        return result + noise * (self.level * result.square().mean().sqrt())


@dataclass(frozen=True)
class Target:
    """A Blackhole card with an exact arithmetic of the test's choice."""

    exact: Arithmetic | None
    arithmetic: TensixArithmetic = field(default_factory=TensixArithmetic)
    name: str = "tenstorrent"

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        return refuses(site, scheme, "blackhole")


@pytest.fixture(scope="module")
def setting(made: Path) -> Setting:
    return make_setting(read_recipe(str(made / "tiny.yaml"), ("search.evaluations=6", "search.candidates=1")))


def search(setting: Setting, backend: Backend, folder: Path) -> tuple[Found, dict]:
    """Run, or go on with, a study in the folder; what was found, and its summary as the file has it."""
    setting = replace(setting, backend=backend)
    begin = Study.open if folder.exists() else Study.create
    with begin(folder, {"recipe": "test"}) as study:
        found = run(setting, study, Progress(quiet=True), 1)
        write_results(setting, study, found, 1.0)
    return found, json.loads((folder / "summary.json").read_text())


def exact_candidates(folder: Path) -> Sequence[Candidate]:
    return [heard for heard in Study.read(folder).candidates() if heard.arithmetic == "noisy"]


@pytest.fixture(scope="module")
def fast(setting, tmp_path_factory) -> tuple[Path, Found, dict]:
    """The study of a target without an exact arithmetic: all that the others compute before their last gate."""
    folder = tmp_path_factory.mktemp("fast") / "study"
    return folder, *search(setting, Target(None), folder)


def begun(fast: tuple[Path, Found, dict], folder: Path) -> Path:
    """A study of which the fast part is done."""
    folder.mkdir()
    (folder / "study.jsonl").write_bytes((fast[0] / "study.jsonl").read_bytes())
    return folder


def test_without_an_exact_arithmetic_the_study_says_so(fast):
    folder, found, summary = fast
    assert summary["verdict"] == "kept"
    assert summary["arithmetic"] == summary["search_arithmetic"] == "tensix_fast"
    assert summary["exact"] is False
    assert summary["agreement"] is None
    assert found.heard is found.heard_fast
    assert all(gate["fast_value"] is None for gate in summary["gates"])
    assert "tenstorrent has no exact arithmetic here" in table(summary)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "there is no exact arithmetic of tenstorrent here" in page
    assert not (folder / FOLDER).exists()


def test_what_is_kept_exactly_is_reported_with_what_the_arithmetics_differ_by(setting, fast, tmp_path):
    folder = begun(fast, tmp_path / "study")
    found, summary = search(setting, Target(Noisy(1e-4)), folder)
    assert summary["verdict"] == "kept"
    assert found.policy == fast[1].policy, "noise this low must not call for a repair"
    assert summary["arithmetic"] == "noisy"
    assert summary["exact"] is True
    assert (summary["exact_repairs"], summary["evaluations"]) == (0, fast[2]["evaluations"] + 1)
    (heard,) = exact_candidates(folder)
    assert {gate["metric"]: gate["value"] for gate in summary["gates"]} == {
        verdict.gate.metric: verdict.value for verdict in heard.gates
    }
    by_metric = {gate["metric"]: gate for gate in summary["gates"]}
    assert by_metric["lsd_db"]["fast_value"] == fast[2]["gates"][0]["value"] != by_metric["lsd_db"]["value"]
    told = summary["agreement"]
    assert set(told["snr_db"]) == {"clip2", "clip3"}
    assert 30 < told["worst_snr_db"] <= told["mean_snr_db"] < 90
    assert told["snr_db"][told["worst_clip"]] == told["worst_snr_db"]
    for name, exact in zip(("clip2", "clip3"), found.rendered, strict=True):
        candidate, _ = soundfile.read(folder / "samples" / "candidate" / f"{name}.wav", dtype="float32")
        assert np.abs(candidate - np.clip(exact.signal, -1, 1)).max() < 1e-4, "samples must be the exact renders"
    text = table(summary)
    assert "judged in noisy, to the bit; searched in tensix_fast" in text
    assert f"{told['worst_snr_db']:.4g} dB at worst" in text
    page = write_report(folder).read_text(encoding="utf-8")
    assert "arithmetic to the bit, noisy" in page
    assert "Exact less fast" in page


def test_a_policy_kept_fast_and_broken_exactly_is_repaired_exactly(setting, fast, tmp_path):
    folder = begun(fast, tmp_path / "study")
    found, summary = search(setting, Target(Noisy(0.3)), folder)
    heard = exact_candidates(folder)
    repaired = next(index for index, candidate in enumerate(heard) if candidate.kept)
    assert heard[0].digest == fast[1].policy.digest
    assert summary["verdict"] == "kept"
    assert summary["exact_repairs"] == repaired == found.exact_repairs > 0
    assert summary["repairs"] == fast[2]["repairs"] + repaired
    (final,) = (candidate for candidate in heard if candidate.digest == summary["policy_digest"])
    assert final.kept
    assert summary["one_optimal"] is True
    exactly = [entry for left in summary["left_high"] for entry in left["refuted"] if entry["arithmetic"] == "noisy"]
    assert exactly, "what is kept fast is refuted exactly"
    assert [path.name for path in (folder / FOLDER).iterdir()] == [f"{final.digest}-noisy"], "broken renders must go"


def test_what_no_repair_keeps_exactly_is_not_reported_as_kept(setting, fast, tmp_path, monkeypatch):
    enough = fast[2]["repairs"] + 2
    monkeypatch.setattr("precision_search.deciding.REPAIRS", enough)
    folder = begun(fast, tmp_path / "study")
    found, summary = search(setting, Target(Noisy(3.0, everywhere=True)), folder)
    assert summary["verdict"] == "broken"
    assert found.exact_repairs == enough - 1
    assert not found.heard.kept
    assert len(exact_candidates(folder)) == enough < REPAIRS
    assert "on those held back in exact arithmetic the gates break" in table(summary)


def test_what_breaks_fast_is_heard_exactly_once(setting, tmp_path):
    hard = replace(setting, recipe=replace(setting.recipe, gates=(replace(setting.recipe.gates[0], max=1e-4),)))
    _, summary = search(hard, Target(Noisy(1e-4)), tmp_path / "study")
    assert summary["verdict"] == "broken"
    assert summary["arithmetic"] == "noisy"
    assert len(exact_candidates(tmp_path / "study")) == 1


def test_a_stopped_exact_gate_loses_one_clip_and_a_finished_one_nothing(setting, fast, tmp_path):
    whole = Noisy(1e-4)
    search(setting, Target(whole), begun(fast, tmp_path / "whole"))
    folder = begun(fast, tmp_path / "study")
    with pytest.raises(KeyboardInterrupt):
        search(setting, Target(Noisy(1e-4, stop_after=whole.calls - 3)), folder)  # in the second of two clips
    again = Noisy(1e-4)
    search(setting, Target(again), folder)
    assert again.calls == whole.calls // 2
    before = (folder / "study.jsonl").read_bytes(), (folder / "samples" / "candidate" / "clip3.wav").read_bytes()
    never = Noisy(1e-4, stop_after=0)
    search(setting, Target(never), folder)
    after = (folder / "study.jsonl").read_bytes(), (folder / "samples" / "candidate" / "clip3.wav").read_bytes()
    assert after == before
    for name in ("policy.yaml", "samples/candidate/clip2.wav"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_study_tells_arithmetics_apart_and_reads_logs_that_did_not(tmp_path):
    policy = Policy((("a", Scheme("bf16", "bf16", "bf16")),))

    def heard(arithmetic: str) -> Candidate:
        given = {"predicted": {}, "scores": {}, "gates": (), "seconds_cost": 0.0, "elapsed_seconds": 0.0}
        return Candidate.of(policy, "held_back", **given, arithmetic=arithmetic)

    with Study.create(tmp_path, {}) as study:
        for name in ("tensix_fast", "tensix_exact"):
            study.add_candidate(heard(name))
        old = heard("").to_dict()
        del old["arithmetic"]
        study.append(old)
    again = Study.read(tmp_path)
    for name in ("tensix_fast", "tensix_exact", ""):
        assert again.candidate(policy.digest, "held_back", name) == heard(name)
    assert again.candidate(policy.digest, "held_back", "other") is None


def test_exact_where_there_is_none_is_refused(tmp_path, capsys):
    recipe = read_recipe("tts_hopper", ("data.search=1", "data.held_back=2"))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", str(tmp_path), "--exact"])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "hopper has no exact arithmetic here" in said
    assert "without it" in said


def test_signal_to_difference():
    tone = np.sin(np.arange(1000) * 0.1).astype(np.float32)
    assert snr_db(tone, tone * np.float32(0.9)) == pytest.approx(20.0, abs=1e-3)
    assert snr_db(tone, tone) == math.inf
    for exact, fast in ((tone, tone[:-1]), (tone * np.nan, tone), (tone, tone + np.inf), (0 * tone, tone)):
        assert math.isnan(snr_db(exact, fast))
    told = agreement("fast", "exact", {"a": 60.0, "b": math.nan, "c": math.inf})
    assert told["snr_db"] == {"a": 60.0, "b": "nan", "c": "inf"}
    assert (told["worst_clip"], told["worst_snr_db"], told["mean_snr_db"]) == ("b", "nan", "nan")
