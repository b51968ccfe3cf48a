"""Adaptation: weights trained for a policy that is too cheap by itself, until it sounds like the model again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backends.emulation.adaptation import adapt
from backends.tenstorrent.numerics import read_input
from calibrate.adapted import Adapted, Plan, adapted_file, load_adapted, save_adapted
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy
from precision.search.boundary import Boundary
from precision.search.budget import BudgetError
from precision.search.problem import Choice, Problem
from precision.search.solve import solve
from precision.study import Study
from precision_search.progress import Progress
from precision_search.setting import Setting, SetupError
from voice.checkpoint import content_digest
from voice.model import AdaptableVoice

SLACKS = (1.5, 1.25, 1.12)
"""Foretold damage of the policies that weights are trained for, over that of the best one without training; the first
that holds is taken. Training takes a tenth to a fifth off the distances that add, and more off gain and pauses."""

NEAR = 1.003
"""Costs this near to each other count as the same where weights are trained for the less damaging."""
_PRICE = "price"
"""What a search minimizes, where it is a limit and damage is minimized."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights of a study that were trained, and for what."""

    adapted: Adapted
    weights: str
    """Their digest, by which schemes name them."""
    targets: Mapping[str, str]
    """Name of the scheme that each trained site was trained for."""


def target_of(
    problem: Problem, damage: Mapping[str, float], slack: float, limits: Mapping[str, float] | None = None
) -> Choice | None:
    """A choice as cheap as any foretold to damage `slack` times as much, and of those that damages least.

    Cheapness that costs next to nothing to give up (storage, where passes are counted) would be damage for nothing.

    Args:
        problem: costs, and damages of single sites without training.
        damage: of each metric that counts, above 0 where it is to mean anything.
        slack: 1 or more.
        limits: the most that a choice may take of a usage.

    Returns:
        One option a site, or None where nothing within the limits damages as little as that.
    """
    limits, budgets = limits or {}, {metric: value * slack for metric, value in damage.items()}
    try:
        cheapest = solve(problem, budgets, limits=limits)[0]
    except BudgetError:
        return None
    scales = np.array([damage.get(metric, np.inf) or np.inf for metric in problem.metrics])
    power = np.square(problem.damage / scales[:, None, None]).sum(axis=0)
    turned = Problem(
        sites=problem.sites,
        options=problem.options,
        metrics=problem.metrics,
        cost=np.where(np.isinf(problem.cost), np.inf, power),
        damage=problem.damage,
        groups=problem.groups,
        usage={**problem.usage, _PRICE: problem.cost},
        boundaries=tuple(
            Boundary(met.first, met.second, np.zeros_like(met.cost), {**met.usage, _PRICE: met.cost})
            for met in problem.boundaries
        ),
    )
    return solve(turned, budgets, limits={**limits, _PRICE: cheapest.cost * NEAR})[0].choice


def adapt_weights(
    setting: Setting,
    study: Study,
    policy: Policy,
    calibration: Calibration | None,
    moments: Mapping[str, Moments],
    progress: Progress,
    start: Trained | None = None,
) -> Trained:
    """Train weights for a policy, or read those that the study has; the recipe must ask for it.

    They are in the study's folder, and their digest is in its log, when this returns. Training begins at `start`, or at
    what the levers make of the model's own weights.

    Raises:
        SetupError: training diverged; or the study's weights are lost, and those trained again are others.
    """
    wanted = setting.recipe.adapt
    assert wanted is not None
    before = None if start is None else start.weights
    targets = {site: scheme.name for site, scheme in policy.items()}
    asked = (policy.digest, before)
    known = next((r["weights"] for r in study.records("adaptation") if (r["policy"], r["start"]) == asked), None)
    if known is not None and (study.folder / adapted_file(known)).is_file():
        held = load_adapted(study.folder / adapted_file(known))
        if _digest(held) == known:
            return Trained(held, known, {site: targets[site] for site in held.operands})
    assert isinstance(setting.voice, AdaptableVoice)
    plan = Plan(wanted.steps, wanted.local_steps, wanted.rate, setting.recipe.search.seed)
    progress.begin("adapting weights, steps", plan.steps + plan.local_steps)
    last = ""

    def tell(_: int, validated: float | None) -> None:
        nonlocal last
        last = last if validated is None else f"loss {validated:.4f}"
        progress.step(last)

    try:
        adapted = adapt(
            setting.voice,
            setting.search_clips,
            policy,
            setting.backend.arithmetic,
            calibration=calibration,
            moments=moments,
            plan=plan,
            start=None if start is None else start.adapted.operands,
            read=read_input if setting.device.is_tensix else None,
            fixed=setting.protected,
            on_step=tell,
        )
    except FloatingPointError as error:
        raise SetupError(f"{error}, or leave `adapt` out") from error
    progress.say(
        f"weights adapted in {adapted.minutes:.1f} minutes: loss {adapted.loss_before:.4f} -> {adapted.loss_after:.4f}"
    )
    weights = _digest(adapted)
    if known is not None and weights != known:
        raise SetupError(
            f"{study.folder / adapted_file(known)}: the study was made with these weights, they are not there, and"
            " those trained again differ (another machine's sums); put the file back, or begin a study in another"
            " folder"
        )
    save_adapted(adapted, study.folder / adapted_file(weights))
    if known is None:
        line = {"kind": "adaptation", "weights": weights, "policy": policy.digest, "start": before, **told(adapted)}
        study.append(line)
    return Trained(adapted, weights, {site: targets[site] for site in adapted.operands})


def told(adapted: Adapted) -> dict[str, Any]:
    """What a training took and gave, for the log and the summary."""
    return {
        **asdict(adapted.plan),
        "sites": len(adapted.operands),
        "best_step": adapted.best_step,
        "loss_before": adapted.loss_before,
        "loss_after": adapted.loss_after,
        "minutes": round(adapted.minutes, 2),
    }


def _digest(adapted: Adapted) -> str:
    tensors = {f"{site}.weight": held.weight for site, held in adapted.operands.items()}
    tensors |= {f"{site}.bias": held.bias for site, held in adapted.operands.items() if held.bias is not None}
    return content_digest(tensors)
