"""Sizes that follow from the lengths of inputs, fitted exactly to graphs of several lengths.

The sizes of one axis over all graphs are a row, one whole number a graph. Axes whose rows do not follow from each other
are symbols; every other row is an affine function of them, or refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from voice.graph.tracing import GraphError

Row = tuple[int, ...]
_CLOSE = 1e-9
"""Relative error within which floats, computed by a model in some order of its own, lie on a curve."""


class DynamicError(GraphError):
    """Graphs of several lengths are not one graph with sizes that follow from its inputs; the message says where."""


@dataclass(frozen=True, slots=True)
class Size:
    """A whole number that is an affine function of symbols."""

    terms: tuple[tuple[str, Fraction], ...]
    """Symbols and what each is multiplied with, which is never 0."""
    constant: Fraction = Fraction(0)

    @property
    def is_symbol(self) -> bool:
        """Whether it is nothing but a symbol."""
        return self.constant == 0 and [factor for _, factor in self.terms] == [1]

    @property
    def divisor(self) -> int:
        """Smallest number that makes all coefficients whole."""
        return math.lcm(self.constant.denominator, *(factor.denominator for _, factor in self.terms))

    def at(self, lengths: Mapping[str, int]) -> int:
        """The size at the lengths of symbols.

        Raises:
            ValueError: it is no whole number there, or a negative one.
        """
        value = self.constant + sum((factor * lengths[symbol] for symbol, factor in self.terms), Fraction(0))
        if value.denominator != 1 or value < 0:
            at = ", ".join(f"{symbol} {lengths[symbol]}" for symbol, _ in self.terms)
            raise ValueError(f"a size of {self} is {value} at {at}, and must be a whole number of at least 0")
        return int(value)

    def __str__(self) -> str:
        terms = [symbol if factor == 1 else f"{factor}*{symbol}" for symbol, factor in self.terms]
        return " + ".join(terms + [str(self.constant)] * (self.constant != 0 or not terms)).replace("+ -", "- ")


@dataclass(frozen=True, slots=True)
class Ratio:
    """A float that follows from one symbol: first * symbol + constant, or 1 over that."""

    symbol: str
    factor: float
    constant: float
    is_reciprocal: bool

    def at(self, length: int) -> float:
        """The float at a length."""
        value = self.factor * length + self.constant
        if not self.is_reciprocal:
            return value
        return 1.0 / value if value else math.inf


@dataclass(frozen=True, slots=True)
class Bound:
    """A size that must not grow beyond what a constant holds."""

    size: Size
    largest: int
    constant: str
    """Its name, and what reads it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of an input whose length may change."""

    input: str
    axis: int
    size: Size


class Lengths:
    """The symbols, and what follows from them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        """Lengths of each symbol over all graphs."""
        self._fitted: dict[Row, Size | None] = {}

    def __str__(self) -> str:
        return ", ".join(f"{symbol} {listed(row)}" for symbol, row in self.rows.items())

    def add(self, symbol: str, row: Row) -> None:
        """Take a row as a symbol."""
        self.rows[symbol] = row
        self._fitted.clear()

    def fit(self, row: Row) -> Size | None:
        """Give the affine function that a row is of the symbols, exactly and in all graphs; None where it is none."""
        if row not in self._fitted:
            columns = [*self.rows.values(), (1,) * len(row), row]
            solution = _solved([[Fraction(value) for value in line] for line in zip(*columns, strict=True)])
            self._fitted[row] = None
            if solution is not None:
                terms = zip(self.rows, solution, strict=False)
                self._fitted[row] = Size(tuple((name, factor) for name, factor in terms if factor), solution[-1])
        return self._fitted[row]

    def fit_float(self, row: Sequence[float]) -> Ratio | None:
        """Give how floats follow from one symbol; None where they are neither affine nor reciprocal in any."""
        for is_reciprocal in (False, True) if all(row) else (False,):
            line = [1.0 / value for value in row] if is_reciprocal else row
            for symbol, lengths in self.rows.items():
                low, high = lengths.index(min(lengths)), lengths.index(max(lengths))
                factor = (line[high] - line[low]) / (lengths[high] - lengths[low])
                constant = line[low] - factor * lengths[low]
                if abs(constant) < _CLOSE * max(map(abs, line)):
                    factor, constant = line[high] / lengths[high], 0.0
                ratio = Ratio(symbol, factor, constant, is_reciprocal)
                held = zip(lengths, row, strict=True)
                if all(math.isclose(ratio.at(length), value, rel_tol=_CLOSE) for length, value in held):
                    return ratio
        return None


def find_symbols(shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> tuple[Lengths, tuple[Axis, ...]]:
    """Find the symbols among the axes of inputs.

    Args:
        shapes: of each input, in all graphs; as many axes in each.

    Returns:
        The symbols, named after their inputs, `mel_length`; and all axes that change, in the order of inputs.

    Raises:
        DynamicError: no axis changes, there are too few graphs, or axes change in step though they are no multiples.
    """
    rows = {
        (name, axis): row
        for name, all_shapes in shapes.items()
        for axis, row in enumerate(zip(*all_shapes, strict=True))
        if len(set(row)) > 1
    }
    if not rows:
        raise DynamicError("the graphs are all of the same length: give clips of different lengths")
    distinct = len(set(zip(*rows.values(), strict=True)))
    lengths, sizes = Lengths(), dict[tuple[str, int], Size]()
    # The axis that grows least is the symbol, for the others may be whole multiples of it.
    for key, row in sorted(rows.items(), key=lambda item: max(item[1]) - min(item[1])):
        size = lengths.fit(row)
        if size is None:
            symbol = f"{key[0]}_length" + (f"_{key[1]}" if sum(name == key[0] for name, _ in rows) > 1 else "")
            lengths.add(symbol, row)
            sizes[key] = Size(((symbol, Fraction(1)),))
        elif distinct > len(lengths.rows) + 1:
            sizes[key] = _whole(key, row, size)
        else:
            _refuse(rows, distinct, len(lengths.rows) + 1)
    if distinct < len(lengths.rows) + 2:
        _refuse(rows, distinct, len(lengths.rows))
    return lengths, tuple(Axis(name, axis, sizes[name, axis]) for name, axis in rows)


def _whole(key: tuple[str, int], row: Row, size: Size) -> Size:
    if size.divisor == 1 and all(factor > 0 for _, factor in size.terms):
        return size
    raise DynamicError(
        f"axis {key[1]} of {key[0]} has lengths {listed(row)}, which is {size} in all graphs: give clips in which they"
        " do not change in step, or shapes that are whole multiples"
    )


def _refuse(rows: Mapping[tuple[str, int], Row], distinct: int, symbols: int) -> None:
    axes = ", ".join(f"axis {axis} of {name} ({listed(row)})" for (name, axis), row in rows.items())
    raise DynamicError(
        f"{distinct} different lengths were given, and {symbols + 2} at least are needed to fit and to check how sizes"
        f" follow from {axes}: give more clips, in which lengths do not change in step"
    )


def listed(row: Sequence[object]) -> str:
    """A row as messages show it."""
    return ", ".join(map(str, row))


def _solved(rows: list[list[Fraction]]) -> list[Fraction] | None:
    """Solve more equations than unknowns, the right side last; None where they contradict each other."""
    unknowns = len(rows[0]) - 1
    for column in range(unknowns):
        pivot = next((index for index in range(column, len(rows)) if rows[index][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for index, row in enumerate(rows):
            if index != column and row[column]:
                rows[index] = [a - row[column] * b for a, b in zip(row, rows[column], strict=True)]
    if any(row[-1] for row in rows[unknowns:]):
        return None
    return [row[-1] for row in rows[:unknowns]]
