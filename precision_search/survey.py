"""Survey: the rules of a space, proposed for a model that was looked at."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from types import MappingProxyType

from backends.devices import Device
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.recipe import Recipe
from precision.site import Op, Site
from voice.model import Voice
from voice.sites import Discovery, count_weights

_WIDE_BITS = 16
_LARGE = 0.5
"""Share of the MACs from which a module is told apart by its parts."""
_MOST_PARTS = 8
_MOST_BLOCKS = 12

Refuses = Callable[[Site, Scheme], str | None]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rule of `space`, and why it is there."""

    match: str
    allow: tuple[Scheme, ...]
    why: str
    sites: tuple[Site, ...]
    """Those that it takes, earlier rules considered."""
    op: Op | None = None
    refused: tuple[str, ...] = ()
    """What the card refuses, in a line each: schemes left out of `allow`, and those that only some sites cannot run."""


@dataclass(frozen=True)
class Look:
    """A model that was loaded and run once."""

    recipe: Recipe
    """All but the rules, which allow the baseline alone."""
    voice: Voice
    device: Device
    refuses: Refuses
    discovery: Discovery
    clips: int
    """Clips that there are."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """In the order in which they are called."""
        return self.discovery.sites

    @property
    def parameters(self) -> int:
        """Weights of the whole model, biases and embeddings included."""
        return count_weights(self.voice.module, self.sites)

    def policies(self, proposals: Sequence[Proposal]) -> int:
        """Count the policies that the rules allow and the card can run; sites of a group agree."""
        options: dict[str, set[str]] = {}
        for rule in proposals:
            for site in rule.sites:
                able = {scheme.name for scheme in rule.allow if self.refuses(site, scheme) is None}
                unit = site.group or site.name
                options[unit] = options.get(unit, able) & able
        return math.prod(len(able) for able in options.values())


def propose(
    sites: Sequence[Site],
    schemes: Sequence[Scheme],
    baseline: Scheme,
    protected: Mapping[str, str],
    refuses: Refuses,
    held: Mapping[str, tuple[Scheme, str]] = MappingProxyType({}),
) -> tuple[Proposal, ...]:
    """Propose rules that take every site.

    Protected sites keep the baseline, or what is said that they are held at. The first and the last layer may choose
    schemes whose activations have 16 bits or more; all else, schemes whose activations have 16 bits or fewer. Products
    of two activations get one scheme of those that differ in the weights alone. What is left is told apart by module.

    Args:
        sites: in the order in which they are called.
        schemes: that there are, the most precise first.
        baseline: one of them; every site must be able to run it.
        protected: pattern of names -> why those sites keep the baseline.
        refuses: why a site cannot run a scheme, or None.
        held: name of a site -> the only scheme that it may take, and why.
    """
    proposals: list[Proposal] = []
    left = dict.fromkeys(sites)

    def take(match: str, wanted: Iterable[Scheme], why: str, op: Op | None = None, least: Scheme = baseline) -> None:
        taken = tuple(site for site in left if fnmatchcase(site.name, match) and op in (None, site.op))
        if taken:
            allow, refused = _possible(taken, tuple(wanted), least, refuses)
            proposals.append(Proposal(match, allow, why, taken, op, refused))
            for site in taken:
                del left[site]

    for pattern, why in protected.items():
        take(pattern, [baseline], f"protected: {why}")
    for name, (scheme, why) in held.items():
        take(escape(name), [scheme], f"protected: {why}", least=scheme)
    careful = [scheme for scheme in schemes if stored_bits(scheme.activation) >= _WIDE_BITS]
    for match, place in _edges(tuple(left)):
        take(match, careful, place)
    ordinary = [scheme for scheme in schemes if stored_bits(scheme.activation) <= _WIDE_BITS]
    products = "products of two activations: they have no weights, so of schemes that differ in those one is enough"
    take("*", _unlike(ordinary, baseline), products, "matmul")
    blocks = _blocks(tuple(left))
    for match, block in blocks.items():
        for op in _ops(block, ordinary, refuses):
            take(match, ordinary, "", op)
    take("*", ordinary, "all else")
    return _agreed(proposals, schemes)


def _agreed(proposals: Sequence[Proposal], schemes: Sequence[Scheme]) -> tuple[Proposal, ...]:
    """Let rules that share a group of sites allow the same; what the card refuses a site is still no choice for it."""
    allowed = [set(rule.allow) for rule in proposals]
    groups = [{site.group for site in rule.sites} - {None} for rule in proposals]
    for _ in proposals:  # what is passed on reaches the farthest rule in as many rounds as there are rules
        for one, two in itertools.combinations(range(len(proposals)), 2):
            if groups[one] & groups[two]:
                allowed[one] = allowed[two] = allowed[one] | allowed[two]
    return tuple(
        rule if set(rule.allow) == allow else replace(rule, allow=tuple(s for s in schemes if s in allow))
        for rule, allow in zip(proposals, allowed, strict=True)
    )


def _possible(
    sites: Sequence[Site], wanted: Sequence[Scheme], baseline: Scheme, refuses: Refuses
) -> tuple[tuple[Scheme, ...], tuple[str, ...]]:
    """The schemes that some of the sites can run, and what is refused, told."""
    allow, told = [], []
    for scheme in wanted:
        reasons = [reason for site in sites if (reason := refuses(site, scheme)) is not None]
        if len(reasons) < len(sites):
            allow.append(scheme)
        if reasons:
            where = "" if len(reasons) == len(sites) else f" at {len(reasons)} of {len(sites)} sites"
            others = len(set(reasons)) - 1
            more = f" (and {others} more like it)" if others else ""
            told.append(f"{scheme.name} is refused{where}: {reasons[0]}{more}")
    if baseline not in allow:
        allow.insert(0, baseline)
    return tuple(allow), tuple(told)


def _edges(sites: Sequence[Site]) -> Iterator[tuple[str, str]]:
    """Patterns of the first and the last layer with weights, with its parts and what must agree with it."""
    layers = [site for site in sites if site.weight_shape]
    if not layers:
        return
    for edge, place in {layers[0]: "the first layer", layers[-1]: "the last layer"}.items():
        parts = [site for site in sites if re.match(rf"{re.escape(edge.name)}[.#]", site.name)]
        matched = [site for site in sites if site.name.startswith(edge.name)]
        whole = bool(parts) and set(matched) == {edge, *parts}
        yield escape(edge.name) + "*" * whole, f"{place}: what it loses goes through all others, or straight to the ear"
        for site in sites:
            if site not in (edge, *parts * whole) and site.group is not None and site.group == edge.group:
                yield escape(site.name), f"computed together with {edge.name}"


def _unlike(schemes: Sequence[Scheme], baseline: Scheme) -> list[Scheme]:
    """Of schemes that compute a product of activations alike, the baseline or the first."""
    kept: dict[tuple[object, ...], Scheme] = {}
    for scheme in (baseline, *schemes):
        if scheme in schemes:
            key = (scheme.activation, scheme.activation_scale, scheme.accumulate, scheme.fidelity)
            kept.setdefault((*key, scheme.packer_l1_acc, scheme.in0_block_w), scheme)
    return [scheme for scheme in schemes if scheme in kept.values()]


def _blocks(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Sites by module, as pattern -> sites: a module with most of the MACs by its parts; of many, the large ones."""
    total = sum(site.macs_per_second for site in sites)
    blocks = _parted(sites, 1)
    depth = dict.fromkeys(blocks, 1)
    while True:
        large = [m for m, block in blocks.items() if sum(site.macs_per_second for site in block) > _LARGE * total]
        parts = {m: _parted(blocks[m], depth[m] + 1) for m in large}
        parts = {
            m: found for m, found in parts.items() if len(found) <= _MOST_PARTS and any(p[-2:] == ".*" for p in found)
        }
        if not parts:
            break
        for match, found in parts.items():
            depth |= dict.fromkeys(found, depth[match] + 1)
        blocks = {m: block for match, kept in blocks.items() for m, block in parts.get(match, {match: kept}).items()}
    if len(blocks) <= _MOST_BLOCKS:
        return blocks
    by_size = sorted(blocks, key=lambda match: -sum(site.macs_per_second for site in blocks[match]))
    return {match: block for match, block in blocks.items() if match in by_size[: _MOST_BLOCKS - 1]}


def _parted(sites: Sequence[Site], depth: int) -> dict[str, list[Site]]:
    parts: dict[str, list[Site]] = {}
    for site in sites:
        path = site.name.split(".")
        match = escape(site.name) if len(path) <= depth else escape(".".join(path[:depth])) + ".*"
        parts.setdefault(match, []).append(site)
    return parts


def _ops(sites: Sequence[Site], schemes: Sequence[Scheme], refuses: Refuses) -> list[Op | None]:
    """The operations to tell apart, because the card refuses all sites of one what it lets others do; or None."""
    ops: dict[Op, list[Site]] = {}
    for site in sites:
        ops.setdefault(site.op, []).append(site)
    never = {
        op: frozenset(scheme.name for scheme in schemes if all(refuses(site, scheme) for site in members))
        for op, members in ops.items()
    }
    return [None] if len(set(never.values())) == 1 else list(ops)
