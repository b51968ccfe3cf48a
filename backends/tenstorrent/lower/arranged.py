"""Arranged: a tensor of torch as it lies on the card, its axes in whatever order costs least.

Torch has channels before time, TT-NN wants them last; a transposition in the model is often no more than a word. So an
axis is moved on the card only where an operation reads it in another place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.tenstorrent.program import Value

Four = tuple[int, int, int, int]
IDENTITY: Four = (0, 1, 2, 3)


def four(values: Sequence[int]) -> Four:
    """Four numbers."""
    a, b, c, d = values
    return a, b, c, d


def padded(shape: Sequence[int]) -> Four | None:
    """A shape with ones in front, up to four axes; None where it has more."""
    return None if len(shape) > 4 else four([1] * (4 - len(shape)) + [int(extent) for extent in shape])


def axis_of(axis: int, rank: int) -> int:
    """Axis of the padded shape of an axis of a shape of `rank` axes."""
    return axis + 4 if axis < 0 else axis + 4 - rank


@dataclass(frozen=True, slots=True)
class Arranged:
    """A value on the card and what it is in torch."""

    value: Value
    shape: Four
    """Torch's, with ones in front."""
    order: Four
    """Axis i on the card is axis `order[i]` of torch."""

    @property
    def dtype(self) -> str:
        """Its type."""
        return self.value.dtype

    def place(self, axis: int) -> int:
        """Where on the card an axis of the padded shape is."""
        return self.order.index(axis)

    def transposed(self, axes: Sequence[int]) -> "Arranged":
        """What `permute(axes)` of the padded shape gives: the same on the card."""
        return Arranged(
            self.value, four([self.shape[axis] for axis in axes]), four([list(axes).index(axis) for axis in self.order])
        )

    def viewed(self, shape: Four) -> "Arranged | None":
        """The same under a shape that differs in axes of one element only; None where more differs."""
        if [e for e in shape if e != 1] != [e for e in self.shape if e != 1]:
            return None
        named = dict(
            zip(
                (axis for axis in range(4) if self.shape[axis] != 1),
                (axis for axis in range(4) if shape[axis] != 1),
                strict=True,
            )
        )
        free = iter([axis for axis in range(4) if shape[axis] == 1])
        order = [named[axis] if axis in named else next(free) for axis in self.order]
        return Arranged(self.value, shape, four(order))


def alike(shape: Four, one: Four, other: Four) -> bool:
    """Whether a tensor of a shape lies the same under two orders."""
    return [shape[axis] for axis in one] == [shape[axis] for axis in other] and [
        axis for axis in one if shape[axis] != 1
    ] == [axis for axis in other if shape[axis] != 1]
