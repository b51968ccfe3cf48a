"""Amount: something that adds up over the units of a problem and over the links between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from precision.search.problem import COST, Problem
from precision.search.unit import Array

RESOLUTION = 1e-9
"""Amounts closer than this share of their range are taken as equal."""

Selection = tuple[int, ...]
"""Of every unit, in order, the index of its option."""


@dataclass(frozen=True, eq=False)
class Amount:
    """What every option takes by itself, and every pair of linked options beside that."""

    own: tuple[Array, ...]
    """Of every unit [option]."""
    links: tuple[tuple[int, int, Array], ...] = ()
    """First unit, second unit, [option of first, option of second]; only links that take something."""

    def total(self, selection: Sequence[int]) -> float:
        """Sum over a selection."""
        parts = [float(own[option]) for own, option in zip(self.own, selection, strict=True)]
        parts += [float(table[selection[first], selection[second]]) for first, second, table in self.links]
        return math.fsum(parts)

    def totals(self, selections: NDArray[np.int64]) -> Array:
        """Sum over each of many selections [selection, unit]."""
        found = np.zeros(len(selections))
        for unit, own in enumerate(self.own):
            found += own[selections[:, unit]]
        for first, second, table in self.links:
            found += table[selections[:, first], selections[:, second]]
        return found

    @property
    def resolution(self) -> float:
        """Totals closer than this are equal: 1e-9 of the range, and no less than what rounding makes of equal ones."""
        tables = [*self.own, *(table for _, _, table in self.links)]
        span = math.fsum(float(table.max() - table.min()) for table in tables)
        return max(RESOLUTION * span, 1e-12 * math.fsum(float(table.max()) for table in tables))

    def over(self, top: float) -> "Amount":
        """Give the amount as a share of `top` > 0."""
        links = tuple((first, second, table / top) for first, second, table in self.links)
        return Amount(tuple(own / top for own in self.own), links)

    def kept(self, options: Sequence[NDArray[np.int64]]) -> "Amount":
        """Leave only some options of every unit, by index."""
        own = tuple(values[kept] for values, kept in zip(self.own, options, strict=True))
        links = tuple((one, other, table[np.ix_(options[one], options[other])]) for one, other, table in self.links)
        return Amount(own, links)


def taken(problem: Problem, resource: str) -> Amount:
    """Give what the options take of a resource: the name of a usage, or "cost"."""
    if resource == COST:
        own = [unit.cost for unit in problem.units]
        tables = [(link.first, link.second, link.cost) for link in problem.links]
    else:
        row = list(problem.usage).index(resource)
        own = [unit.usage[row] for unit in problem.units]
        tables = [(link.first, link.second, link.usage[row]) for link in problem.links]
    return Amount(tuple(own), tuple(link for link in tables if link[2].any()))


def power(problem: Problem, metric: str) -> Amount:
    """Give the squared damage of the options in a metric."""
    row = problem.metrics.index(metric)
    return Amount(tuple(unit.power[row] for unit in problem.units))


def weighed(problem: Problem, weight: Array) -> Amount:
    """Give the power of the options weighed by `weight` [metric] into one number."""
    return Amount(tuple(np.asarray(weight @ unit.power, dtype=np.float64) for unit in problem.units))
