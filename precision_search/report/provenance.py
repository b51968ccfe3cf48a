"""Provenance: what made the study, so that it can be made again."""

import json
from collections.abc import Mapping
from typing import Any

from precision_search.report.figures import count, duration, number, percent
from precision_search.report.markup import Html, cell, note, row, row_head, section, table
from precision_search.report.results import Results

DURATIONS = ("seconds",)
SHARES = ("covered_mac_share",)
COUNTS = ("evaluations", "sites")
PLAIN = ("recipe", "model", "device", "backend", "recipe_digest", "policy_digest", "seed")
MORE = (
    "arithmetic",
    "search_arithmetic",
    "against",
    "stopped",
    "one_optimal",
    "repairs",
    "exact_repairs",
    "clips",
    "digests",
)


def provenance(results: Results) -> Html:
    """The section of the provenance."""
    summary = results.summary
    rows = [_row(key, _told(summary.get(key))) for key in PLAIN]
    rows += [_row(key, _told(summary[key])) for key in MORE if key in summary]
    if summary.get("adaptation") is not None:
        rows.append(_row("adaptation", _told(summary["adaptation"])))
    rows += [_row(key, count(summary.get(key))) for key in COUNTS]
    rows += [_row("time of the search", duration(number(summary.get(key)))) for key in DURATIONS]
    rows += [_row("share of all MACs that the sites cover", percent(number(summary.get(key)))) for key in SHARES]
    rows += [_row(f"outside of all sites: {part['module']}", percent(part["mac_share"])) for part in _outside(summary)]
    parts = [table("The study", ("What", "Value"), rows)]
    versions = summary.get("versions")
    if isinstance(versions, dict) and versions:
        named = (_row(str(name), _told(version)) for name, version in versions.items())
        parts.append(table("Versions", ("Of", "Version"), named))
    else:
        parts.append(note("No versions are recorded."))
    header = results.study.header
    if header:
        parts.append(table("Header of the log", ("What", "Value"), (_row(key, _told(header[key])) for key in header)))
    return section("provenance", "Provenance", *parts)


def _outside(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the model multiplies outside of the sites; studies of older code do not say."""
    return list(summary.get("outside") or ())


def _row(name: str, value: str) -> Html:
    return row(row_head(name.replace("_", " ")), cell(value, {"class": "prose"}))


def _told(value: object) -> str:
    if value is None:
        return "not recorded"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
