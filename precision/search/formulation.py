"""Formulation: selections under caps as a 0-1 program, tightened before it is solved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import block_array, csc_array, csr_array, vstack

from precision.search.amount import RESOLUTION, Amount, Selection
from precision.search.forest import Forest
from precision.search.highs import minimise_mixed
from precision.search.unit import Array

SCALE = 1e4
"""Range of every row and objective. HiGHS allows 1e-6 on rows and on the optimum: 1e-10 of the range."""
TIE = RESOLUTION * SCALE

Mask = NDArray[np.bool_]
Cut = tuple[Selection, int]
"""A selection, and in how many units what is looked for must differ from it."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What is minimised: the largest of some rows over the variables, each with a constant on top."""

    rows: Array
    """[part, variable]"""
    base: Array
    """[part]"""


class Formulation:
    """One variable for each option that fits the caps by itself; one of each unit is chosen.

    Between linked units there is one variable more for each pair of classes of options, options that take the same
    across the link being one class: how much of the pair is chosen. It is 0 or 1 where the options are: sums over the
    pairs of a class equal the sum of its options (the transport form, whose relaxation is exact on a forest).
    """

    def __init__(
        self, options: Sequence[NDArray[np.int64]], caps: Sequence[tuple[Amount, float]], amounts: Sequence[Amount]
    ) -> None:
        """Set up variables and rows.

        Args:
            options: of every unit, the options that may be used.
            caps: amounts and the most that each may take.
            amounts: the other amounts that `row` will be asked for.
        """
        self.kept = list(options)
        for amount, top in caps:
            forest = Forest(amount.kept(self.kept))
            spare = max(top - forest.floor, 0.0)
            self.kept = [kept[excess <= spare] for kept, excess in zip(self.kept, forest.excess(), strict=True)]
        self.count = len(self.kept)
        self.unit = np.concatenate([np.full(kept.size, index) for index, kept in enumerate(self.kept)])
        self.option = np.concatenate(self.kept)
        self._start = np.cumsum([0, *(kept.size for kept in self.kept)])
        self._classes([amount for amount, _ in caps] + list(amounts))
        self._most = np.ones(self.width)
        self.hopeless = False
        rows, tops = [], []
        for amount, top in caps:
            row, base = self.row(amount)
            spare = top - base
            self.hopeless |= spare < 0.0
            self._most[row > spare] = 0.0
            row[self._most == 0.0] = 0.0
            if self.most(row) > spare > 0.0:
                rows.append(row * (SCALE / spare))
                tops.append(SCALE)
        self._rows = np.array(rows, dtype=np.float64).reshape(len(rows), self.width)
        self._tops = np.array(tops, dtype=np.float64)
        self._structure, self._sums = self._equalities()

    @property
    def width(self) -> int:
        """How many variables there are: options, then pairs of classes."""
        return int(self.unit.size) + len(self._pair)

    def _classes(self, amounts: Sequence[Amount]) -> None:
        """Find the pairs of classes [pair: link, class of first, class of second], and the members of the classes."""
        tables: dict[tuple[int, int], list[Array]] = {}
        for amount in amounts:
            for first, second, table in amount.kept(self.kept).links:
                tables.setdefault((first, second), []).append(table)
        self._joined = sorted(tables)
        self._member: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        pairs = []
        for index, key in enumerate(self._joined):
            stacked = np.stack(tables[key])
            sides = []
            for side in (stacked.transpose(1, 0, 2), stacked.transpose(2, 0, 1)):
                flat = side.reshape(side.shape[0], -1)
                sides.append(np.unique(flat, axis=0, return_inverse=True)[1].reshape(-1))
            self._member.append((sides[0], sides[1]))
            pairs += [(index, a, b) for a in range(sides[0].max() + 1) for b in range(sides[1].max() + 1)]
        self._pair = np.array(pairs, dtype=np.int64).reshape(len(pairs), 3)
        self._ends = tuple(
            csr_array(
                np.array([self._of_class(pair[0], side, pair[1 + side]) for pair in pairs]).reshape(len(pairs), -1)
            )
            if pairs
            else csr_array((0, self.unit.size))
            for side in (0, 1)
        )

    def _of_class(self, link: int, side: int, number: int) -> Array:
        """Mark the options [option variable] of a class."""
        found = np.zeros(self.unit.size)
        unit = self._joined[link][side]
        found[self._start[unit] : self._start[unit + 1]] = self._member[link][side] == number
        return found

    def _equalities(self) -> tuple[csr_array, Array]:
        """One option of each unit; of each class, as much over its pairs as over its options."""
        members = csr_array((self.unit[None, :] == np.arange(self.count)[:, None]).astype(np.float64))
        if not len(self._pair):
            return members, np.ones(self.count)
        options, pairs = [], []
        for link, sides in enumerate(self._member):
            for side in (0, 1):
                for number in range(sides[side].max() + 1):
                    options.append(-self._of_class(link, side, number))
                    pairs.append(((self._pair[:, 0] == link) & (self._pair[:, 1 + side] == number)).astype(np.float64))
        rows = block_array([[members, None], [csr_array(np.array(options)), csr_array(np.array(pairs))]], format="csr")
        return rows, np.concatenate([np.ones(self.count), np.zeros(len(options))])

    def row(self, amount: Amount) -> tuple[Array, float]:
        """Give an amount over the variables, above the least of each unit and link, and the sum of these."""
        kept = amount.kept(self.kept)
        least = [own.min() for own in kept.own]
        values = [np.concatenate([own - own.min() for own in kept.own])]
        tables = {(first, second): table for first, second, table in kept.links}
        for index, key in enumerate(self._joined):
            pairs = self._pair[self._pair[:, 0] == index]
            found = np.zeros(len(pairs))
            if key in tables:
                ends = [np.unique(side, return_index=True)[1] for side in self._member[index]]
                found = tables[key][ends[0][pairs[:, 1]], ends[1][pairs[:, 2]]]
                least.append(found.min())
                found = found - found.min()
            values.append(found)
        return np.concatenate(values), math.fsum(least)

    def most(self, row: Array) -> float:
        """Give the most that a row can sum to, each unit and link by itself."""
        most = np.zeros(self.count + len(self._joined))
        np.maximum.at(most, np.concatenate([self.unit, self.count + self._pair[:, 0]]), row)
        return math.fsum(most)

    def goal(self, *amounts: Amount) -> Goal:
        """Scale one amount to the common range, to be minimised; or several, the largest of which is."""
        found = [self.row(amount) for amount in amounts]
        # amounts that differ by rounding alone are not spread over the range
        span = max(
            max(self.most(row), (1.0 if len(found) > 1 else 1e-3) * (self.most(row) + base)) for row, base in found
        )
        scale = SCALE / span if span > 0.0 else 1.0
        least = min(base for _, base in found)
        return Goal(np.array([row for row, _ in found]) * scale, np.array([base - least for _, base in found]) * scale)

    def value(self, row: Array, selection: Selection) -> float:
        """Sum a row over a selection."""
        return math.fsum(row[self._marked(selection)])

    def worst(self, goal: Goal, selection: Selection) -> float:
        """Give the largest part of a goal."""
        return max(self.value(row, selection) + float(base) for row, base in zip(goal.rows, goal.base, strict=True))

    def _marked(self, selection: Selection) -> Mask:
        options = np.array(selection)[self.unit] == self.option
        return np.concatenate([options, self._met(options)])

    def _met(self, options: Mask) -> Mask:
        """Mark the pairs of classes that some of the marked options belong to on both sides."""
        first, second = (np.asarray(end @ options.astype(np.float64)) > 0.5 for end in self._ends)
        return np.asarray(first & second, dtype=np.bool_)

    def relax(self, goal: Goal) -> tuple[float, Array]:
        """Bound a goal from below by a Lagrangian, whose reduced costs say what an option adds to the bound at least.

        Any multipliers >= 0 give a true bound, so the relaxation need not be solved exactly.

        Returns:
            The bound, and [option variable] how much higher the bound of selections with that option is.
        """
        parts = len(goal.rows)
        shares, prices = np.full(parts, 1.0 / parts), np.zeros(len(self._rows))
        if len(self._rows) or parts > 1:
            free = np.zeros((len(self._rows), 1))
            relaxed = linprog(
                np.append(np.zeros(self.width), 1.0),
                A_ub=np.vstack([np.hstack([goal.rows, -np.ones((parts, 1))]), np.hstack([self._rows, free])]),
                b_ub=np.concatenate([-goal.base, self._tops]),
                A_eq=np.hstack([self._structure.toarray(), np.zeros((self._structure.shape[0], 1))]),
                b_eq=self._sums,
                bounds=[*((0.0, most) for most in self._most), (None, None)],
            )
            if relaxed.status == 0:
                found = np.maximum(-np.asarray(relaxed.ineqlin.marginals), 0.0)
                prices = found[parts:]
                shares = found[:parts] / found[:parts].sum() if found[:parts].sum() > 0.5 else shares
        priced: Array = np.where(self._most > 0.0, shares @ goal.rows + prices @ self._rows, np.inf)
        own = tuple(np.split(priced[: self.unit.size], self._start[1:-1]))
        links = []
        for index, (first, second) in enumerate(self._joined):
            ends = self._member[index]
            pairs = np.flatnonzero(self._pair[:, 0] == index)
            table = np.zeros((ends[0].max() + 1, ends[1].max() + 1))
            table[self._pair[pairs, 1], self._pair[pairs, 2]] = priced[self.unit.size + pairs]
            links.append((first, second, table[np.ix_(*ends)]))
        forest = Forest(Amount(own, tuple(links)))
        bound = forest.floor + float(shares @ goal.base) - float(prices @ self._tops)
        return bound, np.concatenate(forest.excess())

    def minimise(
        self, goal: Goal, keep: Mask, cuts: Sequence[Cut], caps: Sequence[tuple[Array, float]] = ()
    ) -> Selection | None:
        """Minimise over the kept options; what HiGHS lets through above a row is cut off and looked for again.

        Args:
            goal: what is minimised.
            keep: [option variable] whether it may be used.
            cuts: what the answer must differ from.
            caps: rows over the variables, and the most that each may sum to.
        """
        cuts = list(cuts)
        several = len(goal.rows) > 1
        columns = np.concatenate([keep, self._met(keep)])
        capped = np.array([*self._rows, *(row for row, _ in caps)]).reshape(-1, self.width)
        tops = np.concatenate([self._tops, [top for _, top in caps]])
        while True:
            barred = np.array([self._same(cut) for cut, _ in cuts]).reshape(-1, self.width)
            upper = np.concatenate([tops, [float(self.count - apart) for _, apart in cuts]])
            limited = np.vstack([capped, barred, goal.rows if several else np.zeros((0, self.width))])[:, columns]
            upper = np.concatenate([upper, -goal.base if several else []])
            rows = vstack([self._structure[:, columns], csr_array(limited)], format="csc")
            objective = np.zeros(int(columns.sum())) if several else goal.rows[0][columns]
            most = self._most[columns]
            if several:
                largest = np.concatenate([np.zeros(rows.shape[0] - len(goal.rows)), -np.ones(len(goal.rows))])
                rows = csc_array(block_array([[rows, csc_array(largest[:, None])]], format="csc"))
                objective, most = np.append(objective, 1.0), np.append(most, np.inf)
            binary = np.arange(objective.size) < keep.sum()
            found = minimise_mixed(
                objective,
                rows,
                np.concatenate([self._sums, np.full(upper.size, -np.inf)]),
                np.concatenate([self._sums, upper]),
                binary,
                most,
            )
            if found is None:
                return None
            chosen = tuple(int(option) for option in self.option[keep][found[: int(keep.sum())] > 0.5])
            if self._fits(chosen, caps) and not _barred(chosen, cuts):
                return chosen
            if _barred(chosen, cuts):
                raise RuntimeError("scipy.optimize.milp gave a solution that was cut off; report this with the problem")
            cuts.append((chosen, 1))

    def _same(self, selection: Selection) -> Array:
        return np.concatenate(
            [(np.array(selection)[self.unit] == self.option).astype(np.float64), np.zeros(len(self._pair))]
        )

    def _fits(self, selection: Selection, caps: Sequence[tuple[Array, float]]) -> bool:
        rows = [*zip(self._rows, self._tops, strict=True), *caps]
        return all(self.value(row, selection) <= top + TIE for row, top in rows)


def _barred(selection: Selection, cuts: Sequence[Cut]) -> bool:
    return any(sum(a != b for a, b in zip(selection, cut, strict=True)) < apart for cut, apart in cuts)
