"""Breaks: what would break next if one site were lowered, as the study's own log has it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from precision_search.report.allowance import used
from precision_search.report.figures import amount, number, percent, significant, told_apart
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    folded,
    joined,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Option, Results, SiteRow, objects

SHOWN = 20
"""Rows at once; the others are folded."""
HEADS = ("Site", "Change", "What breaks", "Beyond what is allowed", "Would save")


@dataclass(frozen=True, slots=True)
class Broken:
    """A gate that a lowering broke, as it was heard."""

    metric: str
    over: str
    side: str
    threshold: float | None
    value: float | None
    heard: str

    @property
    def share(self) -> float | None:
        """Of the gate's allowance that was used; above 1."""
        return used(self.metric, self.side, self.threshold, self.value)

    @property
    def sentence(self) -> str:
        """The gate, its value, what is allowed, and where it was heard."""
        sign = "\u2265" if self.side == "min" else "\u2264"
        value, allowed = told_apart(self.value, self.threshold), significant(self.threshold, 6)
        return f"{self.metric} ({self.over}): {value}, must be {sign} {allowed}; on {self.heard}"


@dataclass(frozen=True, slots=True)
class Step:
    """A cheaper scheme of a site, or of sites that compute as one."""

    sites: tuple[str, ...]
    has: str
    scheme: str
    saves: float
    """Modelled seconds of the card per second of audio, typecasts not counted."""
    broken: Broken | None
    told: str
    """What is known where no gate is known to break."""


def breaks(results: Results) -> Html:
    """The section of what breaks next."""
    title = "What would break next if lowered"
    if not results.sites:
        return section("breaks", title, note("damage.json lists no sites."))
    steps, protected = list(_steps(results)), _protected(results.summary)
    most = {site: max(step.saves for step in steps if step.sites[0] == site) for site in {s.sites[0] for s in steps}}
    steps.sort(key=lambda step: (-most[step.sites[0]], step.sites[0], step.saves))
    parts = [
        paragraph(
            "Each site that has a cheaper scheme open to it, the most valuable first: what the next cheaper one would "
            "save, and the gate that broke when that site alone was lowered beside the rest of the policy; then the "
            "cheaper ones that were heard as well. Savings are modelled time of the card a second of audio, and its "
            "share of the policy's; typecasts are not counted."
        )
    ]
    whole = _whole(results)
    if steps:
        caption = "Cheaper schemes of each site, and what they break"
        parts.append(table(caption, HEADS, [_row(step, whole) for step in steps[:SHOWN]], "breaks"))
    if len(steps) > SHOWN:
        rest = table("The sites of which less is saved", HEADS, [_row(step, whole) for step in steps[SHOWN:]], "breaks")
        parts.append(folded(f"and {amount(len(steps) - SHOWN, 'change')} more", rest))
    lowest = len(results.sites) - len(protected) - len({site for step in steps for site in step.sites})
    if not steps and len(protected) < len(results.sites):
        parts.append(note("No site has a cheaper scheme open to it: nothing can be lowered with the recipe's schemes."))
    elif lowest > 0:
        parts.append(paragraph(f"{amount(lowest, 'site')} more already compute in the cheapest scheme open to them."))
    for why, sites in _by_reason(protected).items():
        parts.append(paragraph(f"{amount(sites, 'site')} protected and not tried: {why}."))
    if results.summary.get("one_optimal") is not True:
        parts.append(note("The search did not try every single lowering: it was not asked to, or stopped before."))
    return section("breaks", title, *parts)


def _row(step: Step, whole: float) -> Html:
    first, others = step.sites[0], step.sites[1:]
    name: list[Html | str] = [breakable(first)]
    if others:
        name.append(f" and {amount(len(others), 'other')} that compute as one with it")
    share = step.broken.share if step.broken is not None else None
    beyond = "\u2013" if share is None else "more than all of it" if math.isinf(share) else percent(share - 1.0)
    saved = f" ({percent(step.saves / whole)})" if whole else ""
    return row(
        row_head(joined(name)),
        cell(f"{step.has} \u2192 {step.scheme}"),
        cell(step.told if step.broken is None else step.broken.sentence, {"class": "prose"}),
        number_cell(beyond),
        number_cell(f"{significant(1e6 * step.saves)} \u00b5s/s{saved}"),
    )


def _whole(results: Results) -> float:
    if results.final is not None and math.isfinite(results.final.seconds_cost):
        return results.final.seconds_cost
    taken = (site.option(results.chosen.get(site.name, "")) for site in results.sites)
    return math.fsum(option.seconds or 0.0 for option in taken if option is not None)


def _steps(results: Results) -> Iterator[Step]:
    """Of every site, or of sites that compute as one: the next cheaper scheme, and every other that was heard."""
    refuted, protected = _refuted(results.summary), _protected(results.summary)
    named, done = {site.name: site for site in results.sites}, set[str]()
    for site in results.sites:
        cheaper = _cheaper(results, site)
        if not cheaper or site.name in protected or site.name in done:
            continue
        members = (site.name,)
        for number_, option in enumerate(cheaper):
            entry = refuted.get((site.name, option.scheme))
            if entry is None and number_:
                continue
            others = (name for name in (entry or {}).get("sites", ()) if name in named and name != site.name)
            members = (site.name, *others)
            done.update(members)
            saves = math.fsum(_saving(results, named[name], option.scheme) for name in members)
            has = results.chosen.get(site.name, "no scheme")
            told = _of_entry(entry) if entry is not None else _told_by_log(results, members, option.scheme)
            broken = told if isinstance(told, Broken) else None
            yield Step(members, has, option.scheme, saves, broken, "" if isinstance(told, Broken) else told)


def _cheaper(results: Results, site: SiteRow) -> list[Option]:
    """The schemes open to a site that cost less than its own, the dearest first."""
    own = site.option(results.chosen.get(site.name, ""))
    if own is None or own.seconds is None:
        return []
    cheaper = [
        option
        for option in site.options
        if option.refused is None and option.seconds is not None and option.seconds < own.seconds
    ]
    return sorted(cheaper, key=lambda option: -(option.seconds or 0.0))


def _saving(results: Results, site: SiteRow, scheme: str) -> float:
    own, other = site.option(results.chosen.get(site.name, "")), site.option(scheme)
    if own is None or other is None or own.seconds is None or other.seconds is None:
        return 0.0
    return own.seconds - other.seconds


def _told_by_log(results: Results, sites: tuple[str, ...], scheme: str) -> "Broken | str":
    """What the log says of the policy with these sites alone lowered."""
    if results.final is None:
        return "not tried"
    lowered = dict(results.final.policy) | dict.fromkeys(sites, scheme)
    heard = [candidate for candidate in results.study.candidates() if dict(candidate.policy) == lowered]
    found = [
        Broken(gate.metric, gate.over, "max" if gate.min is None else "min", gate.threshold, verdict.value, where)
        for candidate in heard
        for where in (_where(candidate.split, candidate.arithmetic),)
        for verdict in candidate.gates
        for gate in (verdict.gate,)
        if not verdict.kept
    ]
    if found:
        return max(found, key=lambda broken: broken.share or 0.0)
    if not heard:
        return "not tried"
    return "nothing: it kept every gate, and costs more with the typecasts that it needs or was out of the limits"


def _of_entry(entry: Mapping[str, Any]) -> Broken:
    value, threshold = number(entry.get("value")), number(entry.get("threshold"))
    over, side = str(entry.get("over", "mean")), str(entry.get("side", "max"))
    where = _where(str(entry.get("split")), str(entry.get("arithmetic") or ""))
    return Broken(str(entry.get("metric")), over, side, threshold, value, where)


def _where(split: str, arithmetic: str | None) -> str:
    clips = "the search's clips" if split == "search" else "clips held back"
    return f"{clips}, {arithmetic}" if arithmetic else clips


def _refuted(summary: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(site, scheme) -> what was heard of that lowering; empty for older studies."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for entry in objects(summary.get("left_high")):
        for told in objects(entry.get("refuted")):
            found[str(entry.get("site")), str(told.get("scheme"))] = told
    return found


def _protected(summary: Mapping[str, Any]) -> dict[str, str]:
    found = summary.get("protected")
    return {str(site): str(why) for site, why in found.items()} if isinstance(found, dict) else {}


def _by_reason(protected: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for why in protected.values():
        counts[why] = counts.get(why, 0) + 1
    return counts
