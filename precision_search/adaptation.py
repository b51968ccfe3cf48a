"""Adaptation: weights trained for a policy that is too cheap by itself, until it sounds like the model again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import Arithmetic
from backends.emulation.straight_through import compute_straight_through
from backends.tenstorrent.numerics import TensixArithmetic, read_activation
from calibrate.adapt import Adaptation
from calibrate.adapted import Adapted, Operands, Plan, load_adapted, save_adapted
from calibrate.calibration import Calibration
from calibrate.moments import NEEDS_MOMENTS, Moments
from precision.policy import Lever, Policy, Scheme
from precision.search.budget import BudgetError
from precision.search.problem import Choice, Problem
from precision.search.solve import solve
from precision.study import Study
from precision_search.progress import Progress
from precision_search.wire import Setting
from voice.checkpoint import content_digest
from voice.intercept import intercept
from voice.model import AdaptableVoice, Clip
from voice.site_call import SiteCall

FILE = "adapted.safetensors"
"""Of a study: the trained weights."""
EXCERPT_SECONDS = 1.5
SLACK = 1.25
"""Foretold damage of the policy that weights are trained for, over what the gates allow: on HiFi-GAN V2 training takes
a tenth to a fifth off the distances that add, and more off gain and pauses."""
TRAINED: frozenset[Lever] = NEEDS_MOMENTS | {"gain_folding", "channel_order"}
"""Levers whose work training takes over: it begins at what they give, and they are not applied again. Channels stay in
the model's order, for blocks must hold the neighbours that they were trained with."""


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


def adapted_policy(policy: Policy, targets: Mapping[str, str]) -> Policy:
    """The policy with trained weights where a site runs the scheme they were trained for.

    A site that is raised has the model's own weights, and all levers of its scheme: on HiFi-GAN V2 that is nearer to
    the model (LSD 2.13 dB against 2.30 with nine sites raised) than trained weights at another precision.

    Args:
        policy: of the recipe's schemes.
        targets: name of the scheme that each trained site was trained for.
    """
    return Policy(
        tuple(
            (site, replace(without_trained(scheme), adapted=True) if targets.get(site) == scheme.name else scheme)
            for site, scheme in policy.schemes
        )
    )


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


def adapt(
    voice: AdaptableVoice,
    clips: tuple[Clip, ...],
    policy: Policy,
    arithmetic: Arithmetic,
    *,
    calibration: Calibration | None,
    moments: Mapping[str, Moments],
    plan: Plan,
    fixed: Collection[str] = (),
    on_step: Callable[[int, float | None], None] | None = None,
) -> Adapted:
    """Train a policy's weights on clips; the voice is not changed.

    Trained are the weights that are parameters of their own in the model, one a site, and not `fixed`: others stay as
    they are. One thread computes, as everywhere: the same arguments give the same weights.

    Raises:
        ValueError: the model has no such weight.
        FloatingPointError: training diverged.
    """
    torch.set_num_threads(1)

    def draw(generator: torch.Generator) -> Callable[[], Tensor]:
        clip = clips[int(torch.randint(len(clips), (1,), generator=generator))]
        place = float(torch.rand((), generator=generator, dtype=torch.float64))
        excerpt = voice.excerpt(clip, place, EXCERPT_SECONDS)
        return lambda: voice.sound(excerpt)

    trained = {site: without_trained(scheme) for site, scheme in policy.items()}

    def lowered(call: SiteCall, operands: Operands | None, *, detached: bool) -> Tensor:
        if detached:
            call = replace(call, x=call.x.detach())
        scheme = trained[call.site]
        weight, bias = (None, None) if operands is None else (operands.weight, operands.bias)
        reader = _read_tensix if isinstance(arithmetic, TensixArithmetic) else None
        return compute_straight_through(arithmetic, call, scheme, calibration, weight=weight, bias=bias, read=reader)

    begin = beginnings(voice, clips[0], policy, arithmetic, moments)
    training: Adaptation[SiteCall] = Adaptation(
        partial(intercept, voice.module),
        lowered,
        draw,
        {site: held for site, held in begin.items() if site not in fixed},
        sample_rate_hz=voice.sample_rate_hz,
        plan=plan,
    )
    return training.run(on_step)


def without_trained(scheme: Scheme) -> Scheme:
    """A scheme less the levers whose work training takes over."""
    return replace(scheme, levers=tuple(lever for lever in scheme.levers if lever not in TRAINED))


def beginnings(
    voice: AdaptableVoice, clip: Clip, policy: Policy, arithmetic: Arithmetic, moments: Mapping[str, Moments]
) -> dict[str, Operands]:
    """Where training begins: at what the levers make of each weight, or at the weight where there are none."""
    found: dict[str, Operands] = {}

    def handle(call: SiteCall) -> Tensor:
        if call.site not in found and is_own_weight(voice.module, call):
            found[call.site] = _beginning(call, policy[call.site], arithmetic, moments.get(call.site))
        return call.compute()

    with torch.no_grad(), intercept(voice.module, handle):
        voice.sound(voice.excerpt(clip, 0.0, EXCERPT_SECONDS))
    return found


def _beginning(call: SiteCall, scheme: Scheme, arithmetic: Arithmetic, moments: Moments | None) -> Operands:
    weight = call.weight.detach().clone()
    bias = None if call.bias is None else call.bias.detach().clone()
    if TRAINED.isdisjoint(scheme.levers):
        return Operands(weight, bias)
    made = arithmetic.prepare(call, scheme, moments)
    assert made.weight is not None
    if "bias_correction" in scheme.levers:
        bias = made.bias
    return Operands(made.weight.clone(), None if bias is None else bias.clone())


def is_own_weight(module: nn.Module, call: SiteCall) -> bool:
    """Whether a call's weight is the parameter `weight` of the module that its site names, and its bias the `bias`."""
    if call.is_product or "#" in call.site:
        return False
    layer = module.get_submodule(call.site)
    parameters = dict(layer.named_parameters(recurse=False))
    return parameters.get("weight") is call.weight and parameters.get("bias") is call.bias


def _read_tensix(call: SiteCall, scheme: Scheme) -> Tensor:
    return read_activation(call.x, scheme, 1 if call.options is not None else -1)
