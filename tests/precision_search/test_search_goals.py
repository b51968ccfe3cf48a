"""What a recipe may ask of a search: goals, limits, methods and what is minimized, on a small random vocoder."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from audio_eval.suite import METRICS
from precision.blocks import stored_bits
from precision.candidate import Candidate
from precision.policy import Policy
from precision.search.outcome import Outcome
from precision.study import Study
from precision_search.damage import measure_damage
from precision_search.jury import Jury
from precision_search.problem import meter_of, pose
from precision_search.progress import Progress
from precision_search.report import write_report
from precision_search.searching import search_by_recipe
from precision_search.setting import Setting
from precision_search.table import table
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import Workers
from tests.families.searching import command

BUSY = "cost.streams=64"
"""So many that computing takes the time, and not launching."""
SMALL = (
    BUSY,
    "space=[{match: 'ups.*', allow: [bf16, lofi, bold]}, {match: conv_post, allow: [bf16, lofi, bold]},"
    " {match: 'resblocks.2.convs.0', allow: [bf16, lofi]}, {match: '*', allow: [bf16]}]",
    "gates=[{metric: lsd_db, max: 1.25}, {metric: group_delay_rad, max: 0.2}]",
)
"""162 policies, and gates that part them."""


@dataclass(frozen=True)
class Searched:
    """The search of a recipe, without what comes after it."""

    setting: Setting
    outcome: Outcome
    heard: tuple[Candidate, ...]

    def taken(self, policy: Policy, resource: Any = "seconds") -> float:
        return meter_of(self.setting).policy_usage(policy, resource)

    @property
    def policies(self) -> Iterator[Policy]:
        """Every policy of the space."""
        names, options = zip(*self.setting.space.items(), strict=True)
        for schemes in itertools.product(*options):
            yield Policy(tuple(zip(names, schemes, strict=True)))


@pytest.fixture(scope="module")
def searched(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Searched]:
    """Search with overrides of the recipe; damages are measured once for all."""
    damages: list[dict[str, Any]] = []

    def search(*overrides: str) -> Searched:
        setting, quiet = make_setting(read_recipe(str(made / "tiny.yaml"), overrides)), Progress(quiet=True)
        folder = tmp_path_factory.mktemp("searched") / "study"
        with Study.create(folder, {}) as study, Workers(setting, None, 1, {}) as crew:
            for record in damages:
                study.append(record)
            jury = Jury(setting, study, crew, quiet)
            posed = pose(setting, measure_damage(setting, study, crew, jury.searching, quiet))
            known = {record["key"] for record in damages}
            damages.extend(record for record in study.records("damage") if record["key"] not in known)
            return Searched(setting, search_by_recipe(setting, posed, jury, quiet), tuple(study.candidates()))

    return search


def run(made: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Run the command with overrides; the summary."""
    changes = [part for override in overrides for part in ("--set", override)]
    assert command("run", made / "tiny.yaml", "--out", folder, "--quiet", "--workers", 1, *changes) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def policy_of(setting: Setting, folder: Path) -> Policy:
    sites = yaml.safe_load((folder / "policy.yaml").read_text())["sites"]
    schemes = {scheme.name: scheme for scheme in setting.recipe.schemes}
    return Policy(tuple((site, schemes[name]) for site, name in sites.items()))


@pytest.fixture(scope="module")
def whole(searched) -> Searched:
    return searched(*SMALL, "search.method=exhaustive")


def test_a_small_space_is_gone_through_to_its_optimum(whole, searched):
    best = whole.outcome.best
    assert whole.outcome.reason == "optimal"
    kept = {candidate.digest: candidate.kept for candidate in whole.heard}
    taken = {policy.digest: whole.taken(policy) for policy in whole.policies}
    assert len(taken) == 162
    (optimum,) = (digest for digest, held in kept.items() if held)
    assert best.cost == pytest.approx(taken[optimum])
    cheaper = [digest for digest, seconds in taken.items() if seconds < best.cost * (1 - 1e-9)]
    assert len(cheaper) > 10
    assert not any(kept[digest] for digest in cheaper), "all that is cheaper was heard and broke"
    exact = searched(*SMALL, "search.evaluations=60", "search.candidates=20").outcome
    assert exact.best.cost >= best.cost * (1 - 1e-9)
    assert exact.best.cost == pytest.approx(best.cost)
    assert len(exact.tried) < len(whole.outcome.tried)


def test_the_best_audio_is_that_of_all_policies_within_the_limit(searched):
    asked = (*SMALL, "search.goal=best_audio", "search.within={seconds: 0.97}", "search.evaluations=60")
    every = searched(*asked, "search.method=exhaustive")
    baseline = Policy.uniform([site.name for site in every.setting.sites], every.setting.recipe.baseline)
    most = 0.97 * every.taken(baseline)
    within = {policy.digest for policy in every.policies if every.taken(policy) <= most * (1 + 1e-9)}
    assert {candidate.digest for candidate in every.heard} == within
    assert 10 < len(within) < 162
    best = min(trial.evaluation.worst for trial in every.outcome.tried)
    assert every.outcome.best.evaluation.worst == best
    exact = searched(*asked).outcome
    assert best <= exact.best.evaluation.worst <= best + 0.02
    assert len(exact.tried) < len(within)


def test_of_policies_that_keep_every_gate_the_best_audio_is_the_better_one(searched):
    guards = "{metric: finite, over: worst, min: 1}, {metric: lag_samples, over: worst, max: 0}"
    gates = f"gates=[{{metric: lsd_db, max: 3}}, {{metric: group_delay_rad, max: 0.3}}, {guards}]"
    asked = (*SMALL[:2], gates, "search.goal=best_audio", "search.within={seconds: 0.97}")
    every = searched(*asked, "search.method=exhaustive").outcome
    kept = [trial.evaluation for trial in every.tried if trial.evaluation.kept]
    assert len(kept) > 10
    assert len({evaluation.worst for evaluation in kept}) > 10, "guards are kept by all alike, and part none"
    least = min(max(evaluation.ratio.values()) for evaluation in kept)
    assert max(every.best.evaluation.ratio.values()) == least < 0.8
    assert every.best.evaluation.worst == pytest.approx(least - 1)


@pytest.mark.parametrize("method", ["tpe", "nsga2"])
def test_samplers_draw_the_same_again(searched, method):
    asked = (BUSY, f"search.method={method}", "search.evaluations=14")
    first, second = searched(*asked).outcome, searched(*asked).outcome
    assert [trial.choice for trial in first.tried] == [trial.choice for trial in second.tried]
    assert first.best == second.best
    assert first.best.evaluation.kept
    assert {trial.stage for trial in first.tried} == {"warm", "sampled"}


def test_the_best_audio_within_a_share_of_the_baseline(made, searched, tmp_path):
    asked = (BUSY, "search.goal=best_audio", "search.within={seconds: 0.8}")
    summary = run(made, tmp_path / "study", *asked)
    setting = make_setting(read_recipe(str(made / "tiny.yaml"), asked))
    policy, meter = policy_of(setting, tmp_path / "study"), meter_of(setting)
    baseline = Policy.uniform([site.name for site in setting.sites], setting.recipe.baseline)
    share = meter.policy_usage(policy, "seconds") / meter.policy_usage(baseline, "seconds")
    assert share <= 0.8 * (1 + 1e-9)
    (limit,) = summary["target"]["within"]
    assert (limit["what"], limit["asked"]) == ("seconds", 0.8)
    assert limit["taken"] == pytest.approx(share)
    assert summary["target"]["goal"] == "best_audio"
    assert not summary["one_optimal"], "what sounds best is not made cheaper"
    heard = Study.read(tmp_path / "study").candidates("search")
    (found,) = (candidate for candidate in heard if candidate.digest == policy.digest)
    cheapest = searched(BUSY).outcome.best
    assert share > cheapest.cost / meter.policy_usage(baseline, "seconds"), "there was room for audio"
    adding = [verdict for verdict in found.gates if METRICS[verdict.gate.metric].additive]
    assert max(-verdict.margin / verdict.gate.threshold for verdict in adding) < cheapest.evaluation.worst < 0
    said = table(summary)
    assert "asked for at most 0.8 of the baseline's seconds" in said
    assert "the best audio that was found within that" in said
    assert "at most 0.8 of the baseline" in write_report(tmp_path / "study").read_text()


def test_a_limit_on_bits_a_weight_is_met(made, tmp_path):
    summary = run(made, tmp_path / "study", "search.within={effective_bits: 9}", "search.minimize=joules")
    setting = make_setting(read_recipe(str(made / "tiny.yaml"), ()))
    policy = policy_of(setting, tmp_path / "study")
    bits = sum(site.weight_elements * stored_bits(policy[site.name].weight) for site in setting.sites)
    bits /= sum(site.weight_elements for site in setting.sites)
    assert bits <= 9
    (limit,) = summary["target"]["within"]
    assert limit["taken"] == pytest.approx(bits)
    assert re.search(r"asked for at most 9 bits a weight; the policy takes [4-9]\.\d+\n", table(summary))


@pytest.mark.parametrize(
    ("minimize", "method", "others"),
    [("usd", "tpe", ()), ("joules", "nsga2", ()), ("weight_bytes", "exhaustive", SMALL)],
)
def test_whatever_is_minimized_however_the_run_ends_in_a_policy_that_is_kept(made, tmp_path, minimize, method, others):
    summary = run(made, tmp_path / "study", *others, f"search.minimize={minimize}", f"search.method={method}")
    assert summary["verdict"] == "kept"
    assert summary["one_optimal"]
    assert (summary["target"]["minimize"], summary["target"]["method"]) == (minimize, method)
    front = json.loads((tmp_path / "study" / "front.json").read_text())
    assert front["minimize"] == minimize
    assert front["points"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.within={seconds: 0.5, joules: 0.99}"], r"seconds: 0\.5 was asked, .* less than 0\.74\d*; ask"),
        (["search.within={effective_bits: 4}"], r"effective_bits: 4 was asked, .* less than 4\.5; ask for 4\.5 or"),
        (
            [
                "schemes.slim={weight: bfp4_b, activation: bf16, fidelity: hifi4}",
                "space=[{match: '*', allow: [bf16, lofi, slim]}]",
                "search.within={passes: 0.3, effective_bits: 6}",
            ],
            r"each limit can be met alone, and all of them if each is 1\.\d+ times as large",
        ),
        (
            ["search.method=exhaustive", "schemes.half={weight: bfp8_b, activation: bf16, fidelity: hifi2}",
             "space=[{match: '*', allow: [bf16, half, lofi, bold]}]"],
            r"goes through at most 200000 policies, and there are 4\.19e\+06",
        ),
    ],
    ids=["limit", "bits", "together", "space"],
)  # fmt: skip
def test_what_cannot_be_met_is_said_at_once_and_nothing_is_left_behind(made, tmp_path, capsys, overrides, said):
    changes = [part for override in (BUSY, *overrides) for part in ("--set", override)]
    assert command("run", made / "tiny.yaml", "--out", tmp_path / "study", "--quiet", *changes) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "study").exists()


def test_the_best_audio_may_break_the_gates_and_then_says_by_how_much(made, tmp_path):
    asked = (BUSY, "search.goal=best_audio", "search.within={seconds: 0.75}", "gates=[{metric: lsd_db, max: 1.2}]")
    changes = [part for override in asked for part in ("--set", override)]
    assert command("run", made / "tiny.yaml", "--out", tmp_path / "study", "--quiet", "--workers", 1, *changes) == 1
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert summary["verdict"] == "broken"
    assert re.fullmatch(
        r"the best audio within the limits, at \d\.\d\d us a second of audio, is [\d.]+ % beyond its worst threshold"
        r" after \d+ evaluations.* on the search's clips",
        summary["message"],
    )
    assert summary["target"]["within"][0]["taken"] <= 0.75
