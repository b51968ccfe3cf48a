"""HopperBackend: a Hopper GPU driven by TensorRT, and by plain GEMMs where TensorRT cannot."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backends.base import NOTHING_MEASURED, Measured
from backends.hopper.numerics import HopperArithmetic
from backends.hopper.support import Route, refuses
from precision.policy import Policy, Scheme
from precision.site import Site

if TYPE_CHECKING:
    from backends.hopper.built import HopperBuilt
    from voice.graph import SiteGraph


@dataclass(frozen=True, slots=True)
class HopperBackend:
    """What the card can do, and its arithmetic."""

    route: Route | None = None
    """What runs a model; None: each site by whichever can, which two engines side by side would do."""
    arithmetic: HopperArithmetic = field(default_factory=HopperArithmetic)
    name: str = "hopper"

    @property
    def exact(self) -> None:
        """None: how the tensor core aligns and cuts its sums is not modelled."""

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """See `Backend.refuses`."""
        return refuses(site, scheme, self.route)

    def refuses_in_stream(self, site: Site, scheme: Scheme) -> str | None:
        """See `Builder.refuses_in_stream`."""
        return refuses(site, scheme, self.route, streaming=True)

    def build(
        self, graph: "SiteGraph", policy: Policy, sites: Sequence[Site], measured: Measured = NOTHING_MEASURED
    ) -> "HopperBuilt":
        """See `Builder.build`; without a route by TensorRT where it takes all sites, and by plain GEMMs elsewhere."""
        # Late: a search lowers nothing, and does without onnx.
        from backends.hopper.built import build

        return build(graph, policy, sites, measured, self.route)
