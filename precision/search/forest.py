"""The least of an amount, and of every option the least that it can be part of, by messages along the links."""

import math

import numpy as np

from precision.search.amount import Amount, Selection
from precision.search.unit import Array


class Forest:
    """The links of an amount as trees, each unit below one other.

    A link that would close a circle is replaced by the least that it adds to each option of its first unit. All then
    found is a lower bound; `exact` says that there was none.
    """

    def __init__(self, amount: Amount) -> None:
        """Order the units from the roots down and send the messages up."""
        count = len(amount.own)
        root = list(range(count))

        def top(unit: int) -> int:
            while root[unit] != unit:
                root[unit] = root[root[unit]]
                unit = root[unit]
            return unit

        own = list(amount.own)
        near: list[list[tuple[int, Array]]] = [[] for _ in range(count)]
        self.exact = True
        for first, second, table in amount.links:
            if top(first) == top(second):
                own[first] = own[first] + table.min(axis=1)
                self.exact = False
                continue
            root[top(second)] = top(first)
            near[first].append((second, table))
            near[second].append((first, table.T))
        self._above: list[tuple[int, Array] | None] = [None] * count
        self._order: list[int] = []
        reached = [False] * count
        for start in range(count):
            if reached[start]:
                continue
            reached[start] = True
            tree = [start]
            for unit in tree:
                for other, table in near[unit]:
                    if not reached[other]:
                        reached[other] = True
                        self._above[other] = (unit, table)
                        tree.append(other)
            self._order += tree
        self._below = own
        self._message: list[Array | None] = [None] * count
        for unit in reversed(self._order):
            above = self._above[unit]
            if above is not None:
                message = (above[1] + self._below[unit][None, :]).min(axis=1)
                self._message[unit] = message
                self._below[above[0]] = self._below[above[0]] + message

    @property
    def floor(self) -> float:
        """The least total."""
        return math.fsum(self._below[unit].min() for unit in self._order if self._above[unit] is None)

    def excess(self) -> list[Array]:
        """Give of every unit [option] by how much the least total with that option is above the least of all."""
        whole: list[Array] = [np.zeros(0)] * len(self._order)
        for unit in self._order:
            above, message = self._above[unit], self._message[unit]
            whole[unit] = self._below[unit]
            if above is not None and message is not None:
                blocked = np.isinf(message)
                rest = np.where(blocked, np.inf, whole[above[0]] - np.where(blocked, 0.0, message))
                whole[unit] = whole[unit] + (above[1] + rest[:, None]).min(axis=0)
        return [values - values.min() if np.isfinite(values.min()) else values for values in whole]

    def selection(self) -> Selection:
        """Give a selection of least total; the first options of equal ones, from the roots down."""
        found = [0] * len(self._order)
        for unit in self._order:
            above = self._above[unit]
            values = self._below[unit] if above is None else self._below[unit] + above[1][found[above[0]]]
            found[unit] = int(np.argmin(values))
        return tuple(found)
