"""Program: a problem under budgets as a 0-1 program, and its cheapest solution."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from precision.search.budget import RESOLUTION, limit, load
from precision.search.highs import minimise_binary
from precision.search.problem import Problem
from precision.search.unit import Array

Selection = tuple[int, ...]
"""Of every unit, in order, the index of its option."""

_SCALE = 1e4
"""Range of every row and objective. HiGHS allows 1e-6 on rows and on the optimum: 1e-10 of the range."""
_TIE = RESOLUTION * _SCALE
_TIE_OPTIONS = 40
"""Most options in question up to which equal solutions are put in order: to refute that there are any takes longer than
all the rest."""
_BLOCK = 10_000
"""Most combinations that one objective orders when the first of equal solutions is looked for."""


class Program:
    """One variable for each efficient option that fits the budgets by itself; one of each unit is chosen.

    Powers, costs and loads enter above the least of their unit, scaled to one range.
    """

    def __init__(self, problem: Problem, budgets: Mapping[str, float], weight: Array) -> None:
        """Set up the rows and, from the linear relaxation, a bound and the reduced cost of every variable."""
        limits = {problem.metrics.index(name): limit(budget) for name, budget in budgets.items() if budget < math.inf}
        spare = {
            row: top - math.fsum(unit.power[row, unit.efficient].min() for unit in problem.units)
            for row, top in limits.items()
        }
        units, options, costs, loads = [], [], [], []
        powers: list[list[float]] = [[] for _ in spare]
        for index, unit in enumerate(problem.units):
            weighed = load(unit, weight)
            excess = {row: unit.power[row] - unit.power[row, unit.efficient].min() for row in spare}
            fits = [
                option
                for option in np.flatnonzero(unit.efficient)
                if all(excess[row][option] <= max(spare[row], 0.0) for row in spare)
            ]
            for option in fits:
                units.append(index)
                options.append(int(option))
                costs.append(unit.cost[option] - unit.cost[fits].min())
                loads.append(weighed[option] - weighed[fits].min())
                for column, row in zip(powers, spare, strict=True):
                    column.append(excess[row][option])
        self._count = len(problem.units)
        self._unit = np.array(units, dtype=np.int64)
        self._option = np.array(options, dtype=np.int64)
        self._members = (self._unit[None, :] == np.arange(self._count)[:, None]).astype(np.float64)
        self._cost = self._scaled(np.array(costs, dtype=np.float64))
        self._load = self._scaled(np.array(loads, dtype=np.float64))
        rows = [
            np.array(column) * (_SCALE / spare[row])
            for column, row in zip(powers, spare, strict=True)
            if spare[row] > 0.0 and self._range(np.array(column)) > spare[row]
        ]
        self._rows = np.array(rows, dtype=np.float64).reshape(len(rows), self._unit.size)
        self._bound, self._reduced = self._relax()

    def best(self, cuts: Sequence[Selection]) -> Selection | None:
        """Give the cheapest selection that fits and is none of `cuts`; None where there is none.

        Of equally cheap ones the one of least load. Of equally loaded ones the first in order, where few options are in
        question; where many are, the one that HiGHS meets, which is the same every time.
        """
        if not self._members.any(axis=1).all():
            return None
        gap = 1e-3 * _SCALE
        caps: tuple[tuple[Array, float], ...] = ()
        while True:
            keep = self._reduced <= gap
            found = self._minimise(self._cost, keep, cuts, caps)
            needed = math.inf if found is None else self._value(self._cost, found) - self._bound
            if keep.all() or needed <= gap:
                break
            gap = gap * 4.0 if found is None else needed + _TIE
            caps = () if found is None else ((self._cost, self._value(self._cost, found) + _TIE),)
        if found is None:
            return None
        cap = (self._cost, self._value(self._cost, found) + _TIE)
        keep = self._reduced <= needed + 2.0 * _TIE
        found = self._minimise(self._load, keep, cuts, (cap,)) or found
        caps = (cap, (self._load, self._value(self._load, found) + _TIE))
        several = np.bincount(self._unit[keep], minlength=self._count) > 1
        if (keep & several[self._unit]).sum() > _TIE_OPTIONS:
            return found
        if self._minimise(self._cost, keep, [*cuts, found], caps) is None:
            return found
        return self._first(keep, cuts, caps) or found

    def _first(
        self, keep: NDArray[np.bool_], cuts: Sequence[Selection], caps: Sequence[tuple[Array, float]]
    ) -> Selection | None:
        """Give the first in order of the selections under `caps`: block by block, as digits of a number."""
        keep = keep.copy()
        found: Selection | None = None
        start = 0
        while start < self._count:
            stop, combinations = start, 1
            while stop < self._count and combinations * int(keep[self._unit == stop].sum()) <= _BLOCK:
                combinations *= int(keep[self._unit == stop].sum())
                stop += 1
            if combinations > 1:
                objective = np.zeros(self._unit.size)
                digit = 1
                for unit in range(stop - 1, start - 1, -1):
                    places = np.flatnonzero(keep & (self._unit == unit))
                    objective[places] = digit * np.arange(places.size)
                    digit *= places.size
                found = self._minimise(objective, keep, cuts, caps)
                if found is None:
                    return None
                chosen = np.array(found)[self._unit] == self._option
                keep &= chosen | (self._unit < start) | (self._unit >= stop)
            start = stop
        return found

    def _minimise(
        self,
        objective: Array,
        keep: NDArray[np.bool_],
        cuts: Sequence[Selection],
        caps: Sequence[tuple[Array, float]],
    ) -> Selection | None:
        """Minimise over the kept variables; what HiGHS lets through above a row is cut off and looked for again."""
        cuts = list(cuts)
        while True:
            barred = [(np.array(cut)[self._unit] == self._option).astype(np.float64) for cut in cuts]
            rows = np.vstack([self._members, self._rows, *[row for row, _ in caps], *barred])[:, keep]
            free = len(self._rows) + len(caps) + len(cuts)
            lower = np.concatenate([np.ones(self._count), np.full(free, -np.inf)])
            tops = [top for _, top in caps] + [self._count - 1.0] * len(cuts)
            upper = np.concatenate([np.ones(self._count), np.full(len(self._rows), _SCALE), tops])
            taken = minimise_binary(objective[keep], rows, lower, upper)
            if taken is None:
                return None
            found = tuple(int(option) for option in self._option[keep][taken])
            tops_met = all(self._value(row, found) <= top + _TIE for row, top in caps)
            if tops_met and all(self._value(row, found) <= _SCALE + _TIE for row in self._rows) and found not in cuts:
                return found
            if found in cuts:
                raise RuntimeError("scipy.optimize.milp gave a solution that was cut off; report this with the problem")
            cuts.append(found)

    def _relax(self) -> tuple[float, Array]:
        """Bound the cost from below by a Lagrangian, whose reduced costs say what an option adds to the bound at least.

        Any multipliers >= 0 give a true bound, so the relaxation need not be solved exactly.
        """
        prices = np.zeros(len(self._rows))
        if len(self._rows) and self._members.any(axis=1).all():
            relaxed = linprog(
                self._cost,
                A_ub=self._rows,
                b_ub=np.full(len(self._rows), _SCALE),
                A_eq=self._members,
                b_eq=np.ones(self._count),
                bounds=(0.0, 1.0),
            )
            if relaxed.status == 0:
                prices = np.maximum(-np.asarray(relaxed.ineqlin.marginals), 0.0)
        priced = self._cost + prices @ self._rows
        least = np.full(self._count, np.inf)
        np.minimum.at(least, self._unit, priced)
        return math.fsum(least) - _SCALE * math.fsum(prices), priced - least[self._unit]

    def _value(self, row: Array, selection: Selection) -> float:
        return math.fsum(row[np.array(selection)[self._unit] == self._option])

    def _range(self, row: Array) -> float:
        most = np.zeros(self._count)
        np.maximum.at(most, self._unit, row)
        return math.fsum(most)

    def _scaled(self, row: Array) -> Array:
        span = self._range(row)
        return row * (_SCALE / span) if span > 0.0 else row
