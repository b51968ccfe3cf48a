"""Run: a recipe from its setting to a gated policy, stage by stage, each finding in the study before the next."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from audio_eval.clip import Samples
from backends.cost import CostModel
from backends.emulation.audition import Bench, Scores, excess
from calibrate.calibration import Calibration
from calibrate.observing import observing
from precision.candidate import Candidate, Split
from precision.gates import Verdict
from precision.policy import Policy, Scheme
from precision.search.driver import repair, search
from precision.search.outcome import Evaluation, Outcome
from precision.search.outcome import Progress as SearchProgress
from precision.search.problem import Choice, Problem
from precision.site import Site
from precision.study import Study
from precision_search.progress import Progress
from precision_search.unforced import unforced
from precision_search.wire import Setting
from precision_search.workers import Workers
from voice.intercept import intercept

SCALED = ("fp8_e4m3", "fp8_e5m2", "int8")
REPAIRS = 24
"""Most policies tried where the best of the search breaks on the clips held back."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found of one policy on one split."""

    verdicts: tuple[Verdict, ...]
    scores: Mapping[str, Scores]
    """Clip -> metric -> value."""

    @property
    def kept(self) -> bool:
        """Whether every gate that was asked was kept."""
        return all(verdict.kept for verdict in self.verdicts)


@dataclass(frozen=True)
class Found:
    """What a run found."""

    policy: Policy
    heard: Heard
    """Of the policy on the clips held back."""
    baseline: Heard
    outcome: Outcome
    repairs: int
    """Policies tried after the search because a gate broke on the clips held back."""
    problem: Problem
    bench: Bench
    """Of the clips held back."""
    evaluations: int
    references: tuple[Samples, ...]
    rendered: tuple[Samples, ...]
    """The clips held back under the policy."""
    unforced: dict[str, Any] | None
    """What moved when nothing was forced; None for a model that is forced nothing."""


def calibrated(setting: Setting, progress: Progress) -> Calibration | None:
    """Ranges of activations on the search clips; None where no scheme needs any."""
    torch.set_num_threads(1)
    if not any(scheme.activation in SCALED for scheme in setting.recipe.schemes):
        return None
    recipe, voice = setting.recipe, setting.voice
    progress.begin("calibrating", len(setting.search_clips))
    with observing(
        partial(intercept, voice.module),
        recipe.calibrate.method,
        percentile=recipe.calibrate.percentile or 99.99,
    ) as observer:
        for clip in setting.search_clips:
            voice.render(clip)
            progress.step(clip.name)
    return observer.calibration()


def run(setting: Setting, study: Study, progress: Progress, workers: int) -> Found:
    """Measure, solve, verify, repair; every evaluation is in the study before the next begins."""
    recipe = setting.recipe
    calibration = calibrated(setting, progress)
    with Workers(setting, calibration, workers) as crew:
        jury = Jury(setting, study, crew)
        problem = problem_of(setting, measure_damage(setting, study, crew, jury.searching, progress))
        outcome = _search(setting, problem, jury, progress)
        progress.begin("hearing the baseline on the clips held back")
        yardstick = jury.hear(Policy.uniform([site.name for site in setting.sites], recipe.baseline), "held_back")
        start = outcome.best or outcome.nearest
        assert start is not None
        choice, repairs = start.choice, 0
        if outcome.best is not None:
            progress.begin("holding the best against the clips held back", REPAIRS)
            repaired = repair(
                problem,
                jury.held_back.budgets,
                start.choice,
                partial(jury.evaluate, problem=problem, split="held_back", whole=True),
                evaluations=REPAIRS,
                on_progress=lambda _: progress.step(),
            )
            final = repaired.best or repaired.nearest
            assert final is not None
            choice, repairs = final.choice, len(repaired.tried) - 1
        policy = jury.policy_of(problem, choice)
        heard = jury.hear(policy, "held_back")
        progress.begin("rendering the samples")
        count = len(setting.held_back_clips)
        rendered = tuple(samples for samples, _ in crew.render("held_back", policy, count, ()))
        references = tuple(reference.reference for reference in crew.local.of("held_back").references)
    progress.begin("rendering the clips with nothing forced")
    free = unforced(setting, policy, calibration)
    progress.end()
    return Found(
        policy=policy,
        heard=heard,
        baseline=yardstick,
        outcome=outcome,
        repairs=repairs,
        problem=problem,
        bench=jury.held_back,
        evaluations=jury.evaluations,
        references=references,
        rendered=rendered,
        unforced=free,
    )


def measure_damage(
    setting: Setting, study: Study, crew: Workers, bench: Bench, progress: Progress
) -> dict[tuple[str, str], Mapping[str, float]]:
    """Damage of each (site, scheme) that is allowed and not refused; what the study holds is not measured again."""
    todo = [
        (site, scheme)
        for site in setting.sites
        for scheme in setting.space[site.name]
        if (site.name, scheme.name) not in setting.refused
    ]
    first: dict[tuple[str, Scheme], tuple[Site, Scheme]] = {}
    for site, scheme in todo:
        first.setdefault(_alike(site, scheme), (site, scheme))
    held = {key: study.damage(site.name, scheme) for key, (site, scheme) in first.items()}
    asked = [key for key, found in held.items() if found is None]
    progress.begin("measuring damage", len(asked))
    measured = crew.damage([(first[key][0].name, first[key][1]) for key in asked], bench.additive)
    for key, found in zip(asked, measured, strict=True):
        site, scheme = first[key]
        study.add_damage(site.name, scheme, found)
        held[key] = found
        progress.step(f"{site.name} as {scheme.name}")
    damage: dict[tuple[str, str], Mapping[str, float]] = {}
    for site, scheme in todo:
        known = held[_alike(site, scheme)]
        assert known is not None
        damage[site.name, scheme.name] = known
    return damage


def _alike(site: Site, scheme: Scheme) -> tuple[str, Scheme]:
    """A key that is one for schemes that differ in their weights alone, at a product of two activations."""
    return site.name, scheme if site.weight_shape else replace(scheme, name="", weight="", levers=())


def problem_of(setting: Setting, damage: Mapping[tuple[str, str], Mapping[str, float]]) -> Problem:
    """The search's arrays: what each choice costs on the card, and what it damages."""
    sites, names = setting.sites, [scheme.name for scheme in setting.recipe.schemes]
    metrics = tuple(next(iter(damage.values())))
    model = CostModel.of(setting.device, sites, streams=setting.recipe.cost.streams)
    cost = np.full((len(sites), len(names)), np.inf)
    table = np.zeros((len(metrics), len(sites), len(names)))
    for row, site in enumerate(sites):
        for scheme in setting.space[site.name]:
            if (site.name, scheme.name) in setting.refused:
                continue
            column = names.index(scheme.name)
            cost[row, column] = model.site_cost(site, scheme).seconds
            table[:, row, column] = [damage[site.name, scheme.name][metric] for metric in metrics]
    groups: dict[str, list[int]] = {}
    for row, site in enumerate(sites):
        if site.group is not None:
            groups.setdefault(site.group, []).append(row)
    return Problem(
        sites=tuple(site.name for site in sites),
        options=tuple(tuple(names) for _ in sites),
        metrics=metrics,
        cost=cost,
        damage=table,
        groups=tuple(tuple(rows) for rows in groups.values()),
    )


def _search(setting: Setting, problem: Problem, jury: "Jury", progress: Progress) -> Outcome:
    wanted = setting.recipe.search
    progress.begin("searching", wanted.evaluations)

    def tell(state: SearchProgress) -> None:
        best = "none kept yet" if state.best is None else f"best {state.best.cost * 1e6:.2f} us a second of audio"
        progress.step(best)

    return search(
        problem,
        jury.searching.budgets,
        partial(jury.evaluate, problem=problem, split="search", whole=False),
        candidates=wanted.candidates,
        evaluations=wanted.evaluations,
        on_progress=tell,
    )


class Jury:
    """Hears policies, asking the study before and telling it afterwards."""

    def __init__(self, setting: Setting, study: Study, crew: Workers) -> None:
        self._setting = setting
        self._study = study
        self._crew = crew
        self._heard: set[tuple[str, Split]] = set()
        rate, gates = setting.voice.sample_rate_hz, setting.recipe.gates
        self.searching = Bench.of(gates, setting.search_clips, rate)
        self.held_back = Bench.of(gates, setting.held_back_clips, rate)
        model = CostModel.of(setting.device, setting.sites, streams=setting.recipe.cost.streams)
        self._cost = partial(_policy_seconds, setting, model)

    @property
    def evaluations(self) -> int:
        """Policies heard, those that the study already had included."""
        return len(self._heard)

    def policy_of(self, problem: Problem, choice: Choice) -> Policy:
        """The policy of a choice of option indices."""
        schemes = self._setting.recipe.schemes
        return Policy(tuple((site, schemes[option]) for site, option in zip(problem.sites, choice, strict=True)))

    def evaluate(self, choice: Choice, *, problem: Problem, split: Split, whole: bool) -> Evaluation:
        """Evaluate a choice for the search."""
        budgets = (self.searching if split == "search" else self.held_back).budgets
        predicted = problem.predicted(choice)
        heard = self.hear(self.policy_of(problem, choice), split, whole=whole, predicted=predicted)
        worst = [excess(verdict) for verdict in heard.verdicts]
        ratio: dict[str, float] = {}
        for verdict in heard.verdicts:
            metric = verdict.gate.metric
            if metric in budgets:
                ratio[metric] = max(verdict.value / budgets[metric], ratio.get(metric, 0.0))
        return Evaluation(heard.kept, math.nan if any(map(math.isnan, worst)) else max(worst), ratio)

    def hear(
        self, policy: Policy, split: Split, *, whole: bool = True, predicted: Mapping[str, float] | None = None
    ) -> Heard:
        """Hear a policy, unless the study has it: all gates, or no dear ones once a cheap one is broken."""
        self._heard.add((policy.digest, split))
        held = self._study.candidate(policy.digest, split)
        if held is not None:
            return Heard(held.gates, held.scores)
        begun = time.monotonic()
        heard = hear(self._setting, self._crew, policy, split, whole=whole)
        self._study.add_candidate(
            Candidate.of(
                policy,
                split,
                predicted=predicted or {},
                scores=heard.scores,
                gates=heard.verdicts,
                seconds_cost=self._cost(policy),
                elapsed_seconds=round(time.monotonic() - begun, 3),
            )
        )
        return heard


def hear(setting: Setting, crew: Workers, policy: Policy, split: Split, *, whole: bool) -> Heard:
    """Render a policy on the clips of a split and judge it.

    The gates whose metrics add are always asked, all of them: a search corrects itself by them. The dear ones are asked
    where `whole` says so, or where the others were kept.
    """
    clips = setting.search_clips if split == "search" else setting.held_back_clips
    bench = Bench.of(setting.recipe.gates, clips, setting.voice.sample_rate_hz)
    seed = setting.recipe.search.seed
    made = crew.render(split, policy, len(clips), bench.additive)
    scores: list[Scores] = [found for _, found in made]
    verdicts = bench.verdicts(scores, seed=seed) if bench.additive else ()
    if whole or all(verdict.kept for verdict in verdicts):
        rest = crew.score(split, [samples for samples, _ in made], bench.others)
        scores = [{**first, **second} for first, second in zip(scores, rest, strict=True)]
        verdicts = bench.verdicts(scores, seed=seed)
    return Heard(verdicts, {clip.name: found for clip, found in zip(clips, scores, strict=True)})


def _policy_seconds(setting: Setting, model: CostModel, policy: Policy) -> float:
    schemes = dict(policy.schemes)
    return math.fsum(model.site_cost(site, schemes[site.name]).seconds for site in setting.sites)
