"""Costing: a policy of a recipe priced against the recipe's yardstick, in all that a summary says of money."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends import deadlines as at_deadlines
from backends.assumptions import Situation
from backends.cost import CostModel
from backends.deadlines import deadlines
from backends.devices import Device, Figure
from backends.fleet import Carried, equal_fleets
from backends.money import CHARACTERS_PER_SECOND, Accounting, Comparison
from backends.sensitivity import Verdict, break_even, tornado
from backends.waterfall import waterfall
from backends.workload import ClipWorkload, Side, Terms, Workload, compared
from precision.policy import Policy
from precision.recipe import Recipe
from precision.site import Site
from precision_search.cards import cards_of, figure_of
from precision_search.setting import Setting


def cost_model_of(recipe: Recipe, device: Device, sites: Sequence[Site]) -> CostModel:
    """What a launch takes at the streams and the chunk of a recipe: one model for all that is searched and logged."""
    return CostModel.of(device, sites, streams=recipe.cost.streams, chunk_seconds=recipe.cost.chunk_ms / 1e3)


def accounting_of(recipe: Recipe) -> Accounting:
    """How the recipe pays for cards."""
    cost = recipe.cost
    return Accounting(years=cost.years, pue=cost.pue, usd_per_kwh=cost.usd_per_kwh, rent=cost.rent)


def terms_of(recipe: Recipe) -> Terms:
    """How the recipe's cards serve."""
    return Terms(utilization=recipe.cost.utilization, chunk_seconds=recipe.cost.chunk_ms / 1e3)


def characters_of(recipe: Recipe) -> Figure:
    """Characters of text that a second of the recipe's speech says."""
    spoken = recipe.cost.characters_per_second
    return CHARACTERS_PER_SECOND if spoken is None else figure_of(spoken)


def sides_of(recipe: Recipe, device: Device, policy: Policy, label: str) -> tuple[Side, Side]:
    """A policy on the recipe's card, and the yardstick that it is priced against."""
    against = cards_of(recipe)[recipe.cost.against.device]
    uniform = Policy.uniform(list(policy), recipe.cost_scheme)
    return Side(device, policy, label), Side(against, uniform, recipe.cost_scheme.name)


def clip_comparison(setting: Setting, policy: Policy, label: str) -> Comparison:
    """What a stream of a model that renders clips costs under a policy, and what the yardstick costs."""
    recipe = setting.recipe
    candidate, baseline = sides_of(recipe, setting.device, policy, label)
    return compared(ClipWorkload(setting.sites), candidate, baseline, terms_of(recipe), accounting_of(recipe))


def cost_block(setting: Setting, policy: Policy) -> dict[str, Any]:
    """The block `cost` of a summary, of a model that renders clips."""
    comparison = clip_comparison(setting, policy, setting.recipe.name)
    return comparison.to_dict() | money_blocks(setting, policy, comparison, ClipWorkload(setting.sites))


def money_blocks(setting: Setting, policy: Policy, comparison: Comparison, workload: Workload) -> dict[str, Any]:
    """All that a comparison says beyond its ratio.

    Args:
        setting: of the recipe.
        policy: the candidate.
        comparison: of that policy with the yardstick.
        workload: the model, whose streams are put on changed cards.

    Returns:
        `evidence`, `ratio_by_roofline`, `waterfall`, `fleet`, `deadlines`, `break_even`, `sensitivity`,
        `usd_per_million_characters` and `prices`, as plain data.
    """
    recipe, terms, accounting = setting.recipe, terms_of(setting.recipe), accounting_of(setting.recipe)
    candidate, baseline = sides_of(recipe, setting.device, policy, comparison.candidate.serving.label)
    sides = {"candidate": comparison.candidate, "baseline": comparison.baseline}
    ours, theirs = (Carried.of(dollars.serving) for dollars in sides.values())
    steps = waterfall(workload, candidate, baseline, recipe.baseline, terms, accounting)
    situation = Situation(candidate.device, baseline.device, accounting, terms)
    by_roofline = compared(workload, candidate, baseline, replace(terms, measured=False), accounting)
    verdict = Verdict(workload, candidate.policy, baseline.policy, situation)
    chunks = (*at_deadlines.CHUNKS_MS, recipe.cost.chunk_ms)
    characters = characters_of(recipe)
    rows = deadlines(workload, candidate, baseline, terms, accounting, chunks)
    return {
        "evidence": {side: dict(dollars.serving.middle.evidence) for side, dollars in sides.items()},
        "ratio_by_roofline": by_roofline.ratio.to_dict(),
        "waterfall": [step.to_dict(steps[0]) for step in steps],
        "fleet": equal_fleets(ours, theirs, recipe.cost.fleet_streams, accounting).to_dict(),
        "break_even": [found.to_dict() for found in break_even(verdict)],
        "sensitivity": [swing.to_dict() for swing in tornado(verdict)],
        "deadlines": [row.to_dict() for row in rows],
        "usd_per_million_characters": {
            side: dollars.usd_per_million_characters(characters).to_dict() for side, dollars in sides.items()
        }
        | {"characters_per_second": characters.to_dict()},
        "prices": prices_used(recipe),
    }


def prices_used(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe's own prices of the cards that it compares, each with its source and date."""
    named = (recipe.target.device, recipe.cost.against.device)
    given: Mapping[str, Any] = {"price_usd": recipe.cost.prices, "cloud_usd_per_hour": recipe.cost.cloud_prices}
    return [
        {"device": name, "figure": figure, **figure_of(prices[name]).to_dict()}
        for figure, prices in given.items()
        for name in dict.fromkeys(named)
        if name in prices
    ]
