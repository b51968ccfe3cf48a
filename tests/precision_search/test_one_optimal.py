"""What is reported cannot be lowered at any single site: each cheaper change is built and heard beside the run."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from audio_eval.scoring import score_each
from audio_eval.suite import ReferenceClip
from backends.emulation.audition import Bench, output_of
from backends.emulation.engine import EmulatedEngine
from precision.candidate import Candidate, Split
from precision.gates import Verdict
from precision.policy import Policy
from precision.study import Study
from precision_search.damage import measure_damage
from precision_search.deciding import Decided, one_optimal
from precision_search.jury import Jury
from precision_search.loading import MODELS
from precision_search.problem import meter_of, pose
from precision_search.progress import Progress
from precision_search.refuted import refuted_of
from precision_search.report.markup import breakable
from precision_search.results import read_policy
from precision_search.setting import Setting, SetupError
from precision_search.table import table
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import Workers
from tests.families.autoregressive import AutoregressiveVoice
from tests.families.searching import command, loading, write_recipe

Change = tuple[frozenset[str], str]
"""Sites that move together, and the scheme they would take."""

TOKENS = """
  - {metric: lsd_db, max: 1}
  - {metric: text_kl_nats, max: 0.0003}
  - {metric: audio_kl_nats, max: 0.0003}
  - {metric: length_samples, over: worst, max: 0}
"""


@dataclass
class Proved:
    """A finished study, and ears of its own."""

    setting: Setting
    folder: Path
    _references: dict[str, list[ReferenceClip]] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Path, folder: Path, *overrides: str) -> "Proved":
        changes = [part for override in overrides for part in ("--set", override)]
        assert command("run", recipe, "--out", folder, "--quiet", "--workers", 1, *changes) == 0
        return cls(make_setting(read_recipe(str(recipe), overrides)), folder)

    @cached_property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    @cached_property
    def policy(self) -> Policy:
        return read_policy(self.setting, self.folder / "policy.yaml")

    @cached_property
    def candidates(self) -> list[Candidate]:
        return list(Study.read(self.folder).candidates())

    def seconds(self, policy: Policy) -> float:
        """Of the card, typecasts included."""
        return meter_of(self.setting).policy_usage(policy, "seconds")

    def hear(self, policy: Policy, split: Split, arithmetic: str) -> tuple[Verdict, ...]:
        """Verdicts of every gate, by engines that share nothing with the run."""
        setting = self.setting
        exact = setting.backend.exact
        computing = exact if exact is not None and exact.name == arithmetic else setting.backend.arithmetic
        assert computing.name == arithmetic
        clips, rate = setting.clips_of(split), setting.voice.sample_rate_hz
        if split not in self._references:
            made = [output_of(setting.voice.render(clip)) for clip in clips]
            self._references[split] = [
                ReferenceClip(output, rate, clip.natural) for output, clip in zip(made, clips, strict=True)
            ]
        bench = Bench.of(setting.recipe.gates, setting.material(split), len(clips))
        engine = EmulatedEngine(setting.voice, policy, computing)
        scores = [
            score_each(reference, output_of(engine.render(clip)), bench.metrics)[0]
            for reference, clip in zip(self._references[split], clips, strict=True)
        ]
        return bench.verdicts(scores, seed=setting.recipe.search.seed)

    def cheaper(self) -> Iterator[tuple[Change, Policy]]:
        """Every change of one site, or of sites that must agree, that takes less of the card."""
        sites = self.setting.sites
        together = {site.name: frozenset(s.name for s in sites if s.group and s.group == site.group) for site in sites}
        units = dict.fromkeys(together[site.name] or frozenset((site.name,)) for site in sites)
        for unit in units:
            for scheme in dict.fromkeys(scheme for name in sorted(unit) for scheme in self.setting.space[name]):
                changed = Policy(tuple((name, scheme if name in unit else own) for name, own in self.policy.schemes))
                if self.seconds(changed) < self.seconds(self.policy) * (1 - 1e-9):
                    yield (unit, scheme.name), changed

    @property
    def told(self) -> dict[Change, dict[str, Any]]:
        """What the summary says against each change."""
        return {
            (frozenset(entry["sites"]), entry["scheme"]): entry
            for left in self.summary["left_high"]
            for entry in left["refuted"]
        }


@pytest.fixture(scope="module")
def repaired(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """The best of its search breaks on the clips held back, and what it is raised to can be lowered elsewhere."""
    return Proved.of(made / "tiny.yaml", tmp_path_factory.mktemp("repaired") / "study")


@pytest.fixture(scope="module")
def tight(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Gates that leave many sites high, and four schemes."""
    return Proved.of(
        made / "tiny.yaml",
        tmp_path_factory.mktemp("tight") / "study",
        "gates=[{metric: lsd_db, max: 1.6}, {metric: group_delay_rad, max: 0.2}]",
        "schemes.half={weight: bfp8_b, activation: bf16, fidelity: hifi2}",
        "space=[{match: '*', allow: [bf16, half, lofi, bold]}]",
    )


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proved]:
    """A small transformer whose q/k/v compute as one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("precision_search.loading.MODELS", {**MODELS, "autoregressive": loading(AutoregressiveVoice)})
        folder = tmp_path_factory.mktemp("fused")
        recipe = write_recipe(folder, "autoregressive", TOKENS)
        every = "[bf16, lofi, bold]"
        together = f"{{match: '*.attention.[qkv]*', allow: {every}, agree: module}}"
        rules = f"space=[{together}, {{match: '*', allow: {every}}}]"
        yield Proved.of(recipe, folder / "study", "cost.streams=64", "search.evaluations=8", rules)


@pytest.fixture(params=["repaired", "tight", "fused"])
def study(request: pytest.FixtureRequest) -> Proved:
    found: Proved = request.getfixturevalue(request.param)
    return found


def test_every_cheaper_change_is_listed_and_no_other(study):
    assert study.summary["one_optimal"] is True
    changes = {change for change, _ in study.cheaper()}
    assert set(study.told) == changes
    assert {left["site"] for left in study.summary["left_high"]} == {name for unit, _ in changes for name in unit}


def test_each_of_them_breaks_the_gate_that_is_named_by_as_much(study):
    heard = {place: study.hear(study.policy, *place) for place in {evidence(entry) for entry in study.told.values()}}
    assert heard
    for verdicts in heard.values():
        assert all(verdict.kept for verdict in verdicts), "what the policy breaks too speaks against nothing"
    for change, lowered in study.cheaper():
        entry = study.told[change]
        (verdict,) = (
            verdict
            for verdict in study.hear(lowered, *evidence(entry))
            if (verdict.gate.metric, verdict.gate.over) == (entry["metric"], entry["over"])
        )
        assert not verdict.kept, change
        assert verdict.value == pytest.approx(entry["value"], rel=1e-6)
        assert verdict.gate.threshold == entry["threshold"]
        assert verdict.margin == pytest.approx(entry["margin"], rel=1e-6)


def evidence(entry: dict[str, Any]) -> tuple[Split, str]:
    """Which clips, and in which arithmetic."""
    return entry["split"], entry["arithmetic"]


def test_the_policy_keeps_every_gate_to_the_bit(study):
    verdicts = study.hear(study.policy, "held_back", study.summary["arithmetic"])
    assert study.summary["exact"]
    assert all(verdict.kept for verdict in verdicts)
    told = {gate["metric"]: gate["value"] for gate in study.summary["gates"]}
    assert {verdict.gate.metric: verdict.value for verdict in verdicts} == pytest.approx(told, rel=1e-6)


def test_what_was_repaired_is_lowered_again_where_that_holds(repaired):
    fast = repaired.summary["search_arithmetic"]
    searched = [candidate for candidate in repaired.candidates if candidate.split == "search"]
    best = min((candidate for candidate in searched if candidate.kept), key=lambda found: found.seconds_cost)
    held_back = {
        candidate.digest: candidate
        for candidate in repaired.candidates
        if (candidate.split, candidate.arithmetic) == ("held_back", fast)
    }
    assert not held_back[best.digest].kept
    assert repaired.summary["repairs"] > repaired.summary["exact_repairs"] > 0
    exactly = [candidate for candidate in repaired.candidates if candidate.arithmetic != fast]
    first = next(candidate for candidate in exactly if candidate.kept)
    assert first.digest != repaired.summary["policy_digest"]
    assert repaired.seconds(repaired.policy) < first.seconds_cost


def test_sites_that_must_agree_do_and_are_left_high_as_one(fused):
    for block in ("blocks.0", "blocks.1"):
        schemes = {fused.policy[f"{block}.attention.{part}"].name for part in ("query", "key", "value")}
        assert len(schemes) == 1
    together = [unit for unit, _ in fused.told if len(unit) > 1]
    assert together
    assert all(len(unit) == 3 for unit in together)
    for left in fused.summary["left_high"]:
        if left["site"].endswith(".key"):
            assert f"together with {left['site'][:-3]}query, {left['site'][:-3]}value" in left["why"]


def test_what_a_search_left_out_is_heard_for_the_proof(tight, tmp_path):
    """A site whose own render was no sound is no candidate, and no reason to leave the site high."""
    setting, quiet = tight.setting, Progress(quiet=True)
    left = next(left for left in tight.summary["left_high"] if len(left["refuted"]) > 1)
    named = left["site"], left["refuted"][0]["scheme"]
    shutil.copytree(tight.folder, tmp_path / "study")
    header = Study.read(tmp_path / "study").header
    with Study.open(tmp_path / "study", header) as study, Workers(setting, None, 1, {}) as crew:
        jury = Jury(setting, study, crew, quiet)
        damage = measure_damage(setting, study, crew, jury.searching, quiet)
        posed = pose(setting, {**damage, named: dict.fromkeys(damage[named], math.inf)})
        names = [scheme.name for scheme in setting.recipe.schemes]
        choice = tuple(names.index(scheme.name) for scheme in tight.policy.values())
        place = [site.name for site in setting.sites].index(named[0]), names.index(named[1])
        assert math.isinf(posed.problem.cost[place])
        assert math.isfinite(posed.whole.cost[place])
        decided, proof = one_optimal(posed, jury, Decided(choice, True, 0, 0), quiet)
        assert decided.choice == choice
        told = {(frozenset(entry.sites), entry.scheme) for entry in refuted_of(posed.whole, jury, study, proof)}
        assert told == set(tight.told)
        ruined = {key: dict.fromkeys(found, math.inf) for key, found in damage.items() if key[0] == named[0]}
        with pytest.raises(SetupError, match=f"whatever scheme {named[0]} may take, the model makes NaN or Inf"):
            pose(setting, {**damage, **ruined})


def test_the_table_counts_each_change_once(study):
    assert f"no single site can be cheaper: {len(study.told)} changes were tried" in table(study.summary)


def test_the_report_has_a_line_for_each_change_and_folds_many(study):
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    left_high = study.summary["left_high"]
    for left in left_high:
        entries = left["refuted"]
        start = page.index(f">{breakable(left['site'])}</th>", page.index('id="policy"'))
        shown = page[start : page.index("</tr>", start)]
        lines = [f"<li>{entry['scheme']}: {entry['metric']} ({entry['over']}) would be" for entry in entries]
        places = [shown.index(line) for line in lines]
        assert places == sorted(places)
        assert ("<details>" in shown) == (len(entries) > 2)
        assert ("Computes as one with" in shown) == (len(entries[0]["sites"]) > 1)
    assert f"{len(study.told)} changes were tried, and each breaks a gate" in page
