"""Program: the cheapest selection under caps, and the first of equal ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from precision.search.amount import Amount, Selection
from precision.search.forest import Forest
from precision.search.formulation import SCALE, TIE, Cut, Formulation, Goal, Mask
from precision.search.problem import Problem
from precision.search.unit import Array

_TIE_OPTIONS = 40
"""Most options in question up to which equal solutions are put in order: to refute that there are any takes longer than
all the rest."""
_BLOCK = 10_000
"""Most combinations that one objective orders when the first of equal solutions is looked for."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A goal, a lower bound of it, and by how much more each option adds to the bound at least."""

    goal: Goal
    bound: float
    reduced: Array


def descend(formulation: Formulation, start: Relaxed, cuts: Sequence[Cut]) -> tuple[Selection, float] | None:
    """Give a selection of least goal, and by how much that is above the bound; None where nothing fits.

    Only options that can be part of a solution within a gap of the bound are looked at; the gap widens until the
    solution found proves it wide enough.
    """
    if formulation.hopeless or math.isinf(start.bound):
        return None
    usable = np.isfinite(start.reduced).sum()
    gap = 1e-3 * SCALE
    caps: tuple[tuple[Array, float], ...] = ()
    while True:
        keep = start.reduced <= gap
        found = formulation.minimise(start.goal, keep, cuts, caps)
        needed = math.inf if found is None else formulation.worst(start.goal, found) - start.bound
        if keep.sum() == usable or needed <= gap:
            return None if found is None else (found, needed)
        gap = gap * 4.0 if found is None else needed + TIE
        if found is not None:
            top = formulation.worst(start.goal, found) + TIE
            caps = tuple((row, top - float(base)) for row, base in zip(start.goal.rows, start.goal.base, strict=True))


def efficient_options(problem: Problem) -> list[NDArray[np.int64]]:
    """Give the indices of the efficient options of every unit."""
    return [np.flatnonzero(unit.efficient) for unit in problem.units]


def least(
    problem: Problem, amount: Amount, options: Sequence[NDArray[np.int64]] | None = None
) -> tuple[float, Selection]:
    """Give the least total of an amount and a selection that has it, the first options of equal ones.

    Args:
        problem: gives units and efficient options.
        amount: what is summed.
        options: of every unit, the options that may be used; the efficient ones where None.
    """
    kept = efficient_options(problem) if options is None else options
    forest = Forest(amount.kept(kept))
    selection = tuple(int(indices[option]) for indices, option in zip(kept, forest.selection(), strict=True))
    if not forest.exact:
        formulation = Formulation(kept, (), [amount])
        goal = formulation.goal(amount)
        found = descend(formulation, Relaxed(goal, *formulation.relax(goal)), ())
        selection = selection if found is None else found[0]
    return amount.total(selection), selection


class Program:
    """Selections under caps, the cheapest first."""

    def __init__(self, problem: Problem, caps: Sequence[tuple[Amount, float]], cost: Amount, load: Amount) -> None:
        """Set up and relax.

        Args:
            problem: gives units and efficient options.
            caps: amounts and the most that each may take.
            cost: what is minimised.
            load: what decides between equal costs.
        """
        self._formulation = Formulation(efficient_options(problem), caps, [cost, load])
        goal = self._formulation.goal(cost)
        self._cost = Relaxed(goal, *self._formulation.relax(goal))
        self._load = self._formulation.goal(load)

    def best(self, cuts: Sequence[Cut]) -> Selection | None:
        """Give the cheapest selection that fits and differs enough from all of `cuts`; None where there is none.

        Of equally cheap ones the one of least load. Of equally loaded ones the first in order, where few options are in
        question; where many are, the one that HiGHS meets, which is the same every time.
        """
        least = descend(self._formulation, self._cost, cuts)
        if least is None:
            return None
        found, needed = least
        formulation, (cost,), (load,) = self._formulation, self._cost.goal.rows, self._load.rows
        cap = (cost, formulation.value(cost, found) + TIE)
        keep = self._cost.reduced <= needed + 2.0 * TIE
        found = formulation.minimise(self._load, keep, cuts, (cap,)) or found
        caps = (cap, (load, formulation.value(load, found) + TIE))
        several = np.bincount(formulation.unit[keep], minlength=formulation.count) > 1
        if (keep & several[formulation.unit]).sum() > _TIE_OPTIONS:
            return found
        if formulation.minimise(self._cost.goal, keep, [*cuts, (found, 1)], caps) is None:
            return found
        return self._first(keep, cuts, caps) or found

    def _first(self, keep: Mask, cuts: Sequence[Cut], caps: Sequence[tuple[Array, float]]) -> Selection | None:
        """Give the first in order of the selections under `caps`: block by block, as digits of a number."""
        unit, count = self._formulation.unit, self._formulation.count
        keep = keep.copy()
        found: Selection | None = None
        start = 0
        while start < count:
            stop, combinations = start, 1
            while stop < count and combinations * int(keep[unit == stop].sum()) <= _BLOCK:
                combinations *= int(keep[unit == stop].sum())
                stop += 1
            if combinations > 1:
                objective = np.zeros((1, self._formulation.width))
                digit = 1
                for index in range(stop - 1, start - 1, -1):
                    places = np.flatnonzero(keep & (unit == index))
                    objective[0, places] = digit * np.arange(places.size)
                    digit *= places.size
                found = self._formulation.minimise(Goal(objective, np.zeros(1)), keep, cuts, caps)
                if found is None:
                    return None
                chosen = np.array(found)[unit] == self._formulation.option
                keep &= chosen | (unit < start) | (unit >= stop)
            start = stop
        return found
