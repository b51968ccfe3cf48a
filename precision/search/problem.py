"""Problem: what each option of each site costs and how much it damages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from precision.search.boundary import Boundary, Link, links, wrong_boundaries
from precision.search.unit import Array, Unit, efficient, merge

COST = "cost"
"""Name of the cost among the amounts that can be limited."""

Choice = tuple[int, ...]
"""Of every site, in order, the index of its option."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Sites, their options, and what is known of each pair before any policy has been tried.

    The arrays are copied and cannot be written to. Sites with fewer options than the arrays have columns are padded
    with an infinite cost; so are options that the target refuses.

    Raises:
        ValueError: naming every problem of the arrays at once.
    """

    sites: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    """Names of the options (schemes) of every site."""
    cost: Array
    """[site, option], any unit, >= 0; +inf where the option may not be chosen."""
    metrics: tuple[str, ...]
    damage: Array
    """[metric, site, option] amplitude >= 0 of lowering this site alone, in the metric's unit; the squares of several
    sites add. Without meaning (NaN too) where the cost is inf. +inf: measured to break altogether, never chosen."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Indices of sites that must agree on an option's name; a site is in one group at most."""
    usage: Mapping[str, Array] = field(default_factory=dict)
    """By resource ("seconds", "joules" ...) [site, option], in its unit: what else adds up and can be limited; finite
    and >= 0 where the option may be chosen, without meaning elsewhere."""
    boundaries: tuple[Boundary, ...] = ()
    """What neighbours take beside that, by the options of both; they form a forest of sites."""

    def __post_init__(self) -> None:
        """Normalise to tuples and read-only float64, and refuse what cannot be solved."""
        cost = np.array(self.cost, dtype=np.float64)
        damage = np.array(self.damage, dtype=np.float64)
        usage = {name: np.array(used, dtype=np.float64) for name, used in self.usage.items()}
        mistakes = _wrong_shapes(self.sites, self.options, cost, self.metrics, damage)
        mistakes += _wrong_usages(cost, usage)
        if not mistakes:
            mistakes = _wrong_values(self.sites, self.options, cost, self.metrics, damage, usage)
            mistakes += _wrong_groups(self.sites, self.groups)
            allowed = np.isfinite(cost) & np.isfinite(damage).all(axis=0)
            mistakes += wrong_boundaries(self.sites, self.options, allowed, tuple(usage), self.boundaries)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        refused = np.isinf(cost) | np.isinf(damage).any(axis=0)
        cost[refused] = np.inf
        damage[:, refused] = 0.0
        for used in usage.values():
            used[refused] = 0.0
        for array in (cost, damage, *usage.values()):
            array.setflags(write=False)
        object.__setattr__(self, "sites", tuple(self.sites))
        object.__setattr__(self, "options", tuple(tuple(names) for names in self.options))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "groups", tuple(tuple(sorted(group)) for group in self.groups))
        object.__setattr__(self, "cost", cost)
        object.__setattr__(self, "damage", damage)
        object.__setattr__(self, "usage", MappingProxyType(usage))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        stuck = [unit for unit in self._members if not unit.picks]
        if stuck:
            named = ["+".join(self.sites[site] for site in unit.sites) for unit in stuck]
            raise ValueError("no allowed option in common with finite cost and damage for: " + ", ".join(named))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Groups and lone sites, in the order of their first members."""
        return self._linked[0]

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """What boundaries add between two units, in their order; what lies inside of a unit is in its cost."""
        return self._linked[1]

    @cached_property
    def _members(self) -> tuple[Unit, ...]:
        """The units without their boundaries."""
        grouped = {group[0]: group for group in self.groups if group}
        rest = {site for group in self.groups for site in group[1:]}
        usage = np.stack([*self.usage.values()]) if self.usage else np.zeros((0, *self.cost.shape))
        return tuple(
            merge(grouped.get(site, (site,)), self.options, self.cost, self.damage, usage)
            for site in range(len(self.sites))
            if site not in rest
        )

    @cached_property
    def _linked(self) -> tuple[tuple[Unit, ...], tuple[Link, ...]]:
        found, inside = links(self.boundaries, self._members, tuple(self.usage))
        units = []
        for index, unit in enumerate(self._members):
            if index in inside:
                unit = replace(unit, cost=unit.cost + inside[index][0], usage=unit.usage + inside[index][1:])
            shared = [_padded(link, index, len(self.metrics)) for link in found if index in (link.first, link.second)]
            own = np.concatenate([unit.cost[None], unit.usage, unit.power])
            units.append(replace(unit, efficient=efficient(own, shared)))
        return tuple(units), found

    def total_cost(self, choice: Choice) -> float:
        """Sum the costs of a choice, boundaries included; inf where it holds an option that is not allowed."""
        return self.total(COST, choice)

    def total(self, resource: str, choice: Choice) -> float:
        """Sum what a choice takes of a resource, boundaries included, in its unit.

        Args:
            resource: the name of a usage, or "cost".
            choice: the option of every site.

        Returns:
            The sum; inf where the choice holds an option that is not allowed.

        Raises:
            KeyError: there is no such usage.
        """
        if any(math.isinf(self.cost[site, option]) for site, option in enumerate(choice)):
            return math.inf
        table = self.cost if resource == COST else self.usage[resource]
        parts = [table[site, option] for site, option in enumerate(choice)]
        for boundary in self.boundaries:
            met = boundary.cost if resource == COST else boundary.usage.get(resource)
            if met is not None:
                parts.append(met[choice[boundary.first], choice[boundary.second]])
        return math.fsum(parts)

    def predicted(self, choice: Choice) -> dict[str, float]:
        """Predict the damage of a choice in every metric: the root of the sum of the sites' squared amplitudes."""
        return {
            name: math.sqrt(math.fsum(self.damage[metric, site, option] ** 2 for site, option in enumerate(choice)))
            for metric, name in enumerate(self.metrics)
        }

    def selection(self, choice: Sequence[int]) -> tuple[int, ...]:
        """Give the option index of every unit for a choice of every site.

        Raises:
            ValueError: the choice has another length, an option that is not allowed, or a group that does not agree.
        """
        if len(choice) != len(self.sites):
            raise ValueError(f"a choice has one option for each of {len(self.sites)} sites, got {len(choice)}")
        found = []
        for unit in self.units:
            pick = tuple(choice[site] for site in unit.sites)
            if pick not in unit.picks:
                names = ", ".join(self.sites[site] for site in unit.sites)
                raise ValueError(f"options {pick} of {names} are not allowed (together); allowed: {unit.picks}")
            found.append(unit.picks.index(pick))
        return tuple(found)

    def choice(self, selection: Sequence[int]) -> Choice:
        """Give the option index of every site for an option of every unit."""
        options = [0] * len(self.sites)
        for unit, option in zip(self.units, selection, strict=True):
            for site, index in zip(unit.sites, unit.picks[option], strict=True):
                options[site] = index
        return tuple(options)


def _padded(link: Link, unit: int, metrics: int) -> Array:
    """Stack what a link takes [cost, usages, powers; option of the unit; option of the other]; power it has none."""
    table: Array = np.concatenate([link.cost[None], link.usage, np.zeros((metrics, *link.cost.shape))])
    return table if unit == link.first else table.transpose(0, 2, 1)


def _wrong_shapes(
    sites: Sequence[str], options: Sequence[Sequence[str]], cost: Array, metrics: Sequence[str], damage: Array
) -> list[str]:
    mistakes = []
    if not sites:
        mistakes.append("there are no sites")
    for what, names in (("site", sites), ("metric", metrics)):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        mistakes += [f"{what} {name!r} is named twice" for name in twice]
    if len(options) != len(sites):
        mistakes.append(f"options are of {len(options)} sites, but there are {len(sites)}")
    mistakes += [
        f"an option of site {i} is named twice: {list(n)}" for i, n in enumerate(options) if len(set(n)) < len(n)
    ]
    columns = max((len(names) for names in options), default=0)
    if cost.ndim != 2 or cost.shape[0] != len(sites) or cost.shape[1] < columns:
        mistakes.append(f"cost has shape {cost.shape}, expected [site, option] = ({len(sites)}, >={columns})")
    if damage.ndim != 3 or damage.shape != (len(metrics), *cost.shape):
        mistakes.append(
            f"damage has shape {damage.shape}, expected [metric, site, option] = {(len(metrics), *cost.shape)}"
        )
    return mistakes


def _wrong_usages(cost: Array, usage: Mapping[str, Array]) -> list[str]:
    mistakes = [
        f"usage of {name} has shape {used.shape}, expected that of cost, {cost.shape}"
        for name, used in usage.items()
        if used.shape != cost.shape
    ]
    if COST in usage:
        mistakes.append(f"a usage is named {COST!r}, which is the name of the cost itself; call it otherwise")
    return mistakes


def _wrong_values(
    sites: Sequence[str],
    options: Sequence[Sequence[str]],
    cost: Array,
    metrics: Sequence[str],
    damage: Array,
    usage: Mapping[str, Array],
) -> list[str]:
    mistakes = []
    for site, name in enumerate(sites):
        extra = cost[site, len(options[site]) :]
        if not np.isposinf(extra).all():
            mistakes.append(f"{name}: columns beyond its {len(options[site])} options must cost inf, got {extra}")
        for option, scheme in enumerate(options[site]):
            price = cost[site, option]
            if math.isnan(price) or price < 0.0:
                mistakes.append(f"{name}, {scheme}: cost must be >= 0 or inf, got {price}")
            elif math.isfinite(price):
                for metric, amplitude in zip(metrics, damage[:, site, option], strict=True):
                    if math.isnan(amplitude) or amplitude < 0.0:
                        mistakes.append(f"{name}, {scheme}: damage in {metric} must be >= 0, got {amplitude}")
                for resource, used in usage.items():
                    if not (math.isfinite(used[site, option]) and used[site, option] >= 0.0):
                        mistakes.append(
                            f"{name}, {scheme}: {resource} must be finite and >= 0, got {used[site, option]}"
                        )
        if not np.isfinite(cost[site, : len(options[site])]).any():
            mistakes.append(f"{name}: no allowed option (all of {list(options[site])} cost inf)")
    return mistakes


def _wrong_groups(sites: Sequence[str], groups: Sequence[Sequence[int]]) -> list[str]:
    mistakes = []
    seen: set[int] = set()
    for group in groups:
        for site in group:
            if not 0 <= site < len(sites):
                mistakes.append(f"group {tuple(group)} names site {site}, but sites are 0..{len(sites) - 1}")
            elif site in seen:
                mistakes.append(f"{sites[site]} is in a group twice, or in two groups")
            seen.add(site)
    return mistakes
