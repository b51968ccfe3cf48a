"""HopperBackend: a Hopper GPU driven by TensorRT, and by plain GEMMs where TensorRT cannot."""

from dataclasses import dataclass, field

from backends.hopper.numerics import HopperArithmetic
from backends.hopper.support import refuses
from precision.policy import Scheme
from precision.site import Site


@dataclass(frozen=True, slots=True)
class HopperBackend:
    """What the card can do, and its arithmetic."""

    arithmetic: HopperArithmetic = field(default_factory=HopperArithmetic)
    name: str = "hopper"

    @property
    def exact(self) -> None:
        """None: how the tensor core aligns and cuts its sums is not modelled."""

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """See `Backend.refuses`."""
        return refuses(site, scheme)
