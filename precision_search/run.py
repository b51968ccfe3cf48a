"""Run: a recipe from its setting to a gated policy, stage by stage, each finding in the study before the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from audio_eval.clip import Samples
from backends.cost import CostModel
from backends.emulation.audition import Bench
from backends.emulation.sampling import sample_rows
from calibrate.adapted import Adapted
from calibrate.calibration import Calibration
from calibrate.moments import NEEDS_MOMENTS, Moments, observing_moments
from calibrate.observing import observing
from precision.policy import Policy, Scheme
from precision.search.driver import repair, search
from precision.search.outcome import Outcome
from precision.search.outcome import Progress as SearchProgress
from precision.search.problem import Choice, Problem
from precision.site import Site
from precision.study import Study
from precision_search.adaptation import FILE, adapt_weights, target_of
from precision_search.agreement import snr_db
from precision_search.jury import Heard, Jury, hear
from precision_search.progress import Progress
from precision_search.renders import keep_renders
from precision_search.unforced import unforced
from precision_search.wire import Setting
from precision_search.workers import Workers
from voice.intercept import intercept

__all__ = ["REPAIRS", "Found", "calibrated", "hear", "measure_damage", "moments_of", "problem_of", "run"]

SCALED = ("fp8_e4m3", "fp8_e5m2", "int8")
MOMENT_ROWS = 16384
"""Rows of a site's input, of all clips together, that its moments are taken of, where it is called once a clip."""
REPAIRS = 24
"""Most policies tried in each arithmetic where the best of the search breaks on the clips held back."""


@dataclass(frozen=True)
class Found:
    """What a run found."""

    policy: Policy
    heard: Heard
    """Of the policy on the clips held back, in the exact arithmetic where the target has one: what is reported."""
    heard_fast: Heard
    """The same in the arithmetic of the search."""
    baseline: Heard
    """Of the baseline on the clips held back, in the arithmetic of the search."""
    outcome: Outcome
    repairs: int
    """Policies tried after the search because a gate broke on the clips held back."""
    exact_repairs: int
    """Those of them that were tried because a gate broke in the exact arithmetic."""
    exact: str | None
    """Name of the exact arithmetic; None where the target has none."""
    fast_snr_db: Mapping[str, float] | None
    """Clip held back -> how far the fast render is under the exact one; None without exact renders."""
    problem: Problem
    bench: Bench
    """Of the clips held back."""
    evaluations: int
    references: tuple[Samples, ...]
    rendered: tuple[Samples, ...]
    """The clips held back under the policy, in the arithmetic that decided."""
    unforced: dict[str, Any] | None
    """What moved when nothing was forced; None for a model that is forced nothing."""
    adapted: Adapted | None = None
    """The training of the weights; None where they are the model's own."""


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


def moments_of(setting: Setting, progress: Progress) -> dict[str, Moments]:
    """Moments of what goes into the sites that may take a scheme whose levers ask for them, on the search clips."""
    torch.set_num_threads(1)
    wanted = {
        site.name
        for site in setting.sites
        for scheme in (setting.recipe.baseline, *setting.space[site.name])
        if site.weight_shape
        and NEEDS_MOMENTS.intersection(scheme.levers)
        and (site.name, scheme.name) not in setting.refused
    }
    if not wanted:
        return {}
    voice, clips = setting.voice, setting.search_clips
    progress.begin("taking the moments of activations", len(clips))
    with observing_moments(
        partial(intercept, voice.module), partial(sample_rows, limit=max(MOMENT_ROWS // len(clips), 1)), wanted
    ) as observer:
        for clip in clips:
            voice.render(clip)
            progress.step(clip.name)
    return observer.moments()


def run(setting: Setting, study: Study, progress: Progress, workers: int) -> Found:
    """Measure, solve, verify, repair; every evaluation is in the study before the next begins."""
    recipe = setting.recipe
    calibration, moments = calibrated(setting, progress), moments_of(setting, progress)
    file = None if recipe.adapt is None else study.folder / FILE
    adapted: Adapted | None = None
    with Workers(setting, calibration, workers, moments, file) as crew:
        jury = Jury(setting, study, crew, progress)
        problem = problem_of(setting, measure_damage(setting, study, crew, jury.searching, progress))
        if recipe.adapt is not None:
            target = target_of(problem, jury.searching.budgets)
            trained_for = jury.policy_of(problem, target)
            adapted, jury.adapted = adapt_weights(setting, study, trained_for, calibration, moments, progress)
            outcome = _search_from(target, setting, problem, jury, progress)
        else:
            outcome = _search(setting, problem, jury, progress)
        progress.begin("hearing the baseline on the clips held back")
        yardstick = jury.hear(Policy.uniform([site.name for site in setting.sites], recipe.baseline), "held_back")
        choice, fast_repairs, exact_repairs = _decide(problem, jury, outcome, progress)
        policy = jury.policy_of(problem, choice)
        progress.begin("rendering the samples")
        heard_fast = jury.hear(policy, "held_back")
        count = len(setting.held_back_clips)
        rendered = [samples for samples, _ in crew.render("held_back", policy, count, ())]
        heard, differing = heard_fast, None
        if jury.exact is not None:
            heard = jury.hear_exactly(policy)
            fast, rendered = rendered, jury.render_exactly(policy)
            differing = {
                clip.name: snr_db(exactly, quickly)
                for clip, exactly, quickly in zip(setting.held_back_clips, rendered, fast, strict=True)
            }
            keep_renders(jury.paths_of(policy))
        references = tuple(reference.reference for reference in crew.local.of("held_back").references)
    progress.begin("rendering the clips with nothing forced")
    free = unforced(setting, policy, calibration, moments, None if adapted is None else adapted.operands)
    progress.end()
    return Found(
        policy=policy,
        heard=heard,
        heard_fast=heard_fast,
        baseline=yardstick,
        outcome=outcome,
        repairs=fast_repairs + exact_repairs,
        exact_repairs=exact_repairs,
        exact=jury.exact,
        fast_snr_db=differing,
        problem=problem,
        bench=jury.held_back,
        evaluations=jury.evaluations,
        references=references,
        rendered=tuple(rendered),
        unforced=free,
        adapted=adapted,
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


def _search(setting: Setting, problem: Problem, jury: Jury, progress: Progress) -> Outcome:
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


def _search_from(target: Choice, setting: Setting, problem: Problem, jury: Jury, progress: Progress) -> Outcome:
    """Raise what weights were trained for until it holds; where it does at once, look for what is cheaper still."""
    progress.begin("raising what weights were trained for", setting.recipe.search.evaluations)
    repaired = repair(
        problem,
        jury.searching.budgets,
        target,
        partial(jury.evaluate, problem=problem, split="search", whole=False),
        evaluations=setting.recipe.search.evaluations,
        on_progress=lambda _: progress.step(),
    )
    if repaired.best is None or len(repaired.tried) > 1:
        return repaired
    found = _search(setting, problem, jury, progress)
    return found if found.best is not None and found.best.cost < repaired.best.cost else repaired


def _decide(problem: Problem, jury: Jury, outcome: Outcome, progress: Progress) -> tuple[Choice, int, int]:
    """The choice that is reported, and the repairs it took in the fast and in the exact arithmetic.

    What the search found is repaired on the clips held back until it holds there, first fast and then to the bit. What
    did not hold fast is heard exactly too, and not repaired.
    """
    start = outcome.best or outcome.nearest
    assert start is not None
    choice, fast_repairs, kept = start.choice, 0, outcome.best is not None
    if kept:
        progress.begin("holding the best against the clips held back", REPAIRS)
        choice, fast_repairs, kept = _repaired(problem, jury, choice, REPAIRS, on_trial=lambda _: progress.step())
    if jury.exact is None:
        return choice, fast_repairs, 0
    # Exact renders tell their progress by the clip.
    choice, exact_repairs, _ = _repaired(problem, jury, choice, REPAIRS if kept else 1, exactly=True)
    return choice, fast_repairs, exact_repairs


def _repaired(
    problem: Problem,
    jury: Jury,
    choice: Choice,
    evaluations: int,
    *,
    exactly: bool = False,
    on_trial: Callable[[SearchProgress], None] | None = None,
) -> tuple[Choice, int, bool]:
    """Give the first choice that holds on the clips held back, or the nearest; the repairs it took; if it does hold."""
    repaired = repair(
        problem,
        jury.held_back.budgets,
        choice,
        partial(jury.evaluate, problem=problem, split="held_back", whole=True, exactly=exactly),
        evaluations=evaluations,
        on_progress=on_trial,
    )
    final = repaired.best or repaired.nearest
    assert final is not None
    return final.choice, len(repaired.tried) - 1, repaired.best is not None
