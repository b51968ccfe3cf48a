"""Results: a finished study's folder, read."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from precision.candidate import Candidate
from precision.study import LOG, Study, StudyError
from precision_search.report.figures import number

NEEDED = ("summary.json", "damage.json", LOG, "policy.yaml")
NEEDED_KEYS = ("recipe", "device", "verdict", "gates")


@dataclass(frozen=True, slots=True)
class Option:
    """One scheme at one site."""

    scheme: str
    refused: str | None
    """Why the target cannot run it, or None where it can."""
    damage: Mapping[str, float]
    settled: str | None = None
    """`harmless`: a gradient foretold at most so much; `hopeless`: about so much; None: it was measured."""
    seconds: float | None = None
    """Modelled seconds of the card per second of audio; None where refused, or not recorded."""


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site with what was found of it."""

    name: str
    op: str
    macs_per_second: float
    weight_elements: float
    options: tuple[Option, ...]

    def option(self, scheme: str) -> Option | None:
        """The option of a scheme; None where the site does not offer it."""
        return next((option for option in self.options if option.scheme == scheme), None)


@dataclass(frozen=True)
class Results:
    """What a study found."""

    folder: Path
    summary: Mapping[str, Any]
    metrics: tuple[str, ...]
    """The metrics in which damage was measured: those that add over sites."""
    sites: tuple[SiteRow, ...]
    chosen: Mapping[str, str]
    """Site -> scheme of the policy that was kept, or came nearest."""
    study: Study
    policy_text: str

    @property
    def makes_sound(self) -> bool:
        """Whether the model makes something to hear; older studies are of models that do."""
        return self.summary.get("sound") is not False

    @cached_property
    def front(self) -> Mapping[str, Any]:
        """The foretold front as front.json has it; empty where there is none, as in older studies."""
        path = self.folder / "front.json"
        return (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}

    @cached_property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that a site offers, in the recipe's order; in that of first appearance in older studies."""
        told = self.summary.get("schemes")
        offered = dict.fromkeys(option.scheme for site in self.sites for option in site.options)
        return tuple(dict.fromkeys([*(name for name in told or () if name in offered), *offered]))

    @cached_property
    def macs_per_second(self) -> float:
        """Of all sites."""
        return math.fsum(site.macs_per_second for site in self.sites)

    @cached_property
    def final(self) -> Candidate | None:
        """The candidate of the summary, on the clips held back and in its arithmetic where it was heard so."""
        digest, name = self.summary.get("policy_digest"), self.summary.get("arithmetic")
        found = [candidate for candidate in self.study.candidates() if candidate.digest == digest]
        return max(found, key=lambda heard: (heard.split == "held_back", heard.arithmetic == name), default=None)

    @cached_property
    def searched(self) -> tuple[Candidate, ...]:
        """Every candidate as heard in the arithmetic in which damage was measured."""
        summary = self.summary
        exact = summary.get("arithmetic") if summary.get("exact") is True else None
        return tuple(heard for heard in self.study.candidates() if exact is None or heard.arithmetic != exact)

    def mac_shares(self, policy: Mapping[str, str]) -> dict[str, float]:
        """Scheme -> share of the MACs that run under it, largest first."""
        shares = dict.fromkeys(self.schemes, 0.0)
        for site in self.sites:
            scheme = policy.get(site.name, "no scheme")
            shares[scheme] = shares.get(scheme, 0.0) + site.macs_per_second / (self.macs_per_second or 1.0)
        return dict(sorted(((name, share) for name, share in shares.items() if share), key=lambda entry: -entry[1]))


def objects(entries: object) -> list[Mapping[str, Any]]:
    """The objects of a list of a JSON file; none where it is no list."""
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def read_results(folder: Path) -> Results:
    """Read a study's folder.

    Raises:
        ValueError: it is no finished study: what is missing, or which file does not say what it must.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is no finished study: {', '.join(missing)} missing; run the search to its end (--resume goes on)"
        )
    summary = _object(folder / "summary.json")
    lacking = [key for key in NEEDED_KEYS if key not in summary]
    if lacking:
        raise ValueError(f"{folder / 'summary.json'} lacks {', '.join(lacking)}; run the search to its end")
    if not isinstance(summary["gates"], list) or not all(isinstance(gate, dict) for gate in summary["gates"]):
        raise ValueError(f"{folder / 'summary.json'}: gates must be a list of objects")
    damage = _object(folder / "damage.json")
    try:
        study = Study.read(folder)
        text = (folder / "policy.yaml").read_text(encoding="utf-8")
    except (StudyError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder} is no finished study: {error}") from error
    try:
        sites = tuple(_site(entry) for entry in damage["sites"])
        metrics = tuple(str(name) for name in damage["metrics"])
        chosen = {str(site): str(scheme) for site, scheme in damage.get("chosen", {}).items()}
    except KeyError as error:
        raise ValueError(f"{folder / 'damage.json'} lacks {error}, at the top or in a site") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'damage.json'} is not the table of a study: {error}") from error
    results = Results(folder, summary, metrics, sites, chosen, study, text)
    if not chosen and results.final is not None:
        results = Results(folder, summary, metrics, sites, results.final.policy, study, text)
    return results


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold an object, got {type(data).__name__}")
    return data


def _site(entry: Mapping[str, Any]) -> SiteRow:
    options = tuple(
        Option(
            str(option["scheme"]),
            None if option.get("refused") is None else str(option["refused"]),
            _numbers(option.get("damage") or {}),
            None if option.get("settled") is None else str(option["settled"]),
            number(option.get("seconds")),
        )
        for option in entry["options"]
    )
    macs, weights = number(entry.get("macs_per_second")), number(entry.get("weight_elements"))
    return SiteRow(str(entry["name"]), str(entry.get("op", "")), macs or 0.0, weights or 0.0, options)


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    found = {str(name): number(value) for name, value in values.items()}
    return {name: math.nan if value is None else value for name, value in found.items()}
