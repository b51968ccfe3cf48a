"""Boundary: what two neighbouring sites cost together, where their options are unlike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from precision.search.unit import Array, Unit


@dataclass(frozen=True, eq=False)
class Boundary:
    """A place where one site reads what another wrote: a typecast or a reformat, where their options are unlike.

    The arrays are copied and cannot be written to. They may be wider than the sites have options. What stands at
    options that may not be chosen has no meaning (NaN too).
    """

    first: int
    """Index of the site that writes."""
    second: int
    """Index of the site that reads; it is the `second` of no other boundary."""
    cost: Array
    """[option of first, option of second] in the unit of the problem's cost; finite, >= 0."""
    usage: Mapping[str, Array] = field(default_factory=dict)
    """By resource [option of first, option of second], in its unit; finite, >= 0. One left out is not used here."""

    def __post_init__(self) -> None:
        """Copy to read-only float64."""
        arrays = {"": np.array(self.cost, dtype=np.float64)}
        arrays |= {name: np.array(used, dtype=np.float64) for name, used in self.usage.items()}
        for array in arrays.values():
            array.setflags(write=False)
        object.__setattr__(self, "cost", arrays.pop(""))
        object.__setattr__(self, "usage", MappingProxyType(arrays))


@dataclass(frozen=True, eq=False)
class Link:
    """What all boundaries between two units add, by the options of both."""

    first: int
    """Index of the earlier unit."""
    second: int
    """Index of the later unit."""
    cost: Array
    """[option of first, option of second]"""
    usage: Array
    """[resource, option of first, option of second]"""


def links(
    boundaries: Sequence[Boundary], units: Sequence[Unit], resources: Sequence[str]
) -> tuple[tuple[Link, ...], dict[int, Array]]:
    """Sum the boundaries by the units that they lie between.

    Returns:
        The links between two units, in order; and of units that have boundaries inside, cost and usages
        [1 + resource, option] of these.
    """
    home = {site: (index, member) for index, unit in enumerate(units) for member, site in enumerate(unit.sites)}
    between: dict[tuple[int, int], Array] = {}
    inside: dict[int, Array] = {}
    for boundary in boundaries:
        (one, writer), (other, reader) = home[boundary.first], home[boundary.second]
        rows = np.array([pick[writer] for pick in units[one].picks])
        columns = np.array([pick[reader] for pick in units[other].picks])
        if one != other:
            rows = rows[:, None]
        none = np.zeros_like(boundary.cost)
        used = [boundary.cost, *(boundary.usage.get(name, none) for name in resources)]
        found = np.stack([table[rows, columns] for table in used])
        if one == other:
            inside[one] = inside.get(one, 0.0) + found
            continue
        key = (min(one, other), max(one, other))
        between[key] = between.get(key, 0.0) + (found if one < other else found.transpose(0, 2, 1))
    return tuple(Link(*key, table[0], table[1:]) for key, table in sorted(between.items())), inside


def wrong_boundaries(
    sites: Sequence[str],
    options: Sequence[Sequence[str]],
    allowed: NDArray[np.bool_],
    resources: Sequence[str],
    boundaries: Sequence[Boundary],
) -> list[str]:
    """Name what is wrong with boundaries: indices, shapes, values, readers of two, and circles.

    Args:
        sites: names of the sites.
        options: names of the options of every site.
        allowed: [site, option] whether the option may be chosen.
        resources: names of the usages of the problem.
        boundaries: what is looked at.
    """
    mistakes = []
    writer: dict[int, int] = {}
    for boundary in boundaries:
        first, second = boundary.first, boundary.second
        if not (0 <= first < len(sites) and 0 <= second < len(sites)) or first == second:
            mistakes.append(f"a boundary joins sites {first} and {second}, expected two of 0..{len(sites) - 1}")
            continue
        if second in writer:
            mistakes.append(f"{sites[second]} is the second of two boundaries; a site reads one other")
        writer.setdefault(second, first)
        name = f"the boundary of {sites[first]} and {sites[second]}"
        if unknown := sorted(set(boundary.usage) - set(resources)):
            mistakes.append(f"{name} uses {unknown}, but the problem's usages are {list(resources)}")
        least = (len(options[first]), len(options[second]))
        met = np.ix_(allowed[first, : least[0]], allowed[second, : least[1]])
        for what, array in (("cost", boundary.cost), *boundary.usage.items()):
            if array.ndim != 2 or array.shape[0] < least[0] or array.shape[1] < least[1]:
                mistakes.append(f"{name}: {what} has shape {array.shape}, expected [option, option] = {least} or more")
            elif not (np.isfinite(found := array[: least[0], : least[1]][met]) & (found >= 0.0)).all():
                mistakes.append(f"{name}: {what} must be finite and >= 0 where both options are allowed, got {found}")
    for start in writer:
        site, seen = start, {start}
        while site in writer and writer[site] not in seen:
            site = writer[site]
            seen.add(site)
        if writer.get(site) == start and start == min(seen):
            mistakes.append("boundaries go in a circle: " + ", ".join(sites[one] for one in sorted(seen)))
    return mistakes
