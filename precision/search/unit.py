"""Unit: sites that can only move together, and the options they share."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Unit:
    """A lone site, or a group of sites that must agree on an option's name.

    Options are in the order of the first member's options, so that the order of units and of their options is the
    order of choices, site by site.
    """

    sites: tuple[int, ...]
    """Indices of the members, ascending."""
    picks: tuple[tuple[int, ...], ...]
    """Of every option, the index that each member knows it by."""
    cost: Array
    """[option] sum of the members' costs; finite."""
    power: Array
    """[metric, option] sum of the members' squared damages; finite, >= 0."""
    efficient: NDArray[np.bool_]
    """[option] False where another option costs no more and damages no more in any metric."""


def merge(sites: tuple[int, ...], options: tuple[tuple[str, ...], ...], cost: Array, damage: Array) -> Unit:
    """Make one unit of `sites`, with the options that every member has and may use.

    Args:
        sites: indices of the members.
        options: names of the options of every site of the problem.
        cost: [site, option] of the problem, inf where an option is not allowed.
        damage: [metric, site, option] of the problem.

    Returns:
        The unit; its `picks` are empty where the members share no allowed option.
    """
    sites = tuple(sorted(sites))
    picks = []
    for name in options[sites[0]]:
        if all(name in options[site] for site in sites):
            pick = tuple(options[site].index(name) for site in sites)
            if all(math.isfinite(cost[site, option]) for site, option in zip(sites, pick, strict=True)):
                picks.append(pick)
    members = np.array(sites)
    total = np.array([math.fsum(cost[members, np.array(pick)]) for pick in picks])
    power = np.zeros((damage.shape[0], len(picks)))
    for column, pick in enumerate(picks):
        for metric in range(damage.shape[0]):
            power[metric, column] = math.fsum(damage[metric, members, np.array(pick)] ** 2)
    return Unit(sites, tuple(picks), total, power, _efficient(total, power))


def _efficient(cost: Array, power: Array) -> NDArray[np.bool_]:
    """Mark the options that no other option replaces for free; of equal ones the first stays."""
    keep = np.ones(cost.size, dtype=np.bool_)
    for option in range(cost.size):
        for other in range(cost.size):
            if other == option or cost[other] > cost[option] or (power[:, other] > power[:, option]).any():
                continue
            equal = cost[other] == cost[option] and (power[:, other] == power[:, option]).all()
            if not equal or other < option:
                keep[option] = False
                break
    return keep
