"""Constants that grow with the length of a clip: what they are at every length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["same", "fill", "table", "noise"]


@dataclass(frozen=True, slots=True, eq=False)
class Unified:
    """A constant of all graphs."""

    kind: Kind
    """`same` in all graphs; `fill`, the same all along the axes that grow; `table`, of which a longer clip reads more;
    `noise`."""
    value: Tensor
    """What to keep: of a fill what is of length 1 in those axes, of a table the longest, of noise that of the first."""


def unified(values: Sequence[Tensor], is_noise: bool) -> Unified | str:
    """Find what a constant is.

    Args:
        values: of the constant in all graphs.
        is_noise: whether it was drawn, or made of what was.

    Returns:
        It; or in words what keeps it from being any of these. NaN are equal to themselves.
    """
    first = values[0]
    if any(value.dtype != first.dtype or value.ndim != first.ndim for value in values):
        return "has another type, or another number of axes, in each"
    shapes = [tuple(value.shape) for value in values]
    if all(_equal(value, first) for value in values[1:]):
        return Unified("same", first)
    if is_noise:
        # Also where the shorter is the beginning of the longer: torch draws so only in multiples of 16.
        return Unified("noise", first)
    if len(set(shapes)) == 1:
        return (
            "holds other numbers in each, at the same shape: the graphs must be of one voice, and what depends on the"
            " length in another way than its size must be computed of an input"
        )
    longest = max(values, key=Tensor.numel)
    grows = [len(set(row)) > 1 for row in zip(*shapes, strict=True)]
    begin = longest[tuple(slice(1) if grown else slice(None) for grown in grows)]
    if all(_equal(value, begin.expand(value.shape)) for value in values):
        return Unified("fill", begin.clone())
    if any(size > most for shape in shapes for size, most in zip(shape, longest.shape, strict=True)):
        return f"has shapes {shapes}, none of which holds all others: give a clip that is the longest in all lengths"
    if all(_equal(value, longest[tuple(map(slice, value.shape))]) for value in values):
        return Unified("table", longest)
    return (
        f"has shapes {shapes}, and the shorter is not the beginning of the longer: have the model compute it of its"
        " inputs, or take it as one"
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if one.shape != other.shape:
        return False
    bits = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)
