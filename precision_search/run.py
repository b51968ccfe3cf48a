"""Run: a recipe from its setting to a gated policy, stage by stage, each finding in the study before the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from audio_eval.output import Output
from backends.emulation.audition import Bench
from backends.emulation.sampling import sample_rows
from calibrate.adapted import StoredAdaptations
from calibrate.calibration import Calibration
from calibrate.moments import NEEDS_MOMENTS, Moments, observing_moments
from calibrate.observing import observing
from precision.gates import Verdict
from precision.policy import Policy
from precision.search.outcome import Outcome
from precision.study import Study
from precision_search.adaptation import Trained, adapt_weights
from precision_search.agreement import snr_db
from precision_search.damage import measure_damage
from precision_search.damage_cache import DamageCache
from precision_search.deciding import cheaper_by_training, decide, one_optimal
from precision_search.foretold import foretold_front
from precision_search.jury import Heard, Jury
from precision_search.problem import Posed, pose
from precision_search.progress import Progress
from precision_search.refuted import Refuted, refuted_of
from precision_search.renders import keep_renders
from precision_search.searching import search_by_recipe
from precision_search.setting import Setting
from precision_search.unforced import unforced
from precision_search.workers import Where, Workers
from voice.intercept import intercept

SCALED = ("fp8_e4m3", "fp8_e5m2", "int8")
MOMENT_ROWS = 16384
"""Rows of a site's input, of all clips together, that its moments are taken of, where it is called once a clip."""


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
    yardsticks: Mapping[str, tuple[Verdict, ...]]
    """The model's own bf16, fp16 and, where it draws noise, another seed, on the clips held back."""
    outcome: Outcome
    repairs: int
    """Policies tried after the search because a gate broke on the clips held back."""
    exact_repairs: int
    """Those of them that were tried because a gate broke in the exact arithmetic."""
    exact: str | None
    """Name of the exact arithmetic; None where the target has none."""
    fast_snr_db: Mapping[str, float] | None
    """Clip held back -> how far the fast render is under the exact one; None without exact renders."""
    posed: Posed
    front: dict[str, Any] | None
    """What `foretold_front` gives."""
    refuted: tuple[Refuted, ...] | None
    """Of every site that could be lower, which gate then breaks: the proof that none can; None where nothing holds."""
    bench: Bench
    """Of the clips held back."""
    evaluations: int
    references: tuple[Output, ...]
    rendered: tuple[Output, ...]
    """The clips held back under the policy, in the arithmetic that decided."""
    unforced: dict[str, Any] | None
    """What moved when nothing was forced; None for a model that is forced nothing."""
    trained: Trained | None = None
    """Weights that were trained for the policy; None where they are the model's own."""


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


def run(setting: Setting, study: Study, progress: Progress, workers: Where, *, cached: bool = True) -> Found:
    """Measure, solve, verify, repair; every evaluation is in the study before the next begins."""
    recipe = setting.recipe
    calibration, moments = calibrated(setting, progress), moments_of(setting, progress)
    with Workers(setting, calibration, workers, moments, study.folder, progress.say) as crew:
        jury = Jury(setting, study, crew, progress)
        metrics = jury.searching.additive
        cache = DamageCache(setting, calibration, moments, metrics, progress.say) if cached else None
        posed = pose(setting, measure_damage(setting, study, crew, jury.searching, progress, cache))
        outcome = search_by_recipe(setting, posed, jury, progress)
        progress.begin("hearing the baseline on the clips held back")
        baseline = jury.hear(Policy.uniform([site.name for site in setting.sites], recipe.baseline), "held_back")
        yardsticks = jury.yardsticks()
        decided = decide(posed, jury, outcome, progress)
        if recipe.adapt is not None:
            train = partial(adapt_weights, setting, study, calibration=calibration, moments=moments, progress=progress)
            decided = cheaper_by_training(posed, jury, decided, train, progress)
        jury.trained = decided.trained
        proof = None
        if recipe.search.goal == "cheapest":  # what is cheaper than the best audio is worse
            decided, proof = one_optimal(posed, jury, decided, progress)
        policy = jury.policy_of(posed.problem, decided.choice)
        refuted = None if proof is None else tuple(refuted_of(posed.whole, jury, study, proof))
        progress.begin("rendering the samples")
        heard_fast = jury.hear(policy, "held_back")
        count = len(setting.held_back_clips)
        rendered = [output for output, _ in crew.render("held_back", policy, count, ())]
        heard, differing = heard_fast, None
        if jury.exact is not None:
            heard = jury.hear_exactly(policy)
            fast, rendered = rendered, jury.render_exactly(policy)
            differing = {
                clip.name: snr_db(exactly.signal, quickly.signal)
                for clip, exactly, quickly in zip(setting.held_back_clips, rendered, fast, strict=True)
            }
            keep_renders(jury.paths_of(policy))
        references = crew.local.of("held_back").outputs
    progress.begin("rendering the clips with nothing forced")
    free = unforced(setting, policy, jury.held_back.free, calibration, moments, StoredAdaptations(study.folder))
    progress.end()
    return Found(
        policy=policy,
        heard=heard,
        heard_fast=heard_fast,
        baseline=baseline,
        yardsticks=yardsticks,
        outcome=outcome,
        repairs=decided.fast_repairs + decided.exact_repairs,
        exact_repairs=decided.exact_repairs,
        exact=jury.exact,
        fast_snr_db=differing,
        posed=posed,
        front=foretold_front(setting, posed, jury.searching.budgets, decided.choice),
        refuted=refuted,
        bench=jury.held_back,
        evaluations=jury.evaluations,
        references=references,
        rendered=tuple(rendered),
        unforced=free,
        trained=decided.trained,
    )
