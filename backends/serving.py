"""Serving: how many real-time streams a card carries under a policy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from backends.cost import CostModel
from backends.devices import Case, Device
from backends.evidence import Evidence, evidence_shares
from precision.policy import Policy, Scheme
from precision.site import Site

MEMORY_SHARE = 0.9
"""Share of the card's memory that a model and its streams may take; an assumption."""
MAX_BATCH = 4096
ASSUMPTIONS: tuple[str, ...] = (
    "streams run in batches of one size, a power of two, the one that lets the card carry most of them; a chunk of "
    "every batch is done within its own duration",
    "all streams speak all the time; scheduling loses nothing beyond the utilization",
    f"weights, the activations of one batch and the state of every stream take at most {MEMORY_SHARE} of the memory",
)


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """What a policy costs on a card in one case of the ranges."""

    seconds_per_audio_second: float
    """Time of the card that one second of audio of one stream takes, at this batch."""
    streams_per_card: int
    """Real-time streams that a card carries; 0 where one alone is too much."""
    batch: int
    """Streams that share a launch."""
    utilization: float
    """Share of its time that the card is busy with these streams."""
    weight_bytes: float
    activation_bytes: float
    """Bytes of activations moved per second of audio of one stream."""
    compute_share: float
    memory_share: float
    overhead_share: float
    """Shares of compute, memory and overhead in their sum; the shorter two are partly hidden."""
    fits: bool
    """Whether the weights and one batch fit in the card's memory."""
    limited_by: Literal["time", "memory"]
    evidence: Mapping[Evidence, float] = field(default_factory=dict)
    """Shares of the seconds by what they rest on; their sum is 1."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A policy on a card: the costs at both ends of the ranges and in the middle."""

    device: Device
    label: str
    low: PolicyCost
    """The cheapest outcome: highest rates, least overhead."""
    middle: PolicyCost
    high: PolicyCost
    chunk_seconds: float
    max_utilization: float
    weights_on_chip: bool


def policy_cost(
    model: CostModel,
    sites: Sequence[Site],
    policy: Mapping[str, Scheme],
    *,
    utilization: float = 0.7,
    max_batch: int = MAX_BATCH,
    state_bytes_per_stream: float = 0.0,
) -> PolicyCost:
    """Cost of a policy at the number of streams the card then carries.

    The more streams share a launch, the less each pays for weights and overhead, and the sooner activations leave SRAM:
    each batch of 1, 2, 4 ... `max_batch` streams that keeps within `utilization` is tried, and the best one taken.

    Args:
        model: Card, chunk and case; its `streams` is not looked at.
        sites: All sites; each must be in `policy`, as must be what feeds it.
        policy: Scheme of each site.
        utilization: Largest share of time that the card may be busy, in (0, 1].
        max_batch: Most streams in one launch.
        state_bytes_per_stream: What a stream keeps in memory between chunks (a KV cache).

    Raises:
        ValueError: for no sites, a site without a scheme, a utilization out of range, or a format the card lacks.
    """
    schemes = dict(policy.schemes) if isinstance(policy, Policy) else dict(policy)
    needed = dict.fromkeys(name for site in sites for name in (site.name, site.fed_by) if name is not None)
    missing = [name for name in needed if name not in schemes]
    if not sites or missing:
        raise ValueError(
            f"every site needs a scheme and there must be one: no scheme for {missing or 'no sites at all'}"
        )
    if not 0 < utilization <= 1 or max_batch < 1 or state_bytes_per_stream < 0:
        raise ValueError(
            f"0 < utilization <= 1, max_batch >= 1 and state_bytes_per_stream >= 0 must hold, got {utilization}, "
            f"{max_batch} and {state_bytes_per_stream}"
        )
    memory_bytes = MEMORY_SHARE * model.device.memory_gb.as_gain(model.case) * 1e9
    best: PolicyCost | None = None
    for batch in _batches(max_batch):
        cost = _at_batch(model.with_streams(batch), sites, schemes, utilization, memory_bytes, state_bytes_per_stream)
        if best is None or cost.streams_per_card > best.streams_per_card:
            best = cost
        if batch * cost.seconds_per_audio_second > utilization or not cost.fits:
            break
    assert best is not None
    return best


def serve(
    device: Device,
    sites: Sequence[Site],
    policy: Mapping[str, Scheme],
    *,
    label: str = "",
    chunk_seconds: float = 0.5,
    utilization: float = 0.7,
    max_batch: int = MAX_BATCH,
    state_bytes_per_stream: float = 0.0,
    measured: bool = True,
) -> Serving:
    """Costs of a policy on a card over the whole range of its figures; errors as `policy_cost` has them."""

    def at(case: Case) -> PolicyCost:
        model = CostModel.of(device, sites, chunk_seconds=chunk_seconds, case=case, tables=measured)
        return policy_cost(
            model,
            sites,
            policy,
            utilization=utilization,
            max_batch=max_batch,
            state_bytes_per_stream=state_bytes_per_stream,
        )

    on_chip = CostModel.of(device, sites).weights_on_chip
    return Serving(device, label, at("low"), at("middle"), at("high"), chunk_seconds, utilization, on_chip)


def _batches(max_batch: int) -> list[int]:
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent <= max_batch]
    return powers if powers[-1] == max_batch else [*powers, max_batch]


def _at_batch(
    model: CostModel,
    sites: Sequence[Site],
    schemes: Mapping[str, Scheme],
    utilization: float,
    memory_bytes: float,
    state_bytes_per_stream: float,
) -> PolicyCost:
    costs = [model.site_cost(site, schemes[site.name]) for site in sites]
    costs += model.typecasts(sites, schemes).values()
    seconds = math.fsum(cost.seconds for cost in costs)
    batch, weight_bytes = model.streams, sum(cost.weight_bytes for cost in costs)
    live_bytes = max(cost.activation_bytes for cost in costs) * model.chunk_seconds * batch
    spare_bytes = memory_bytes - weight_bytes - live_bytes
    fits = spare_bytes >= batch * state_bytes_per_stream
    by_time = math.floor(utilization / seconds + 1e-9)
    by_memory = math.inf if state_bytes_per_stream == 0 else spare_bytes // state_bytes_per_stream
    streams = int(min(by_time, by_memory)) if fits and by_time >= batch else 0
    parts = [sum(getattr(cost, f"{name}_seconds") for cost in costs) for name in ("compute", "memory", "overhead")]
    compute, memory, overhead = (part / sum(parts) for part in parts)
    return PolicyCost(
        seconds_per_audio_second=seconds,
        streams_per_card=streams,
        batch=batch,
        utilization=streams * seconds,
        weight_bytes=weight_bytes,
        activation_bytes=sum(cost.activation_bytes for cost in costs),
        compute_share=compute,
        memory_share=memory,
        overhead_share=overhead,
        fits=fits,
        limited_by="memory" if not fits or by_memory < by_time else "time",
        evidence=evidence_shares((cost.evidence, cost.seconds) for cost in costs),
    )
