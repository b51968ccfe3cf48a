"""The protocols a target fulfils: Backend, Arithmetic, Engine; Builder and Built where models can be deployed to it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.model import Clip, Rendering
from voice.site_call import SiteCall

if TYPE_CHECKING:
    # It brings torch.export, which takes half a second and which a search never needs.
    from voice.graph import SiteGraph


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


class BuildError(ValueError):
    """A graph cannot be built under a policy; the message names every site and operation in the way."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was measured of a model on clips, and trained for it; a build takes what its policy needs."""

    moments: Mapping[str, Moments] = field(default_factory=dict)
    """Of the inputs of sites, by name, for levers that ask for them."""
    calibration: Calibration | None = None
    """Static scales of activations."""
    adapted: Mapping[str, Mapping[str, Operands]] = field(default_factory=dict)
    """Digest -> site -> what it computes with, where its scheme has the digest."""


NOTHING_MEASURED = Measured()


class Built(Protocol):
    """A graph under a policy, in the form that the target's own software takes."""

    @property
    def digest(self) -> str:
        """Hash of all that would be deployed, weights included: 16 hexadecimal digits.

        The same graph, policy and versions give the same one in every process; another text, weight or type another.
        """

    def write(self, folder: Path) -> None:
        """Put all that would be deployed into a folder, which is there and empty; the same bytes every time.

        Raises:
            ValueError: the target's software packed other weights than the policy says.
            RuntimeError: the target's software is needed for it and is not there.
        """

    def realized(self) -> Mapping[str, Scheme]:
        """How each site computes by the account of the target's software, in the order of first calls.

        A field that the software shows is what it shows, read back and never copied from what was asked for; of several
        operations of a site, those of one that departs from the policy, where one does. Fields that it does not show
        are the policy's: the name, and what is done to weights before it sees them. So where all is as it should be,
        this equals the policy.

        Raises:
            BuildError: the software refuses operations; its words for each.
            RuntimeError: the software is not there.
        """

    def compute(self, runs: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Compute the built graph, in the target's arithmetic as far as it can be had here; no device is needed.

        Args:
            runs: inputs of one run after another, by the graph's names and of its shapes. States are zero before the
                first and stay from each to the next; a run is asked for only when the one before has been computed, so
                that it may be made of its outputs.

        Yields:
            The graph's parts by name, float32. NaN and Inf come out as the arithmetic makes them.

        Raises:
            ValueError: inputs do not fit the graph.
        """


@runtime_checkable
class Builder(Backend, Protocol):
    """A target to which models can be brought."""

    def refuses_in_stream(self, site: Site, scheme: Scheme) -> str | None:
        """As `refuses`, of a site that runs once a chunk and has to give what it would give on the whole."""

    def build(
        self, graph: "SiteGraph", policy: Policy, sites: Sequence[Site], measured: Measured = NOTHING_MEASURED
    ) -> Built:
        """Bring a graph to the target under a policy; every choice is made here, and nothing is run.

        Args:
            graph: of a clip, or of a chunk of a stream.
            policy: a scheme for each site of the graph, and for no other.
            sites: of the model, as `voice.sites.discover` finds them; there may be more than the graph has.
            measured: of the model.

        Raises:
            BuildError: the policy lacks a site of the graph, or has one that the graph has not; the target refuses a
                site under its scheme; an operation has no counterpart. All that is known to be in the way is named.
            ValueError: a weight is not finite, or what a lever needs was not measured.
        """
