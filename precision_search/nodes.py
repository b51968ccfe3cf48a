"""Nodes: what this side knows of the nodes of a cluster, of its workers on them, and of what it has asked them."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from precision_search.pools import Made, Task


@dataclass
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    room: int
    """Workers that its processors and its memory hold."""
    losses: int = 0
    """Workers that it lost, or that could not begin."""
    ready: bool = False
    """Whether a worker of it ever was."""


@dataclass(eq=False)
class Hand:
    """A worker, as this side knows it."""

    node: Node
    actor: Any


@dataclass(frozen=True)
class Asked:
    """What an answer is awaited to: a node's versions; a worker's readiness; or a task of a turn."""

    node: Node
    hand: Hand | None = None
    turn: "Turn | None" = None
    place: int = -1


@dataclass(eq=False)
class Turn:
    """One call of `each`."""

    method: str
    tasks: Sequence[Task]
    made: Made | None
    waiting: deque[int]
    found: dict[int, Any] = field(default_factory=dict)
    losses: Counter[int] = field(default_factory=Counter)
