"""TenstorrentBackend: a Wormhole or Blackhole card driven by ttnn."""

from dataclasses import dataclass, field

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

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """See `Backend.refuses`."""
        return refuses(site, scheme, self.architecture)
