"""Workload: the streams of one voice model on any card, under any policy and on any terms."""

from dataclasses import dataclass
from typing import Protocol

from backends.cost import CostModel
from backends.devices import Case, Device
from backends.money import Accounting, Comparison, compare
from backends.serving import MAX_BATCH, PolicyCost, Serving, policy_cost, serve
from precision.policy import Policy
from precision.site import Site


@dataclass(frozen=True, slots=True)
class Terms:
    """How a card is asked to serve."""

    utilization: float = 0.7
    """Largest share of its time that it may be busy, in (0, 1]."""
    chunk_seconds: float = 0.5
    """Audio of one launch; what a model that fixes its own does not look at."""
    max_batch: int = MAX_BATCH
    """Most streams of one launch, 1 and up."""
    measured: bool = True
    """Whether what was measured of a card counts; without, every card is priced by a roofline, like with like."""


class Workload(Protocol):
    """One voice model, whose streams can be put on any card."""

    @property
    def chunk_is_free(self) -> bool:
        """Whether the audio of a launch may be of any length; a decoder's is its frame."""
        ...

    def serve(self, device: Device, policy: Policy, terms: Terms, label: str = "") -> Serving:
        """Streams at both ends of the ranges and in the middle; ValueError for a format that the card lacks."""
        ...

    def at(self, device: Device, policy: Policy, terms: Terms, case: Case = "middle") -> PolicyCost:
        """Those of one case alone."""
        ...


@dataclass(frozen=True)
class ClipWorkload:
    """A model that renders chunk after chunk, by its sites."""

    sites: tuple[Site, ...]

    @property
    def chunk_is_free(self) -> bool:
        """Chunks of any length."""
        return True

    def serve(self, device: Device, policy: Policy, terms: Terms, label: str = "") -> Serving:
        """As `backends.serving.serve` has it."""
        return serve(
            device,
            self.sites,
            policy,
            label=label,
            chunk_seconds=terms.chunk_seconds,
            utilization=terms.utilization,
            max_batch=terms.max_batch,
            measured=terms.measured,
        )

    def at(self, device: Device, policy: Policy, terms: Terms, case: Case = "middle") -> PolicyCost:
        """As `backends.serving.policy_cost` has it."""
        model = CostModel.of(device, self.sites, chunk_seconds=terms.chunk_seconds, case=case, tables=terms.measured)
        return policy_cost(model, self.sites, policy, utilization=terms.utilization, max_batch=terms.max_batch)


@dataclass(frozen=True, slots=True)
class Side:
    """A policy on a card: one side of a comparison."""

    device: Device
    policy: Policy
    label: str


def compared(
    workload: Workload, candidate: Side, baseline: Side, terms: Terms, accounting: Accounting | None = None
) -> Comparison:
    """Both sides served on the same terms, and priced; errors as `Workload.serve` and `compare` have them."""
    ours, theirs = (workload.serve(side.device, side.policy, terms, side.label) for side in (candidate, baseline))
    return compare(ours, theirs, accounting)
