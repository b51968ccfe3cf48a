"""Adaptation: weights trained for a policy that is too cheap by itself, until it sounds like the model again."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from backends.emulation.adaptation import adapt
from backends.tenstorrent.numerics import read_input
from calibrate.adapted import Adapted, Plan, load_adapted, save_adapted
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy
from precision.search.budget import BudgetError
from precision.search.problem import Choice, Problem
from precision.search.solve import solve
from precision.study import Study
from precision_search.progress import Progress
from precision_search.wire import Setting
from voice.checkpoint import content_digest
from voice.model import AdaptableVoice

FILE = "adapted.safetensors"
"""Of a study: the trained weights."""
SLACK = 1.25
"""Foretold damage of the policy that weights are trained for, over what the gates allow: on HiFi-GAN V2 training takes
a tenth to a fifth off the distances that add, and more off gain and pauses."""


def adapt_weights(
    setting: Setting,
    study: Study,
    policy: Policy,
    calibration: Calibration | None,
    moments: Mapping[str, Moments],
    progress: Progress,
) -> tuple[Adapted, dict[str, str]]:
    """Train weights for a policy, or read those that the study has; the recipe must ask for it.

    They are in the study's folder, and their digest is in its log, when this returns.

    Returns:
        What was trained, and of each trained site the name of the scheme that its weights are trained for.
    """
    wanted, path = setting.recipe.adapt, study.folder / FILE
    assert wanted is not None
    known = {record["weights"] for record in study.records("adaptation")}
    if known and path.is_file():
        held = load_adapted(path)
        if _digest(held) in known:
            return held, {site: policy[site].name for site in held.operands}
    assert isinstance(setting.voice, AdaptableVoice)
    plan = Plan(wanted.steps, wanted.local_steps, wanted.rate, setting.recipe.search.seed)
    progress.begin("adapting weights, steps", plan.steps + plan.local_steps)
    last = ""

    def tell(_: int, validated: float | None) -> None:
        nonlocal last
        last = last if validated is None else f"loss {validated:.4f}"
        progress.step(last)

    adapted = adapt(
        setting.voice,
        setting.search_clips,
        policy,
        setting.backend.arithmetic,
        calibration=calibration,
        moments=moments,
        plan=plan,
        read=read_input if setting.device.is_tensix else None,
        fixed=setting.protected,
        on_step=tell,
    )
    progress.say(
        f"weights adapted in {adapted.minutes:.1f} minutes: loss {adapted.loss_before:.4f} -> {adapted.loss_after:.4f}"
    )
    save_adapted(adapted, path)
    study.append({"kind": "adaptation", "weights": _digest(adapted), "policy": policy.digest, **told(adapted)})
    return adapted, {site: policy[site].name for site in adapted.operands}


def target_of(problem: Problem, budgets: Mapping[str, float]) -> Choice:
    """The choice to train for: the cheapest that is foretold to be a little beyond the gates.

    Training wins that much back, and not much more: what a site loses of its activations stays lost. Where the
    gates cannot be met so, it is the cheapest choice of all.

    Args:
        problem: costs, and damages of single sites without training.
        budgets: thresholds of the gates whose metrics add.
    """
    for wanted in ({metric: budget * SLACK for metric, budget in budgets.items()}, {}):
        try:
            return solve(problem, wanted)[0].choice
        except BudgetError:
            continue
    raise AssertionError("a problem has a cheapest choice")


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
