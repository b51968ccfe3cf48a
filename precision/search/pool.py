"""Pool: choices that are worth a thought, among which the belief picks."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from precision.search.budget import ceiling
from precision.search.table import Selections, Table
from precision.search.unit import Array

_KEPT = 5000
"""Most selections that are weighed by all that was learned, of those that look best by the corrected table alone."""
_SOFT = 0.1
"""Width, in logarithms of power, over which that look takes a threshold for uncertain."""
_SMALL = 200_000
"""Selections that are all looked at, whatever lies between them and the solutions."""
_MOVES = 80
"""Most lowerings, and most raisings, of single units that are paired: 80 of each give 12,720 pairs."""


def everything(table: Table) -> Selections | None:
    """Give every selection of options that no other replaces for free; None where they are more than 200,000."""
    options = [np.flatnonzero(usable) for usable in table.usable]
    shape = tuple(len(own) for own in options)
    if math.prod(shape) > _SMALL:
        return None
    places = np.unravel_index(np.arange(math.prod(shape)), shape)
    found: Selections = np.stack([own[place] for own, place in zip(options, places, strict=True)], axis=1)
    return found


def around(table: Table, selection: Selections, weight: Array) -> Selections:
    """Give every change of one unit, and of two, of a selection [unit]; it comes first itself.

    Of very many changes those are paired that save most for the load they add, and that relieve most for their cost.

    Args:
        table: of the problem, as it is believed.
        selection: where to start.
        weight: [metric] that turns power into load.
    """
    units, options = np.nonzero(table.usable)
    changed = options != selection[units]
    units, options = units[changed], options[changed]
    if not units.size:
        return selection[None].copy()
    singles = np.repeat(selection[None], units.size, axis=0)
    singles[np.arange(units.size), units] = options
    saving = table.total("cost", selection[None])[0] - table.total("cost", singles)
    power = table.power[:, units, options] - table.power[:, units, selection[units]]
    paired = _worthwhile(saving, weight @ power)
    first, second = np.triu_indices(paired.size, 1)
    one, other = paired[first], paired[second]
    apart = units[one] != units[other]
    one, other = one[apart], other[apart]
    pairs = np.repeat(selection[None], one.size, axis=0)
    pairs[np.arange(one.size), units[one]] = options[one]
    pairs[np.arange(one.size), units[other]] = options[other]
    return np.concatenate([selection[None], singles, pairs])


def within(table: Table, selections: Selections, limits: Mapping[str, float]) -> Selections:
    """Keep the selections that are within every limit, to one part in 1e9."""
    for resource, limit in limits.items():
        selections = selections[table.total(resource, selections) <= ceiling(limit)]
    return selections


def untried(selections: Selections, tried: Selections) -> Selections:
    """Keep each selection that was not tried, once, in order of options."""
    unique = np.unique(selections, axis=0)
    seen = {row.tobytes() for row in tried}
    fresh = [row.tobytes() not in seen for row in unique]
    return unique[np.array(fresh, dtype=np.bool_)]


def uniform(table: Table, safe: Selections) -> Selections:
    """Give for each option's name the selection that has it at every unit that can; the others stay as in `safe`."""
    problem = table.problem
    names = [[problem.options[unit.sites[0]][pick[0]] for pick in unit.picks] for unit in problem.units]
    found = [
        [own.index(name) if name in own else int(stays) for own, stays in zip(names, safe, strict=True)]
        for name in dict.fromkeys(name for own in names for name in own)
    ]
    return np.array(found, dtype=np.int64)


def promising(table: Table, budgets: Mapping[str, float], selections: Selections, gain: Array) -> NDArray[np.int64]:
    """Give the places of the selections that look best by the sums of the table, at most 5000, in order.

    Args:
        table: of the problem, as it is believed.
        budgets: threshold of each metric.
        selections: to look at.
        gain: [selection] what each would bring if it kept the gates; those <= 0 are left out.
    """
    level = np.full(len(selections), -np.inf)
    units = np.arange(selections.shape[1])[None, :]
    for row, name in enumerate(table.problem.metrics):
        if 0.0 < budgets.get(name, np.inf) < np.inf:
            power = table.power[row][units, selections].sum(axis=1)
            level = np.maximum(level, np.log(np.maximum(power, 1e-300)) - 2.0 * np.log(budgets[name]))
    look = np.log(np.maximum(gain, 1e-300)) - np.logaddexp(0.0, level / _SOFT)
    order = np.argsort(-look, kind="stable")
    return np.sort(order[gain[order] > 0.0][:_KEPT])


def _worthwhile(saving: Array, load: Array) -> NDArray[np.int64]:
    """Places of the moves that are paired: the best lowerings and the best raisings, in order."""
    tiny = 1e-12 * max(float(np.abs(load).max()), 1e-300)
    lower = np.flatnonzero(saving > 0.0)
    rise = np.flatnonzero((saving <= 0.0) & (load < 0.0))
    lower = lower[np.argsort(-saving[lower] / np.maximum(load[lower], tiny), kind="stable")][:_MOVES]
    rise = rise[np.argsort(load[rise] / np.maximum(-saving[rise], tiny), kind="stable")][:_MOVES]
    return np.sort(np.concatenate([lower, rise]))
