"""DecoderWorkload: the streams of an autoregressive speech decoder on any card, as money asks for them."""

from dataclasses import dataclass, replace

from backends.decoder_pass import DecoderCost
from backends.decoding import Load, served, streams_of
from backends.devices import Case, Device
from backends.money import CASES
from backends.serving import MAX_BATCH, PolicyCost, Serving
from backends.workload import Terms
from precision.policy import Policy
from precision.site import Site
from voice.decoder_config import DecoderConfig


@dataclass(frozen=True)
class DecoderWorkload:
    """A decoder, by its configuration and the sites of a step."""

    config: DecoderConfig
    sites: tuple[Site, ...]
    parameters: int
    """Weights of the whole model."""
    load: Load
    """What is asked of a card; the terms' utilization goes before its own."""

    @property
    def chunk_is_free(self) -> bool:
        """A pass makes one frame."""
        return False

    def serve(self, device: Device, policy: Policy, terms: Terms, label: str = "") -> Serving:
        """As `backends.decoding.served` has it, in passes of `terms.max_batch` streams where more would fit."""
        costs = {case: self._cost(device, policy, case) for case in CASES}
        load = replace(self.load, utilization=terms.utilization)
        if (
            terms.max_batch < MAX_BATCH
            and max(streams_of(cost, load).batch for cost in costs.values()) > terms.max_batch
        ):
            load = replace(load, batch=terms.max_batch)
        return served(costs, label, load)

    def middle(self, device: Device, policy: Policy, terms: Terms) -> PolicyCost:
        """The same, in the middle of the ranges."""
        cost = self._cost(device, policy, "middle")
        load = replace(self.load, utilization=terms.utilization)
        if terms.max_batch < MAX_BATCH and streams_of(cost, load).batch > terms.max_batch:
            load = replace(load, batch=terms.max_batch)
        return served(dict.fromkeys(CASES, cost), "", load).middle

    def _cost(self, device: Device, policy: Policy, case: Case) -> DecoderCost:
        return DecoderCost(device, self.config, self.sites, dict(policy.schemes), self.parameters, case)
