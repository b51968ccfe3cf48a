"""Problem of a setting: what each site costs under each scheme, and what it damages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backends.money import usd_per_second
from backends.resources import Meter, limited_resource, search_arrays
from precision.search.budget import BudgetError
from precision.search.problem import Problem
from precision.search.solve import solve
from precision_search.costing import accounting_of, cost_model_of
from precision_search.setting import Setting, SetupError

_RUIN = 1e3
"""Times the largest damage there is, that a render counts which is no sound."""


@dataclass(frozen=True)
class Posed:
    """What a search is asked: costs, damages and boundaries, and the limits that its recipe sets."""

    problem: Problem
    whole: Problem
    """The same with the options that a search leaves out because a render under them is no sound (NaN, Inf): a proof
    hears those too."""
    limits: Mapping[str, float]
    """By usage of the problem, the most that a policy may take, in its unit."""


def pose(setting: Setting, damage: Mapping[tuple[str, str], Mapping[str, float]] | None = None) -> Posed:
    """The search's arrays: what each choice takes of the card, beside its neighbours too, and what it damages.

    Without damage the problem has no metric: enough to tell what limits can be met.

    Raises:
        SetupError: a site renders nothing that can be judged, whatever scheme it takes.
    """
    sites, names = setting.sites, [scheme.name for scheme in setting.recipe.schemes]
    metrics = tuple(next(iter(damage.values()))) if damage else ()
    allowed = np.zeros((len(sites), len(names)), dtype=np.bool_)
    table = np.zeros((len(metrics), *allowed.shape))
    for row, site in enumerate(sites):
        for scheme in setting.space[site.name]:
            if (site.name, scheme.name) in setting.refused:
                continue
            column = names.index(scheme.name)
            allowed[row, column] = True
            if damage:
                table[:, row, column] = [damage[site.name, scheme.name][metric] for metric in metrics]
    groups: dict[str, list[int]] = {}
    for row, site in enumerate(sites):
        if site.group is not None:
            groups.setdefault(site.group, []).append(row)
    recipe = setting.recipe
    arrays = search_arrays(
        meter_of(setting),
        recipe.schemes,
        allowed,
        baseline=recipe.baseline,
        minimize=recipe.search.minimize,
        within=recipe.search.within,
    )
    ruinous = np.isinf(table)
    whole = Problem(
        sites=tuple(site.name for site in sites),
        options=tuple(tuple(names) for _ in sites),
        metrics=metrics,
        cost=arrays.cost,
        damage=np.where(ruinous, _RUIN * table.max(initial=1.0, where=~ruinous), table),
        groups=tuple(tuple(rows) for rows in groups.values()),
        usage=arrays.usage,
        boundaries=arrays.boundaries,
    )
    mute = [sites[row].name for row in _mute(whole, ruinous.any(axis=0))]
    if mute:
        raise SetupError(
            f"schemes: whatever scheme {', '.join(mute)} may take, the model makes NaN or Inf; allow one of more range"
        )
    return Posed(replace(whole, damage=table) if ruinous.any() else whole, whole, arrays.limits)


def _mute(problem: Problem, ruinous: NDArray[np.bool_]) -> list[int]:
    """Sites, each alone or with those it must agree with, none of whose options renders any sound."""
    silent = [
        unit.sites
        for unit in problem.units
        if all(any(ruinous[place] for place in zip(unit.sites, pick, strict=True)) for pick in unit.picks)
    ]
    return [site for members in silent for site in members]


def meter_of(setting: Setting) -> Meter:
    """What the sites of a setting take of its card, at the streams of its recipe."""
    cost = setting.recipe.cost
    model = cost_model_of(setting.recipe, setting.device, setting.sites)
    priced = None
    if setting.device.price_usd is not None:
        priced = usd_per_second(setting.device, accounting_of(setting.recipe), utilization=cost.utilization)
    return Meter(model, setting.sites, priced)


def missed_limits(setting: Setting, posed: Posed) -> list[str]:
    """Say of the limits of the recipe that no policy meets what can be reached, as the recipe writes them."""
    try:
        solve(posed.problem, {}, limits=posed.limits)
    except BudgetError as error:
        lines = []
        for name, asked in setting.recipe.search.within.items():
            resource = limited_resource(name)
            least = error.least[resource] / posed.limits[resource] * asked
            if least > asked * (1 + 1e-9):
                told = f"no policy takes less than {least:.4g}; ask for {_up(least):.4g} or more"
                lines.append(f"{name}: {asked:g} was asked, and {told}")
        together = f"each limit can be met alone, and all of them if each is {_up(error.reachable):.4g} times as large"
        return lines or [together]
    return []


def _up(value: float) -> float:
    """Round up to four digits, so that what is told can be asked for."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return math.ceil(value / step) * step
