"""Cards that programs are made for, as ttnn 0.81.1 opens them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Card:
    """What a program must know of a card."""

    name: str
    """As `--card` has it."""
    architecture: Literal["wormhole", "blackhole"]
    device: str
    """Its name in devices.yaml."""
    grid: tuple[int, int]
    """Columns and rows of cores that an operation may use: what `compute_with_storage_grid_size` says."""
    l1_bytes: int
    """L1 of a core that buffers may take."""


CARDS: Mapping[str, Card] = {
    "wormhole_n150": Card("wormhole_n150", "wormhole", "n150", (8, 8), 1_395_424),
    "blackhole_p150": Card("blackhole_p150", "blackhole", "p150a", (13, 10), 1_463_232),
}
"""By name. A card with dispatch on it has fewer columns than one of slow dispatch; these are the former."""
