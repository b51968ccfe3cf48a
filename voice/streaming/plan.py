"""Plan: how a node of the whole utterance's graph runs in a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.fx import Node

from voice.streaming.timing import Timing
from voice.streaming.windows import Window


@dataclass(frozen=True, slots=True)
class Plan:
    """How a node runs in a step."""

    timing: Timing | None = None
    """None of a value that is the same in every chunk."""
    waits: Mapping[Node, int] = field(default_factory=dict)
    """Samples by which arguments are delayed, so that all are of the same moment."""
    window: Window | None = None
    """Of a convolution."""
    crops: bool = False
    """Whether it only takes samples away or adds zeros, which in a stream is a delay."""
    needs_zeros: bool = False
    """Whether its input must be zero outside of the utterance."""
    keeps_zeros: bool = False
    """Of what crops: whether what it gives is then zero outside of the utterance, too."""


Timings = Mapping[Node, Timing]
