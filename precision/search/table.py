"""Table: costs, usages and powers of many selections at once."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from precision.search.amount import taken
from precision.search.problem import Choice, Problem
from precision.search.unit import Array

Selections = NDArray[np.int64]
"""[selection, unit] of every unit the index of its option."""


class Table:
    """The arrays of a problem, padded to the most options that a unit has, so that selections can be looked up."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.counts = np.array([len(unit.picks) for unit in problem.units])
        """[unit] how many options it has."""

    @cached_property
    def power(self) -> Array:
        """[metric, unit, option] of every unit's option; 0 where there is none."""
        found = np.zeros((len(self.problem.metrics), self.counts.size, int(self.counts.max())))
        for index, unit in enumerate(self.problem.units):
            found[:, index, : self.counts[index]] = unit.power
        return found

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """[unit, option] whether it may be chosen, and no other option replaces it for free."""
        found = np.zeros((self.counts.size, int(self.counts.max())), dtype=np.bool_)
        for index, unit in enumerate(self.problem.units):
            found[index, : self.counts[index]] = unit.efficient
        return found

    def choice(self, selection: Selections) -> Choice:
        """The choice of one selection [unit]."""
        return self.problem.choice(tuple(int(option) for option in selection))

    def selections(self, choices: Sequence[Choice]) -> Selections:
        """[choice, unit]; the inverse of `choice`."""
        found = [self.problem.selection(choice) for choice in choices]
        return np.array(found, dtype=np.int64).reshape(len(choices), self.counts.size)

    def total(self, resource: str, selections: Selections) -> Array:
        """[selection] what a resource (a usage, or "cost") comes to, boundaries included."""
        return taken(self.problem, resource).totals(selections)

    def powers(self, selections: Selections) -> Array:
        """[metric, selection, unit] power of every unit under its option."""
        units = np.arange(self.counts.size)
        return np.asarray(self.power[:, units[None, :], selections], dtype=np.float64)
