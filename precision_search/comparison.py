"""Comparison: two studies or more side by side, what they were asked, what came of it, and where they part."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from precision.candidate import numbers
from precision.differences import header_differences, recipe_differences
from precision_search.overview import SHARES, Overview
from precision_search.table import number_text

ROWS = ("state", "device", "seconds_cost", "usd_per_stream", "ratio", *SHARES, "heard", "seconds")
_WIDTH = 14
_SHOWN = 60
"""Sites at most that are told in a terminal."""


def comparison(studies: Sequence[Overview]) -> dict[str, Any]:
    """What differs between studies, all of them set against the first.

    Keys: `studies` (name -> what a list of studies tells), `headers` (of each other study what differs from the first),
    `recipes` (likewise, by key), `gates` (gate -> study -> value), `sites` (one for each at which two policies differ).
    """
    names, first = labels(studies), studies[0]
    return {
        "studies": {name: study.to_dict() for name, study in zip(names, studies, strict=True)},
        "headers": {
            name: header_differences(first.study.header, other.study.header, None, None)
            for name, other in zip(names[1:], studies[1:], strict=True)
        },
        "recipes": {name: _recipes(first, other) for name, other in zip(names[1:], studies[1:], strict=True)},
        "gates": _gates(names, studies),
        "sites": _sites(names, studies),
    }


def labels(studies: Sequence[Overview]) -> list[str]:
    """A short name for each: its folder's, or all of its path where two folders are called the same."""
    names = [study.folder.resolve().name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.folder) for study in studies]


def _recipes(first: Overview, other: Overview) -> list[str] | None:
    """None where the recipe of one is not known."""
    if first.study.recipe is None or other.study.recipe is None:
        return None
    try:
        return recipe_differences(first.study.recipe, other.study.recipe)
    except yaml.YAMLError:
        return None


def _gates(names: Sequence[str], studies: Sequence[Overview]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, study in zip(names, studies, strict=True):
        for gate in study.gates:
            key = gate["metric"], gate["over"]
            entry = found.setdefault(key, {"metric": key[0], "over": key[1], "values": {}})
            entry["values"][name] = {part: gate[part] for part in ("value", "threshold", "side", "kept")}
    return list(found.values())


def _sites(names: Sequence[str], studies: Sequence[Overview]) -> list[dict[str, Any]]:
    policies = [study.policy for study in studies]
    macs = _macs(studies)
    whole = math.fsum(macs.values()) or math.nan
    rows = []
    for site in dict.fromkeys(site for policy in policies for site in policy):
        schemes = [policy.get(site) for policy in policies]
        if len(set(schemes)) == 1:
            continue
        damages = {
            name: numbers(study.damage(site, scheme))
            for name, study, scheme in zip(names, studies, schemes, strict=True)
            if scheme is not None
        }
        share = macs[site] / whole if site in macs else None
        told = dict(zip(names, schemes, strict=True))
        rows.append({"site": site, "mac_share": share, "schemes": told, "damage": damages})
    return rows


def _macs(studies: Sequence[Overview]) -> Mapping[str, float]:
    """MACs a second of audio of every site, by the first study that has ended and knows them."""
    tables = [study.results.sites for study in studies if study.results is not None]
    return {row.name: row.macs_per_second for rows in tables[:1] for row in rows}


def comparison_text(found: Mapping[str, Any]) -> str:
    """A comparison as a person reads it."""
    names = list(found["studies"])
    lines = []
    for name in names[1:]:
        differing = found["headers"][name]
        lines.append(f"{names[0]} -> {name}:{'' if differing else ' nothing differs in what they were asked'}")
        lines += [f"  {line}" for line in differing]
        lines += [f"  recipe: {line}" for line in found["recipes"][name] or []]
        if found["recipes"][name] is None:
            lines.append("  recipe: not known of both; studies of older code have it from their end on")
    width = max(_WIDTH, *map(len, names))
    lines += ["", f"{'':34}" + "".join(f" {name:>{width}}" for name in names)]
    for row in ROWS:
        lines.append(f"{row:34}" + "".join(f" {_cell(found['studies'][name][row]):>{width}}" for name in names))
    for gate in found["gates"]:
        values = [gate["values"].get(name) for name in names]
        cells = ["-" if v is None else number_text(v["value"]) + ("" if v["kept"] else "!") for v in values]
        lines.append(f"{gate['metric'] + ' ' + gate['over']:34}" + "".join(f" {cell:>{width}}" for cell in cells))
    if any(not value["kept"] for gate in found["gates"] for value in gate["values"].values()):
        lines.append("!: the gate is broken")
    return "\n".join([*lines, "", *_site_lines(found["sites"], names)])


def _site_lines(sites: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    if not sites:
        return ["the policies agree at every site"]
    shares = [site["mac_share"] for site in sites if site["mac_share"] is not None]
    total = f", {math.fsum(shares):.1%} of the sites' MACs" if shares else ""
    metric = next((metric for site in sites for found in site["damage"].values() for metric in found), None)
    lines = [f"the policies differ at {len(sites)} sites{total}" + ("" if metric is None else f"; damage as {metric}")]
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


def _cell(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else "-" if value is None else str(value)
