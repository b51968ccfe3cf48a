"""The protocols a target fulfils: Backend, Arithmetic, Engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Scheme
from precision.site import Site
from voice.model import Clip, Rendering
from voice.site_call import SiteCall


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The weight and bias of one (site, scheme), as the target's multiplier reads them; float32, never written to."""

    weight: Tensor | None
    """In the layout of `SiteCall.weight`; None for a product of two activations."""
    bias: Tensor | None
    weight_high: Tensor | None = None
    """What a second pass reads of the weight, where a scheme has one."""
    scale: Tensor | None = None
    """Factor of the result that undoes the weight's scaling: one value, or one an output channel."""


class Arithmetic(Protocol):
    """How a target multiplies, in torch."""

    @property
    def name(self) -> str:
        """What reports call it; says whether it is exact."""

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """Round weight and bias of the call's site; done once for each (site, scheme).

        Raises:
            ValueError: a lever of the scheme needs the moments of the site's input, and there are none.
        """

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """Compute the call under a scheme that the backend does not refuse.

        Returns:
            float32, in the shape of `call.compute()`, holding values of the format in which the target stores it.

        Raises:
            UncalibratedSiteError: the scheme needs a static scale that the calibration does not have.
        """


class Backend(Protocol):
    """A target: what it can do, and how it computes."""

    @property
    def name(self) -> str:
        """Name of the target's software, as recipes and reports have it."""

    @property
    def arithmetic(self) -> Arithmetic:
        """Its arithmetic, fast enough to search with."""

    @property
    def exact(self) -> Arithmetic | None:
        """Its arithmetic to the bit, which decides what is reported as kept; None where the target has none here."""

    def refuses(self, site: Site, scheme: Scheme) -> str | None:
        """Say why the target cannot run a site so, and what to do; None where it can."""


class Engine(Protocol):
    """A voice built under a policy."""

    def render(self, clip: Clip) -> Rendering:
        """What the voice makes of a clip, float32."""

    def realized(self) -> Mapping[str, Scheme]:
        """What each site did compute under, in the order of first calls; of all renders so far."""
