"""Comparison as text: the rows of studies side by side, for a terminal and for a page."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from precision_search.comparison import DIGESTS
from precision_search.report.figures import percent, significant, usd
from precision_search.table import number_text

_WIDTH = 14
_SHOWN = 60
"""Sites at most that are told in a terminal."""


def comparison_rows(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The studies' columns as people read them: the head of each row, and a text a study."""
    columns = list(found["studies"].values())
    heads: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("verdict", lambda one: str(one["state"])),
        ("recipe", lambda one: _text(one["recipe"])),
        ("model", lambda one: _text(one["model"])),
        ("card", lambda one: _text(one["device"])),
        ("judged in", lambda one: _text(one["arithmetic"])),
        ("least room", lambda one: _gate_text(one["worst_gate"])),
        ("LoFi share of MACs", lambda one: _share(one["lofi_mac_share"])),
        ("bfp8_b share of weights", lambda one: _share(one["bfp8_weight_share"])),
        ("FP8 share of MACs", lambda one: _share(one["fp8_mac_share"])),
        ("us a second, at cost.streams", lambda one: _scaled(one["seconds_cost"], 1e6)),
        ("USD a stream, card bought", lambda one: _span(one["usd_range"], one["usd_per_stream"], usd)),
        ("  of the baseline's", lambda one: _span(one["ratio_range"], None, significant)),
        ("an hour, of the baseline's", lambda one: _span(one["hour_range"], None, significant)),
        ("baseline", lambda one: _text(one["against"])),
        ("rests on", lambda one: _evidence(one["evidence"])),
        ("fleet", lambda one: _fleet(one["fleet"])),
        ("policies heard", lambda one: str(one["heard"])),
        ("seconds of search", lambda one: number_text(one["seconds"])),
        ("policy", lambda one: _text(one["policy"])),
    ]
    rows = [(head, [told(one) for one in columns]) for head, told in heads]
    return rows + [(key.replace("_", " "), [_text(one["digests"].get(key)) for one in columns]) for key in DIGESTS]


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _scaled(value: float | None, factor: float) -> str:
    return "-" if value is None else number_text(factor * value)


def _span(cases: Mapping[str, float | None] | None, middle: float | None, form: Any) -> str:
    """A figure and its ends; the middle alone where no ends are known."""
    if not cases or cases.get("middle") is None:
        return "-" if middle is None else form(middle)
    low, high = cases.get("low"), cases.get("high")
    told = str(form(cases["middle"]))
    return told if low is None or high is None or low == high else f"{told} ({form(low)} to {form(high)})"


def _gate_text(worst: Mapping[str, Any] | None) -> str:
    if worst is None:
        return "-"
    named = f"{worst['metric']} ({worst['over']})"
    share = worst["margin_share"]
    if share is None:
        return named + (" kept" if worst["kept"] else " BROKEN")
    return f"{named} {percent(abs(share))} {'inside' if share > 0 else 'BEYOND'}"


def _evidence(shares: Mapping[str, float] | None) -> str:
    return ", ".join(f"{percent(share)} {kind}" for kind, share in (shares or {}).items() if share) or "-"


def _fleet(fleet: Mapping[str, Any] | None) -> str:
    if not fleet or not fleet.get("candidate"):
        return "-"
    ours = fleet["candidate"]
    cards = _span(ours.get("cards"), None, significant)
    noun = "card" if cards == "1" else "cards"
    return f"{cards} {noun} for {fleet.get('streams')} streams, {_span(ours.get('usd'), None, usd)}"


def comparison_text(found: Mapping[str, Any]) -> str:
    """A comparison as a person reads it."""
    names = list(found["studies"])
    lines = [f"caution: {sentence}" for sentence in found["cautions"]]
    lines += difference_lines(found)
    rows = comparison_rows(found)
    for gate in found["gates"]:
        values = [gate["values"].get(name) for name in names]
        cells = ["-" if v is None else number_text(v["value"]) + ("" if v["kept"] else "!") for v in values]
        rows.append((f"{gate['metric']} {gate['over']}", cells))
    widths = [max(_WIDTH, len(name), *(len(cells[place]) for _, cells in rows)) for place, name in enumerate(names)]
    for head, cells in [("", names), *rows]:
        told = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{head:34}{told}")
    if any(not value["kept"] for gate in found["gates"] for value in gate["values"].values()):
        lines.append("!: the gate is broken")
    return "\n".join([*lines, "", *_site_lines(found, names)])


def difference_lines(found: Mapping[str, Any]) -> list[str]:
    """What each other study was asked otherwise than the first, a line each."""
    names = list(found["studies"])
    lines = []
    for name in names[1:]:
        differing = found["headers"][name]
        lines.append(f"{names[0]} -> {name}:{'' if differing else ' nothing differs in what they were asked'}")
        lines += [f"  {line}" for line in differing]
        lines += [f"  recipe: {line}" for line in found["recipes"][name] or []]
        if found["recipes"][name] is None:
            lines.append("  recipe: not known of both; studies of older code have it from their end on")
    return [*lines, ""]


def sites_told(found: Mapping[str, Any]) -> tuple[str, str | None]:
    """In a line how far the policies differ, and the metric in which damage is told."""
    sites = found["sites"]
    if not sites:
        return "the policies agree at every site" if found["alike"] else "their sites are not set side by side", None
    shares = [site["mac_share"] for site in sites if site["mac_share"] is not None]
    total = f", {math.fsum(shares):.1%} of the sites' MACs" if shares else ""
    metric = next((metric for site in sites for damage in site["damage"].values() for metric in damage), None)
    told = f"the policies differ at {len(sites)} sites{total}" + ("" if metric is None else f"; damage as {metric}")
    return told, metric


def _site_lines(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    sites = found["sites"]
    told, metric = sites_told(found)
    if not sites:
        return [told]
    lines = [told]
    lines.append(f"  {'site':40} {'MACs':>7}" + "".join(f" {name:>26}" for name in names))
    for site in sites[:_SHOWN]:
        share = "-" if site["mac_share"] is None else f"{site['mac_share']:.2%}"
        cells = ""
        for name in names:
            damage = site["damage"].get(name, {}).get(metric)
            scheme = site["schemes"][name] or "no such site"
            cells += f" {scheme + ('' if damage is None else ' ' + number_text(damage)):>26}"
        lines.append(f"  {site['site']:40} {share:>7}{cells}")
    left = len(sites) - _SHOWN
    return lines if left <= 0 else [*lines, f"  and {left} more; --json has them all"]
