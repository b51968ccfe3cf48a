"""Provenance: what made the study, so that it can be made again, and where each section has its numbers from."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from precision_search.report.arithmetic import judged_in
from precision_search.report.figures import MISSING, count, duration, number, percent
from precision_search.report.markup import (
    Html,
    cell,
    element,
    folded,
    note,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Results, objects

PLAIN = ("recipe", "model", "device", "backend", "recipe_digest", "policy_digest", "seed")
MORE = ("arithmetic", "search_arithmetic", "against", "stopped", "one_optimal", "repairs", "exact_repairs")
SOURCES = {
    "Gates": "the final candidate on the clips held back; summary.json",
    "Damage": "renders with one site changed, beside the reference; damage.json",
    "Predicted against measured, and the front": "every evaluation, in the order tried; study.jsonl",
    "Cost": "the cost model of this code on the cards' figures, each with its source under Cost; summary.json",
    "What breaks next": "single lowerings that the search tried; summary.json and study.jsonl",
}
"""Section -> where its numbers come from."""


def provenance(results: Results) -> Html:
    """The section of the provenance."""
    summary = results.summary
    parts = [table("The study", ("What", "Value"), _study(summary))]
    parts += _versions(summary)
    header = results.study.header
    if header:
        parts.append(table("Header of the log", ("What", "Value"), (_row(key, _told(header[key])) for key in header)))
    parts.append(element("h3", {}, "Where the numbers come from"))
    parts.append(paragraph(judged_in(summary)))
    parts.append(table("Sections and their sources", ("Section", "From"), _sources(results)))
    recipe = results.study.recipe
    if recipe is None:
        parts.append(note("Neither the log nor the folder holds the recipe."))
    else:
        text = element("pre", {"class": "scroll", "tabindex": "0"}, recipe)
        parts += [folded("The recipe as it was run", text), _again(summary)]
    return section("provenance", "Provenance", *parts)


def _study(summary: Mapping[str, Any]) -> Iterator[Html]:
    for key in PLAIN:
        yield _row(key, _told(summary.get(key)))
    for key in MORE:
        if key in summary:
            yield _row(key, _told(summary[key]))
    for key in ("clips", "digests"):
        found = summary.get(key)
        for name, value in found.items() if isinstance(found, dict) else ():
            yield _row(f"{name} clips" if key == "clips" else f"digest of {name}", _told(value))
    if summary.get("adaptation") is not None:
        yield _row("adaptation", _told(summary["adaptation"]))
    for key in ("evaluations", "sites"):
        yield _row(key, count(summary.get(key)))
    yield _row("time of the search", duration(number(summary.get("seconds"))))
    yield _row("share of all MACs that the sites cover", percent(number(summary.get("covered_mac_share"))))
    for part in objects(summary.get("outside")):  # studies of older code do not say
        yield _row(f"outside of all sites: {part.get('module', '?')}", percent(number(part.get("mac_share"))))


def _sources(results: Results) -> list[Html]:
    heard = {"Listening and the blind test": "the renders themselves; samples/"} if results.makes_sound else {}
    return [_row(*found) for found in (SOURCES | heard).items()]


def _versions(summary: Mapping[str, Any]) -> list[Html]:
    versions = summary.get("versions")
    if not isinstance(versions, dict) or not versions:
        return [note("No versions are recorded.")]
    return [table("Versions", ("Of", "Version"), (_row(str(name), _told(found)) for name, found in versions.items()))]


def _again(summary: Mapping[str, Any]) -> Html:
    """How to make it again, and how to tell whether the same came out."""
    digest = _told(summary.get("policy_digest"))
    return paragraph(
        "To make the study again, save that text as a file and run ",
        element("code", {}, "precision-search run FILE"),
        f" with these versions. Whether the same policy came out, its digest tells: {digest}.",
    )


def _row(name: str, value: str) -> Html:
    return row(row_head(name.replace("_", " ")), cell(value, {"class": "prose"}))


def _told(value: object) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
