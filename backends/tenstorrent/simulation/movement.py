"""Movement: operations that leave numbers as they are, and put them elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Options = Mapping[str, Any]


def _cut(inputs: Sequence[Tensor], options: Options) -> Tensor:
    begins, ends = options["begins"], options["ends"]
    steps = options.get("steps") or [1] * len(begins)
    return inputs[0][tuple(slice(*bounds) for bounds in zip(begins, ends, steps, strict=True))]


def _pad(inputs: Sequence[Tensor], options: Options) -> Tensor:
    amounts = [amount for pair in reversed(options["pads"]) for amount in pair]
    return F.pad(inputs[0], amounts, value=float(options["value"]))


def _embedding(inputs: Sequence[Tensor], _options: Options) -> Tensor:
    indices, table = inputs
    return table.reshape(table.shape[-2:])[indices.long()]


MOVEMENTS: Mapping[str, Callable[[Sequence[Tensor], Options], Tensor]] = {
    "typecast": lambda inputs, _: inputs[0],
    "to_layout": lambda inputs, _: inputs[0],
    "permute": lambda inputs, options: inputs[0].permute(tuple(options["order"])),
    "reshape": lambda inputs, options: inputs[0].reshape(tuple(options["shape"])),
    "slice": _cut,
    "concat": lambda inputs, options: torch.cat(list(inputs), options["axis"]),
    "pad": _pad,
    "repeat": lambda inputs, options: inputs[0].repeat(tuple(options["counts"])),
    "embedding": _embedding,
    "copy": lambda inputs, _: inputs[0],
}
"""By operation: what it makes of its inputs before the packer stores it as the result's type."""


def to_card(values: Tensor, options: Options) -> Tensor:
    """A host value as `upload` turns it."""
    view, order = options.get("view"), options.get("order")
    values = values if view is None else values.reshape(tuple(view))
    return values if order is None else values.permute(tuple(order))


def to_host(values: Tensor, options: Options) -> Tensor:
    """A value of the card as `download` turns it."""
    order, shape = options.get("order"), options.get("shape")
    values = values if order is None else values.permute(tuple(order))
    return (values if shape is None else values.reshape(tuple(shape))).float()
