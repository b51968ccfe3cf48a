"""Refuted: for each site left high, which gate breaks where that site alone is lowered, and by how much."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backends.emulation.audition import excess
from precision.candidate import Candidate, Split, verdict_line
from precision.gates import Verdict
from precision.search.problem import Problem
from precision.search.prove import Proof
from precision.study import Study
from precision_search.jury import Jury


@dataclass(frozen=True, slots=True)
class Refuted:
    """A cheaper scheme of one site, or of a group of sites, that breaks a gate beside the rest of the policy."""

    sites: tuple[str, ...]
    scheme: str
    verdict: Verdict
    """Of the gates that broke, the one that is broken by most of its threshold."""
    split: Split
    arithmetic: str

    @property
    def sentence(self) -> str:
        """What a person is told."""
        gate = self.verdict.gate
        clips = "the search's clips" if self.split == "search" else "clips held back"
        return (
            f"{self.scheme} breaks {gate.metric} ({gate.over}): {self.verdict.value:.4g}, allowed {gate.threshold:g},"
            f" on {clips} in {self.arithmetic}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, one entry of `refuted` in a summary."""
        found = verdict_line(self.verdict)
        where = {"split": self.split, "arithmetic": self.arithmetic}
        return {"sites": list(self.sites), "scheme": self.scheme, **found, **where}


def refuted_of(problem: Problem, jury: Jury, study: Study, proof: Proof) -> Iterator[Refuted]:
    """Read from the study which gate each lowering of a proof broke, unit by unit.

    Only where the policy itself keeps every gate does a break speak against a lowering: one that was repaired on the
    clips held back may break on the others too.
    """
    heard: dict[str, list[Candidate]] = {}
    for candidate in study.candidates():
        heard.setdefault(candidate.digest, []).append(candidate)
    selection = problem.selection(proof.choice)
    own = heard[jury.policy_of(problem, proof.choice).digest]
    kept = {(candidate.split, candidate.arithmetic) for candidate in own if candidate.kept}
    for unit, option in proof.refuted:
        lowered = problem.choice((*selection[:unit], option, *selection[unit + 1 :]))
        broken = [
            (verdict, candidate)
            for candidate in heard[jury.policy_of(problem, lowered).digest]
            if (candidate.split, candidate.arithmetic) in kept
            for verdict in candidate.gates
            if not verdict.kept
        ]
        verdict, candidate = max(broken, key=lambda found: _rank(found[0]))
        members, pick = problem.units[unit].sites, problem.units[unit].picks[option]
        names = tuple(problem.sites[site] for site in members)
        scheme = problem.options[members[0]][pick[0]]
        yield Refuted(names, scheme, verdict, candidate.split, candidate.arithmetic)


def _rank(verdict: Verdict) -> float:
    """How badly a gate is broken; most where it has no value at all."""
    found = excess(verdict)
    return math.inf if math.isnan(found) else found
