"""The policy: every site with its scheme, its share of the work, and why it was left high where it was."""

from collections.abc import Mapping
from typing import Any

from precision_search.report.figures import amount, number, percent, significant, told_apart
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    element,
    folded,
    joined,
    listed,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Results, SiteRow, objects
from precision_search.table import target_sentences

_SHOWN = 2
"""Reasons of a site that are shown at once; of more the first is, the mildest, and the others are folded."""


def policy(results: Results) -> Html:
    """The section of the policy."""
    title = "The policy"
    text = folded("policy.yaml as written", element("pre", {"class": "scroll", "tabindex": "0"}, results.policy_text))
    if not results.sites:
        return section("policy", title, note("damage.json lists no sites."), text)
    asked = [paragraph(f"{said[0].upper()}{said[1:]}.") for said in target_sentences(results.summary)]
    return section("policy", title, *asked, *_definitions(results), _by_scheme(results), _by_site(results), text)


def _by_scheme(results: Results) -> Html:
    weights = sum(site.weight_elements for site in results.sites) or 1.0
    rows = []
    for scheme, share in results.mac_shares(results.chosen).items():
        under = [site for site in results.sites if results.chosen.get(site.name, "no scheme") == scheme]
        held = sum(site.weight_elements for site in under) / weights
        cells = (number_cell(f"{len(under):,}"), number_cell(percent(share)), number_cell(percent(held)))
        rows.append(row(row_head(scheme), *cells))
    return table("Shares of the schemes", ("Scheme", "Sites", "MACs", "Weights"), rows)


def _definitions(results: Results) -> tuple[Html, ...]:
    schemes = results.summary.get("schemes")
    if not isinstance(schemes, dict) or not schemes:
        return (note("What each scheme stands for is in policy.yaml, at the end of this section."),)
    keys = list(dict.fromkeys(key for entry in schemes.values() if isinstance(entry, dict) for key in entry))
    shown = [key for key in keys if key != "name"]
    rows = (
        row(row_head(str(name)), *(cell(_told(entry.get(key))) for key in shown))
        for name, entry in schemes.items()
        if isinstance(entry, dict)
    )
    return (table("What the schemes stand for", ("Scheme", *(key.replace("_", " ") for key in shown)), rows),)


def _told(value: object) -> str:
    if value is None or value == []:
        return "\u2013"
    return ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _by_site(results: Results) -> Html:
    why, proved = _reasons(results.summary), results.summary.get("one_optimal") is True
    weights = sum(site.weight_elements for site in results.sites) or 1.0
    rows = (
        row(
            row_head(breakable(site.name)),
            cell(site.op),
            cell(results.chosen.get(site.name, "no scheme")),
            number_cell(percent(site.macs_per_second / (results.macs_per_second or 1.0))),
            number_cell(percent(site.weight_elements / weights)),
            cell(why.get(site.name) or _no_choice(site, proved), {"class": "prose"}),
        )
        for site in results.sites
    )
    caption = f"{amount(len(results.sites), 'site')} in the model's order"
    heads = ("Site", "Operation", "Scheme", "MACs", "Weights", "Why not lower")
    return table(caption, heads, rows, "sites")


def _reasons(summary: Mapping[str, Any]) -> dict[str, Html | str]:
    """Site -> why it is protected or was left high, as the summary has it."""
    protected, left = summary.get("protected"), summary.get("left_high")
    reasons: dict[str, Html | str] = {}
    if isinstance(protected, dict):
        reasons = {str(site): f"protected: {why}" for site, why in protected.items()}
    for entry in objects(left):
        reasons.setdefault(str(entry.get("site")), _why(entry))
    return reasons


def _why(left: Mapping[str, Any]) -> Html | str:
    """Of a site left high: each cheaper scheme in a line, with the gate that it breaks; as written where no more is."""
    refuted = objects(left.get("refuted"))
    if not refuted:
        return str(left.get("why", "left high, no reason recorded"))
    shown = refuted if len(refuted) <= _SHOWN else refuted[:1]
    parts = [listed(_refuted(entry) for entry in shown)]
    if len(shown) < len(refuted):
        rest = refuted[len(shown) :]
        parts.append(folded(f"and {amount(len(rest), 'cheaper scheme')} more", listed(map(_refuted, rest))))
    sites = refuted[0].get("sites")
    others = [str(site) for site in sites if site != left.get("site")] if isinstance(sites, list) else []
    if others:
        parts.append(paragraph(f"Computes as one with {', '.join(others)}."))
    return joined(parts)


def _refuted(entry: Mapping[str, Any]) -> str:
    value, threshold = number(entry.get("value")), number(entry.get("threshold"))
    side = "at least" if entry.get("side") == "min" else "at most"
    heard = "the search's clips" if entry.get("split") == "search" else "clips held back"
    return (
        f"{entry.get('scheme')}: {entry.get('metric')} ({entry.get('over')}) would be {told_apart(value, threshold)},"
        f" allowed {side} {significant(threshold, 6)} ({heard}, {entry.get('arithmetic')})"
    )


def _no_choice(site: SiteRow, proved: bool) -> str:
    open_to = [option.scheme for option in site.options if option.refused is None]
    if len(open_to) == 1:
        return "no other scheme was open to it"
    return "nothing cheaper is open to it here, typecasts and limits counted" if proved else ""
