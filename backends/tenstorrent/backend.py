"""TenstorrentBackend: a Wormhole or Blackhole card driven by ttnn."""

from dataclasses import dataclass, field

from backends.base import Arithmetic
from backends.tenstorrent.numerics import TensixArithmetic
from backends.tenstorrent.support import Architecture, refuses
from precision.policy import Scheme
from precision.site import Site


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
