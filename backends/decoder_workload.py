"""DecoderWorkload: the streams of an autoregressive speech decoder on any card, as money asks for them."""

from dataclasses import dataclass, replace

from backends.decoder_pass import FRAME_SECONDS, DecoderCost
from backends.decoding import Load, as_policy_cost, streams_of
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
        """As `at` has them."""
        found = {case: self.at(device, policy, terms, case) for case in CASES}
        low, middle, high = (found[case] for case in CASES)
        return Serving(device, label, low, middle, high, FRAME_SECONDS, terms.utilization, weights_on_chip=False)

    def at(self, device: Device, policy: Policy, terms: Terms, case: Case = "middle") -> PolicyCost:
        """As `backends.decoding.streams_of` has it, in passes of `terms.max_batch` streams where more would fit."""
        schemes = dict(policy.schemes)
        cost = DecoderCost(device, self.config, self.sites, schemes, self.parameters, case, measured=terms.measured)
        load = replace(self.load, utilization=terms.utilization)
        found = streams_of(cost, load)
        if terms.max_batch < MAX_BATCH and found.batch > terms.max_batch:
            found = streams_of(cost, replace(load, batch=terms.max_batch))
        return as_policy_cost(cost, found)
