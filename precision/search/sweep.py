"""Every selection that no other beats in two amounts at once, unit by unit.

Lists of nondominated partial selections are extended by one unit after another and thinned to what is nondominated
(Nemhauser and Ullmann, Discrete dynamic programming and capital allocation, Management Science 15, 1969). Where units
are linked there is one list for each combination of classes of those that still have a neighbour to come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from precision.search.amount import Amount, Selection
from precision.search.unit import Array

Indices = NDArray[np.int64]
_STATES = 10_000
"""Most combinations of classes that are followed at once."""


class TangledError(ValueError):
    """The links close so many circles that there are too many combinations to follow."""


@dataclass(frozen=True, eq=False)
class Swept:
    """The nondominated selections, the least of the first amount first."""

    options: Indices
    """[point, unit] index among the options that were given."""
    first: Array
    """[point] rising."""
    second: Array
    """[point] falling."""
    error: float
    """By how much more of the first amount, at the most, a point takes than one that the cap on points left out and
    that takes as much of the second; 0 where the cap was not hit."""


@dataclass(frozen=True, eq=False)
class _List:
    """Partial selections of one combination of classes."""

    first: Array
    second: Array
    parent: Indices
    """[point] which partial selection of one unit less, counted over all lists."""
    option: Indices
    """[point] option of the unit added."""


class _Thinner:
    """Sorts out what is dominated, or nearly the same, or too much."""

    def __init__(self, first: Amount, second: Amount, points: int) -> None:
        steps = len(first.own)
        self._width = (first.resolution / steps, second.resolution / steps)
        self._points = points
        self.error = 0.0

    def __call__(self, found: _List) -> tuple[_List, float]:
        """Give the nondominated points, and the width of the steps of the first amount that were made one."""
        order = np.lexsort((found.second, found.first))
        second = found.second[order]
        order = order[np.concatenate([[True], second[1:] < np.minimum.accumulate(second)[:-1]])]
        order = order[_last_of_each(_steps(found.first[order], self._width[0]))]
        order = order[~_repeats(_steps(found.second[order], self._width[1]))]
        width = 0.0
        if order.size > self._points:
            values = found.first[order]
            width = float(values[-1] - values[0]) / (self._points - 1)
            order = order[_last_of_each(_steps(values - values[0], width))]
        return _List(found.first[order], found.second[order], found.parent[order], found.option[order]), width


def sweep(first: Amount, second: Amount, points: int) -> Swept:
    """Give every selection that no other beats in two amounts.

    Points closer than one part in 1e9 of the range of either amount may be made one.

    Args:
        first: the amount with the links.
        second: the other amount; it has no links.
        points: the most that a list may hold; beyond it the first amount is rounded up to steps, and `error` says by
            how much in all.

    Raises:
        TangledError: too many combinations of linked options would have to be followed at once.
    """
    order = _order(first)
    thin = _Thinner(first, second, points)
    none = np.zeros(1, dtype=np.int64)
    lists: dict[Selection, _List] = {(): _List(np.zeros(1), np.zeros(1), none, none)}
    steps: list[tuple[Indices, Indices]] = []
    is_open: list[int] = []
    error = 0.0
    for place, unit in enumerate(order):
        later = set(order[place + 1 :])
        to_come = {one: [table for other, table in _tables(first, one) if other in later] for one in [*is_open, unit]}
        stay = [one for one in [*is_open, unit] if to_come[one]]
        classes = {one: _classes(to_come[one]) for one in stay}
        met = dict(_tables(first, unit))
        gathered: dict[Selection, list[_List]] = {}
        start = 0
        for state, reached in lists.items():
            known = dict(zip(is_open, state, strict=True))
            added = first.own[unit] + sum(met[one][:, known[one]] for one in is_open if one in met)
            parent = np.arange(start, start + reached.first.size)
            start += reached.first.size
            for option in range(first.own[unit].size):
                here = known | {unit: option}
                new = tuple(int(classes[one][here[one]]) for one in stay)
                longer = _List(
                    reached.first + added[option],
                    reached.second + second.own[unit][option],
                    parent,
                    np.full(parent.size, option),
                )
                gathered.setdefault(new, []).append(longer)
        thinned = {state: thin(_joined(found)) for state, found in sorted(gathered.items())}
        error += max(width for _, width in thinned.values())
        lists = {state: found for state, (found, _) in thinned.items()}
        whole = _joined(list(lists.values()))
        steps.append((whole.parent, whole.option))
        is_open = stay
    (last,) = lists.values()
    options = np.zeros((last.first.size, len(order)), dtype=np.int64)
    index = np.arange(last.first.size)
    for unit, (parents, chosen) in zip(reversed(order), reversed(steps), strict=True):
        options[:, unit] = chosen[index]
        index = parents[index]
    return Swept(options, last.first, last.second, error)


def _joined(found: Sequence[_List]) -> _List:
    return _List(
        np.concatenate([one.first for one in found]),
        np.concatenate([one.second for one in found]),
        np.concatenate([one.parent for one in found]),
        np.concatenate([one.option for one in found]),
    )


def _tables(amount: Amount, unit: int) -> list[tuple[int, Array]]:
    """Give the links of a unit: the other, and [option of the unit, option of the other]."""
    return [
        (second, table) if first == unit else (first, table.T)
        for first, second, table in amount.links
        if unit in (first, second)
    ]


def _classes(tables: Sequence[Array]) -> Indices:
    """Give [option] the first option that takes the same as it does in every table."""
    stacked = np.concatenate(tables, axis=1)
    _, first, inverse = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.reshape(-1)], dtype=np.int64)


def _order(amount: Amount) -> list[int]:
    """Put the units in an order that keeps few combinations open: as they come, or always the one that adds least.

    Raises:
        TangledError: too many are open at once, either way.
    """
    near: list[dict[int, Array]] = [dict(_tables(amount, unit)) for unit in range(len(amount.own))]
    sizes = [float(np.unique(_classes(list(met.values()))).size) if met else 1.0 for met in near]

    def widths(order: Sequence[int]) -> float:
        done: set[int] = set()
        widest = 1.0
        for unit in order:
            done.add(unit)
            widest = max(widest, float(np.prod([sizes[one] for one in done if set(near[one]) - done])))
        return widest

    greedy: list[int] = []
    done: set[int] = set()
    waiting = {unit: set(met) for unit, met in enumerate(near)}
    while len(greedy) < len(near):

        def factor(unit: int) -> tuple[float, int]:
            grown = sizes[unit] if waiting[unit] else 1.0
            for other in near[unit]:
                grown /= sizes[other] if other in done and waiting[other] == {unit} else 1.0
            return grown, unit

        unit = min((unit for unit in range(len(near)) if unit not in done), key=factor)
        greedy.append(unit)
        done.add(unit)
        for other in near[unit]:
            waiting[other].discard(unit)
    found = min((list(range(len(near))), greedy), key=widths)
    if widths(found) > _STATES:
        raise TangledError(
            f"the boundaries link groups of sites so closely that {widths(found):.6g} combinations of options would "
            f"have to be followed at once, and at most {_STATES} are; use `front`, or make the groups smaller"
        )
    return found


def _steps(values: Array, width: float) -> Array:
    """Number the steps of a width that values are nearest to; the values themselves where it is 0."""
    return np.floor(values / width + 0.5) if width > 0.0 else values


def _repeats(values: Array) -> NDArray[np.bool_]:
    return np.concatenate([[False], values[1:] == values[:-1]])


def _last_of_each(values: Array) -> NDArray[np.bool_]:
    return np.concatenate([values[1:] != values[:-1], [True]])
