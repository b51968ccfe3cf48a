"""The whole predicted front of cost against damage in one metric."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from precision.search.amount import power, taken
from precision.search.budget import check_meaning
from precision.search.problem import COST, Problem
from precision.search.solve import Solution
from precision.search.sweep import sweep
from precision.search.unit import Array, efficient

POINTS = 200_000
"""Most points that a list of the front may hold while it is made."""


@dataclass(frozen=True, eq=False)
class Front(Sequence[Solution]):
    """The points of a front, the cheapest first, the safest last; each becomes a `Solution` when it is asked for."""

    problem: Problem
    metric: str
    choices: NDArray[np.int64]
    """[point, site] index of the option."""
    cost: Array
    """[point] rising."""
    damage: Array
    """[point] predicted amplitude in the metric, falling."""
    error: float
    """By how much a point may be dearer, at the most, than a choice of no more damage that is not on the front; 0: it
    is exact, to one part in 1e9 of the ranges of cost and power."""

    def __len__(self) -> int:
        return len(self.cost)

    @overload
    def __getitem__(self, index: int) -> Solution: ...
    @overload
    def __getitem__(self, index: slice) -> list[Solution]: ...
    def __getitem__(self, index: int | slice) -> Solution | list[Solution]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        choice = tuple(int(option) for option in self.choices[index])
        slack = index in (0, -len(self))
        return Solution(choice, self.problem.total_cost(choice), self.problem.predicted(choice), slack)

    def __iter__(self) -> Iterator[Solution]:
        return (self[index] for index in range(len(self)))

    def thinned(self, count: int) -> list[Solution]:
        """Give at most `count` points, both ends among them, evenly spread over their order; for a plot or a table."""
        places = np.unique(np.linspace(0, len(self) - 1, max(count, 2)).round().astype(np.int64))
        return [self[int(place)] for place in places]


def pareto_front(problem: Problem, metric: str, points: int = POINTS) -> Front:
    """Give the whole predicted front of cost, boundaries included, against damage in one metric, exactly.

    No point is worse than another or than any choice that is not on it; points closer than one part in 1e9 of the range
    of costs or of powers may be one. Other metrics and limits do not count.

    Args:
        problem: sites, options, costs, damages and boundaries.
        metric: the metric.
        points: most points held at once, >= 2. Where that is not enough, costs are rounded up to steps, and `error` of
            the front says by how much in all.

    Raises:
        ValueError: an unknown metric, or points < 2.
        TangledError: groups and boundaries close so many circles that the front cannot be made.
    """
    if points < 2:
        raise ValueError(f"a front needs room for at least 2 points, got {points}")
    check_meaning(problem, {metric: math.inf})
    cost, damage = taken(problem, COST), power(problem, metric)
    options = []
    for unit, (own, harm) in enumerate(zip(cost.own, damage.own, strict=True)):
        tables = [table if first == unit else table.T for first, second, table in cost.links if unit in (first, second)]
        shared = [np.stack([table, np.zeros_like(table)]) for table in tables]
        options.append(np.flatnonzero(efficient(np.stack([own, harm]), shared)))
    swept = sweep(cost.kept(options), damage.kept(options), points)
    selections = np.stack([kept[swept.options[:, unit]] for unit, kept in enumerate(options)], axis=1)
    costs, powers = cost.totals(selections), damage.totals(selections)
    order = np.lexsort((powers, costs))
    order = order[_distinct(costs[order], powers[order], cost.resolution, damage.resolution)]
    choices = np.zeros((order.size, len(problem.sites)), dtype=np.int64)
    for place, members in enumerate(problem.units):
        choices[:, np.array(members.sites)] = np.array(members.picks)[selections[order, place]]
    return Front(problem, metric, choices, costs[order], np.sqrt(powers[order]), swept.error)


def _distinct(costs: Array, powers: Array, width: float, height: float) -> list[int]:
    """Give the points, in rising cost, that fall in power; of those within a width of cost the last, as it falls."""
    found: list[int] = []
    start = -math.inf
    for index, (cost, harm) in enumerate(zip(costs.tolist(), powers.tolist(), strict=True)):
        if found and harm >= powers[found[-1]] - height:
            continue
        if found and cost <= start + width:
            found[-1] = index
        else:
            found.append(index)
            start = cost
    return found
