"""TenstorrentBackend: a Wormhole or Blackhole card driven by ttnn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backends.base import NOTHING_MEASURED, Arithmetic, Measured
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.support import Architecture, card_of, refuses
from precision.policy import Policy, Scheme
from precision.site import Site

if TYPE_CHECKING:
    from backends.tenstorrent.built import TenstorrentBuilt
    from voice.graph import SiteGraph


@dataclass(frozen=True, slots=True)
class TenstorrentBackend:
    """What a card of one architecture can do, and its arithmetic."""

    architecture: Architecture
    arithmetic: TensixArithmetic = field(default_factory=TensixArithmetic)
    name: str = "tenstorrent"

    @property
    def exact(self) -> Arithmetic:
        """The card's arithmetic to the bit."""
        # Late: only the final gate needs the compiled kernels, whose import takes a second.
        from backends.tenstorrent.exact.arithmetic import ExactTensix

        return ExactTensix("blackhole" if self.architecture == "blackhole" else "wormhole_b0")

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """See `Backend.refuses`."""
        return refuses(site, scheme, self.architecture)

    def refuses_in_stream(self, site: Site, scheme: Scheme) -> str | None:
        """See `Builder.refuses_in_stream`."""
        return refuses(site, scheme, self.architecture, streaming=True)

    def build(
        self, graph: "SiteGraph", policy: Policy, sites: Sequence[Site], measured: Measured = NOTHING_MEASURED
    ) -> "TenstorrentBuilt":
        """See `Builder.build`; for the card of the architecture, as CARDS has it."""
        # Late: a search lowers nothing.
        from backends.tenstorrent.built import build

        return build(graph, policy, sites, card_of(self.architecture), measured)
