"""Columns: the same node of all graphs, and how messages name it."""

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule, Node

from voice.graph.dynamic_sizes import DynamicError, listed

Column = tuple[Node, ...]
"""The same node of all graphs."""
ALIKE = (
    "graphs are merged where they differ in sizes alone. Take clips of one kind, of the same inputs, and none so short"
    " that a part of them is empty, whole or of length 1, or two of their sizes the same"
)


def columns_of(modules: Sequence[GraphModule]) -> list[Column]:
    """Line the nodes of graphs up.

    Raises:
        DynamicError: at the first that is another operation.
    """
    columns = list(zip(*(module.graph.nodes for module in modules), strict=False))
    for column in columns:
        node = column[0]
        for other in column[1:]:
            # Names of constants count them, and may differ.
            same = node.op == other.op and (node.op == "get_attr" or node.target == other.target)
            if not same or node.kwargs.keys() != other.kwargs.keys():
                raise DynamicError(f"{where(node)} is in another graph {where(other)}: {ALIKE}")
    counts = [len(module.graph.nodes) for module in modules]
    if len(set(counts)) > 1:
        raise DynamicError(f"the graphs have {listed(counts)} nodes: {ALIKE}")
    return columns


def as_long(value: Any, first: Any) -> bool:
    """Whether an argument is a list of as many parts as that of the first graph."""
    return isinstance(value, list | tuple) and len(value) == len(first)


def where(node: Node) -> str:
    """A node as messages name it."""
    if node.op == "get_attr":
        return f"constant {read_by(node)}"
    if node.op == "call_function":
        return f"{node.target} at {node.meta['path'] or 'the module itself'}"
    return f"{'input' if node.op == 'placeholder' else 'the'} {node.target}"


def read_by(node: Node) -> str:
    """A constant as messages name it."""
    (reader, *_) = node.users
    return f"{node.target} (read by {where(reader)})"


def shown(value: Any) -> str:
    """An argument as messages show it."""
    return f"the result of {where(value)}" if isinstance(value, Node) else repr(value)
