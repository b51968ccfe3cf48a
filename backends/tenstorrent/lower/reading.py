"""Reading: what a rule may ask, and the arguments of a node."""

from collections.abc import Callable, Collection
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from backends.tenstorrent.lower.arranged import Arranged, Four, padded
from backends.tenstorrent.lower.builder import Builder
from backends.tenstorrent.program import Value


class UnsupportedError(ValueError):
    """An operation that cannot be lowered, and why."""


class Reader(Protocol):
    """What a rule may ask of the lowering."""

    build: Builder

    def card(self, node: fx.Node, dtype: str | None = None, order: Four | None = None) -> Arranged:
        """A node's value on the card; moved there, in that type and order, where the host has it.

        None is fp32 where a site reads what is made of it in fp32, and bf16 elsewhere; bf16 of a constant.
        """

    def constant(self, node: fx.Node) -> Tensor | None:
        """The value of a node that is a constant of the model."""

    def on_host(self, node: fx.Node) -> bool:
        """Whether the host has it."""

    def rounds_next(self, node: fx.Node) -> bool:
        """Whether whoever reads a node's value rounds it to bf16 first: then it may be kept in bf16 as well."""

    def card_indices(self, node: fx.Node) -> Value:
        """Whole numbers that the host has, as its value."""

    def host_mask(self, node: fx.Node, value: float) -> Value:
        """What the host makes of a mask: `value` where it is set, and zero."""


Rule = Callable[[Reader, fx.Node], Arranged]


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a node, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def shape_of(node: fx.Node) -> Four:
    """A node's shape with ones in front; UnsupportedError for more than four axes."""
    extents = node.meta["val"].shape
    shape = padded(extents)
    if shape is None:
        raise UnsupportedError(f"a tensor of {len(extents)} axes; ttnn's operations take four")
    return shape


def whole(argument: object) -> int:
    """An argument that is a whole number."""
    assert isinstance(argument, int)
    return argument


def refuse_unread(node: fx.Node, read: Collection[str]) -> None:
    """Refuse arguments that a rule does not read, where they are not torch's own defaults.

    Raises:
        UnsupportedError: naming them.
    """
    assert isinstance(node.target, torch._ops.OpOverload)
    said = []
    for position, declared in enumerate(node.target._schema.arguments):
        given = argument(node, position, declared.name, declared.default_value)
        if declared.name not in read and given != declared.default_value:
            said.append(f"{declared.name}={given}")
    if said:
        raise UnsupportedError(f"{', '.join(said)}: ttnn has no such choice here")
