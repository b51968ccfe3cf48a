"""Resources: what a choice takes of a card, and the arrays of it that a search reads; everything adds up."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from backends.cost import CostModel, SiteCost
from backends.devices import PASSES
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.search.boundary import Boundary
from precision.search.unit import Array
from precision.site import Site

Resource = Literal["seconds", "passes", "joules", "usd", "weight_bytes", "weight_bits"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)
"""What adds up. Per second of audio of one stream: seconds of the card, its joules, dollars that these seconds cost. Of
the whole model: passes of a Tensix multiplier a MAC (the mean over all MACs), bytes that the weights take on the card,
padding included, and bits that they are stored in, without it."""
EFFECTIVE_BITS = "effective_bits"
"""A limit on stored bits a weight; in the arrays it is one on `weight_bits`."""
IDLE_SHARE = 0.4
"""Share of its full power that a card draws while its multiplier waits for memory, or for the next launch; an
assumption. Measured on an H200: 137 to 300 of 700 W while decoding out of memory (arXiv 2605.11999), so 0.2 to 0.43.
Memory at its full rate is in it, so bytes moved take no energy of their own."""
TIE = 1e-3
"""Weight of the seconds, as a share of the baseline's, where what is minimized leaves options alike."""
ASSUMPTIONS: tuple[str, ...] = (
    f"a card draws {IDLE_SHARE:g} of its full power while a launch runs (on an H200 0.2 to 0.43 while it waits for "
    "memory, arXiv 2605.11999), and the rest in proportion to how long its multiplier computes; bytes moved take no "
    "energy beside that, and cooling is counted in the price of electricity alone",
)
_ALIKE = ("passes", "weight_bytes", "weight_bits")
"""Resources of which unlike options may take the same, and of which boundaries take nothing."""


@dataclass(frozen=True)
class Meter:
    """What the sites of a model take of each resource of a card.

    Every amount is at least 0 and in the unit of `RESOURCES`; fewer passes and fewer bits never take more.
    """

    model: CostModel
    """Card, batch and chunk."""
    sites: tuple[Site, ...]
    """All sites."""
    usd_per_second: float | None = None
    """Dollars of a second of the card, as `backends.money.usd_per_second` has it; needed for usd alone."""

    @cached_property
    def macs_per_second(self) -> float:
        """Multiply-accumulates of all sites per second of audio."""
        return math.fsum(site.macs_per_second for site in self.sites)

    @cached_property
    def weights(self) -> int:
        """Number of weights of all sites."""
        return sum(site.weight_elements for site in self.sites)

    def usage_of(self, site: Site, scheme: Scheme, resource: Resource) -> float:
        """What a site takes of a resource under a scheme.

        Raises:
            ValueError: the card has no rate for the scheme, passes are asked of a scheme without a fidelity, dollars
                without a price, or there is no such resource.
        """
        if resource == "passes":
            if scheme.fidelity is None:
                raise ValueError(f"passes: scheme {scheme.name!r} names no fidelity; only Tensix cards have passes")
            return site.macs_per_second / self.macs_per_second * PASSES[scheme.fidelity]
        if resource == "weight_bits":
            return site.weight_elements * stored_bits(scheme.weight) if site.weight_elements else 0.0
        return self._amount(self.model.site_cost(site, scheme), resource)

    def boundary_usage_of(self, site: Site, before: Scheme, scheme: Scheme, resource: Resource) -> float:
        """What the typecast before a site takes, as `CostModel.boundary_cost` has it; errors as `usage_of` has them."""
        return 0.0 if resource in _ALIKE else self._amount(self.model.boundary_cost(site, before, scheme), resource)

    def policy_usage(self, policy: Mapping[str, Scheme], resource: Resource) -> float:
        """What a policy takes, boundaries included; errors as `usage_of` has them, KeyError for a site without one."""
        schemes = dict(policy.items())
        parts = [self.usage_of(site, schemes[site.name], resource) for site in self.sites]
        parts += (
            self.boundary_usage_of(site, schemes[site.fed_by], schemes[site.name], resource)
            for site in self.sites
            if site.fed_by is not None
        )
        return math.fsum(parts)

    def _amount(self, cost: SiteCost, resource: Resource) -> float:
        if resource == "seconds":
            return cost.seconds
        if resource == "weight_bytes":
            return cost.weight_bytes
        device = self.model.device
        if resource == "joules":
            full_seconds = IDLE_SHARE * cost.seconds + (1 - IDLE_SHARE) * cost.compute_seconds
            return device.power_w.as_cost(self.model.case) * full_seconds
        if resource == "usd" and self.usd_per_second is not None:
            return self.usd_per_second * cost.seconds
        if resource == "usd":
            raise ValueError(f"usd: what a second of {device.name} costs is not given; money.usd_per_second has it")
        raise ValueError(f"unknown resource {resource!r}; known are {', '.join(RESOURCES)}")


@dataclass(frozen=True, eq=False)
class SearchArrays:
    """What a `Problem` needs beside damage: what is minimized, what is limited, and both of the boundaries."""

    cost: Array
    """[site, option] in the unit of what is minimized; +inf where the option is not allowed."""
    usage: Mapping[str, Array]
    """By limited resource [site, option], in its unit; 0 where the option is not allowed."""
    boundaries: tuple[Boundary, ...]
    """Of the pairs of sites where one takes something; a site reads in one at most."""
    limits: Mapping[str, float]
    """By resource the most that a policy may take, in its unit."""


def search_arrays(
    meter: Meter,
    schemes: Sequence[Scheme],
    allowed: NDArray[np.bool_],
    *,
    baseline: Scheme,
    minimize: Resource = "seconds",
    within: Mapping[str, float] | None = None,
) -> SearchArrays:
    """Make the arrays of a search.

    Where passes or bytes of weights are minimized, options that take the same are told apart by `TIE` of their seconds,
    as shares of the baseline's: in passes, or in the baseline's bytes.

    Args:
        meter: Card and sites.
        schemes: The options of every site.
        allowed: [site, option] whether a site may take it; what is not allowed is not asked for a cost.
        baseline: The scheme, at every site, that limits are shares of.
        minimize: What the cost is.
        within: By resource, what a policy may take at most, as a share of what the baseline takes; `effective_bits` in
            bits a weight, the mean over the weights of all sites.

    Raises:
        ValueError: a resource is not known, or as `Meter.usage_of` has them.
        KeyError: a site is fed by one that is not there.
    """
    within = within or {}
    limited = {name: limited_resource(name) for name in within}
    uniform = {site.name: baseline for site in meter.sites}
    wanted = tuple(dict.fromkeys((minimize, "seconds", *limited.values())))
    tie = 0.0
    if minimize in _ALIKE:
        unit = 1.0 if minimize == "passes" else meter.policy_usage(uniform, minimize)
        tie = TIE * unit / meter.policy_usage(uniform, "seconds")

    def objective(tables: Mapping[Resource, Array]) -> Array:
        return tables[minimize] + tie * tables["seconds"]

    alone = _of_sites(meter, schemes, allowed, wanted)
    boundaries = []
    for first, second, met in _of_boundaries(meter, schemes, allowed, wanted):
        usage = {str(resource): met[resource] for resource in limited.values()}
        boundaries.append(Boundary(first, second, objective(met), usage))
    limits = {
        str(resource): within[name]
        * (meter.weights if name == EFFECTIVE_BITS else meter.policy_usage(uniform, resource))
        for name, resource in limited.items()
    }
    cost = np.where(allowed, objective(alone), np.inf)
    return SearchArrays(cost, {str(name): alone[name] for name in limited.values()}, tuple(boundaries), limits)


def typecast_summary(model: CostModel, sites: Sequence[Site], policy: Mapping[str, Scheme]) -> dict[str, float]:
    """How many sites of a policy read another format than was stored, and what that takes.

    Returns:
        `count`; `seconds` per second of audio of one stream; `share` of the policy's seconds, 0 to 1.
    """
    found = model.typecasts(sites, policy)
    seconds = math.fsum(cost.seconds for cost in found.values())
    return {"count": len(found), "seconds": seconds, "share": seconds / model.policy_seconds(sites, policy)}


def _of_sites(
    meter: Meter, schemes: Sequence[Scheme], allowed: NDArray[np.bool_], wanted: Iterable[Resource]
) -> dict[Resource, Array]:
    """[site, option] of each resource, 0 where an option is not allowed."""
    tables: dict[Resource, Array] = {resource: np.zeros(allowed.shape) for resource in wanted}
    for row, option in np.argwhere(allowed):
        for resource, table in tables.items():
            table[row, option] = meter.usage_of(meter.sites[row], schemes[option], resource)
    return tables


def _of_boundaries(
    meter: Meter, schemes: Sequence[Scheme], allowed: NDArray[np.bool_], wanted: Iterable[Resource]
) -> Iterable[tuple[int, int, dict[Resource, Array]]]:
    """Writer, reader, and [option of writer, option of reader] of each resource, where any pair takes time."""
    wanted = tuple(wanted)
    places = {site.name: index for index, site in enumerate(meter.sites)}
    for second, site in enumerate(meter.sites):
        if site.fed_by is None:
            continue
        first = places[site.fed_by]
        met: dict[Resource, Array] = {name: np.zeros((len(schemes), len(schemes))) for name in wanted}
        for before, after in np.argwhere(allowed[first][:, None] & allowed[second][None, :]):
            for resource, table in met.items():
                table[before, after] = meter.boundary_usage_of(site, schemes[before], schemes[after], resource)
        if met["seconds"].any():
            yield first, second, met


def limited_resource(name: str) -> Resource:
    """The resource that a limit of this name is on: of `effective_bits` `weight_bits`; ValueError for one unknown."""
    for resource in RESOURCES:
        if name == resource or (name, resource) == (EFFECTIVE_BITS, "weight_bits"):
            return resource
    raise ValueError(f"unknown resource {name!r}; known are {', '.join((*RESOURCES, EFFECTIVE_BITS))}")
