"""Unit: sites that can only move together, and the options they share."""

import math
from collections.abc import Sequence
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
    """[option] sum of the members' costs and of the boundaries between them; finite."""
    power: Array
    """[metric, option] sum of the members' squared damages; finite, >= 0."""
    usage: Array
    """[resource, option] sum of what members and the boundaries between them use; finite, >= 0."""
    efficient: NDArray[np.bool_]
    """[option] False where another option costs no more, uses no more of any resource (whatever the neighbours choose)
    and damages no more in any metric."""


def merge(
    sites: tuple[int, ...], options: tuple[tuple[str, ...], ...], cost: Array, damage: Array, usage: Array
) -> Unit:
    """Make one unit of `sites`, with the options that every member has and may use, all of them efficient.

    Args:
        sites: indices of the members.
        options: names of the options of every site of the problem.
        cost: [site, option] of the problem, inf where an option is not allowed.
        damage: [metric, site, option] of the problem.
        usage: [resource, site, option] of the problem.

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
    total = _sums(cost[None], sites, picks)[0]
    return Unit(
        sites,
        tuple(picks),
        total,
        _sums(damage**2, sites, picks),
        _sums(usage, sites, picks),
        np.ones(len(picks), dtype=np.bool_),
    )


def _sums(table: Array, sites: tuple[int, ...], picks: Sequence[tuple[int, ...]]) -> Array:
    members = np.array(sites)
    found = np.zeros((table.shape[0], len(picks)))
    for column, pick in enumerate(picks):
        for row in range(table.shape[0]):
            found[row, column] = math.fsum(table[row, members, np.array(pick)])
    return found


def efficient(own: Array, shared: Sequence[Array]) -> NDArray[np.bool_]:
    """Mark the options that no other option replaces for free; of equal ones the first stays.

    Args:
        own: [row, option] what an option takes by itself: cost, usages, powers.
        shared: of every neighbour [row, option, option of the neighbour] what it takes beside that. The neighbour may
            choose any: the worst counts, row by row.
    """
    count = own.shape[1]
    worse = own[:, :, None] - own[:, None, :]  # [row, option, other]: by how much the option is worse at the most
    for table in shared:
        worse = worse + (table[:, :, None, :] - table[:, None, :, :]).max(axis=3)
    no_worse = (worse <= 0.0).all(axis=0)
    keep = np.ones(count, dtype=np.bool_)
    for option in range(count):
        for other in range(count):
            if other == option or not keep[other] or not no_worse[other, option]:
                continue
            if not no_worse[option, other] or other < option:
                keep[option] = False
                break
    return keep
