"""Comparison: two studies or more side by side, what they were asked, what came of it, and where they part."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from precision.candidate import numbers
from precision.differences import header_differences, recipe_differences
from precision_search.overview import Overview
from precision_search.report.allowance import used
from precision_search.report.figures import number

DIGESTS = ("recipe_digest", "weights", "clips", "code")
"""Of a study's header: what it was made of."""
COMMON = 0.5
"""Share of all sites that two models must have in common to be told apart site by site."""


def comparison(studies: Sequence[Overview]) -> dict[str, Any]:
    """What differs between studies, all of them set against the first.

    Keys: `studies` (name -> what a list of studies tells; its digests, worst gate and ranges of prices), `cautions`
    (what is not to be read out of the rest), `headers` (of each other study what differs from the first), `recipes`
    (likewise, by key), `gates` (gate -> study -> value), `sites` (one for each at which two policies differ), `alike`
    (whether the models have enough sites in common for that).
    """
    names, first = labels(studies), studies[0]
    return {
        "studies": {name: _told(study) for name, study in zip(names, studies, strict=True)},
        "cautions": _cautions(names, studies),
        "headers": {
            name: header_differences(first.study.header, other.study.header, None, None)
            for name, other in zip(names[1:], studies[1:], strict=True)
        },
        "recipes": {name: _recipes(first, other) for name, other in zip(names[1:], studies[1:], strict=True)},
        "gates": _gates(names, studies),
        "sites": _sites(names, studies),
        "alike": _alike(studies),
    }


def labels(studies: Sequence[Overview]) -> list[str]:
    """A short name for each: its folder's, or all of its path where two folders are called the same."""
    names = [study.folder.resolve().name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.folder) for study in studies]


def _told(study: Overview) -> dict[str, Any]:
    """A study's own column."""
    cost = study.summary.get("cost") or {}
    header = study.study.header
    ratio = {"low": cost.get("low"), "middle": cost.get("ratio"), "high": cost.get("high")}
    return study.to_dict() | {
        "arithmetic": study.summary.get("arithmetic"),
        "worst_gate": _worst_gate(study),
        "ratio_range": None if ratio["middle"] is None else ratio,
        "hour_range": cost.get("ratio_per_hour"),
        "usd_range": (cost.get("candidate") or {}).get("usd_per_stream"),
        "evidence": (cost.get("evidence") or {}).get("candidate"),
        "fleet": cost.get("fleet"),
        "digests": {key: header[key] for key in DIGESTS if key in header},
    }


def _worst_gate(study: Overview) -> dict[str, Any] | None:
    """The gate with the least room, as a share of what it allows; one without a share only where it is broken."""
    rows = []
    for gate in study.gates:
        margin, threshold = number(gate["margin"]), number(gate["threshold"])
        # As the report has it: of an estoi of at least 0.995, 0.9995 leaves nine tenths, and not half a percent.
        taken = used(gate["metric"], gate["side"], threshold, number(gate["value"]))
        share = margin / abs(threshold) if margin is not None and threshold else None
        share = share if taken is None else 1 - taken
        if share is None or math.isnan(share) or share == 0:
            share = math.inf if gate["kept"] else -math.inf
        rows.append((share, gate))
    if not rows:
        return None
    share, worst = min(rows, key=lambda row: row[0])
    told = {"metric": worst["metric"], "over": worst["over"], "kept": worst["kept"]}
    return told | {"margin_share": share if math.isfinite(share) else None}


def _cautions(names: Sequence[str], studies: Sequence[Overview]) -> list[str]:
    """What is not to be read out of a comparison, a sentence each."""
    told = []
    for name, study in zip(names, studies, strict=True):
        if study.results is None:
            heard = len(study.study.candidates())
            told.append(
                f"{name} has not ended: its column is of the cheapest policy kept among the {heard} heard so far, on"
                " the search's clips, and it has no price; run --resume ends it"
            )
    models = [str(study.study.header.get("model")) for study in studies]
    if len(set(models)) > 1:
        pairs = ", ".join(f"{name} of {model}" for name, model in zip(names, models, strict=True))
        told.append(f"unlike models ({pairs}): gates are of other sound, and a price is of other work")
    clips = [study.study.header.get("clips") for study in studies]
    if len(set(models)) == 1 and len(set(clips)) > 1:
        told.append("they were heard on other clips: gates and damage differ by that, too")
    against = {str(study.summary["against"]) for study in studies if study.summary.get("against")}
    if len(against) > 1:
        told.append(f"their ratios are to unlike baselines: {', '.join(sorted(against))}")
    if not _alike(studies):
        told.append("their sites are mostly not the same, so policies are not set side by side")
    return told


def _alike(studies: Sequence[Overview]) -> bool:
    policies = [set(study.policy) for study in studies if study.policy]
    return len(policies) < 2 or len(set.intersection(*policies)) >= COMMON * len(set.union(*policies))


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
            entry["values"][name] = {part: gate[part] for part in ("value", "threshold", "side", "margin", "kept")}
    return list(found.values())


def _sites(names: Sequence[str], studies: Sequence[Overview]) -> list[dict[str, Any]]:
    if not _alike(studies):
        return []
    policies = [study.policy for study in studies]
    macs = _macs(studies)
    whole = math.fsum(macs.values()) or math.nan
    rows = []
    for site in dict.fromkeys(site for policy in policies for site in policy):
        schemes = [policy.get(site) for policy in policies]
        # A study that has kept no policy yet differs in none.
        if len({scheme for policy, scheme in zip(policies, schemes, strict=True) if policy}) == 1:
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
