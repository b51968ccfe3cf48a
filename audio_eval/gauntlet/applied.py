"""Applied gates: the gates of a profile that apply to a set of clips, and how near a set comes to breaking them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audio_eval.gauntlet.panel import Panel, Scores
from audio_eval.judge import aggregate, judge, judgeable
from audio_eval.suite import COST_RANK
from precision.gates import Gate

Scope = Literal["every", "one"]
"""Planted in every clip of a set, or in one clip while the others stay as they are."""
SHOWS = 0.1
"""A yardstick is compared by the gates of which it uses up this share at least."""


@dataclass(frozen=True, slots=True)
class AppliedGates:
    """Gates, and what they find where nothing was changed."""

    gates: tuple[Gate, ...]
    ideal: Scores
    """Scores of the references against themselves."""

    @classmethod
    def of(cls, gates: Sequence[Gate], panel: Panel) -> "AppliedGates":
        """The gates that apply to the clips of a panel."""
        chosen, _ = judgeable(gates, panel.material, clips=len(panel.originals))
        metrics = tuple(dict.fromkeys(gate.metric for gate in chosen))
        return cls(tuple(sorted(chosen, key=_cost)), panel.score(panel.originals, metrics))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the gates are on, from cheap to dear."""
        return tuple(dict.fromkeys(gate.metric for gate in self.gates))

    def value(self, gate: Gate, scores: Scores) -> float:
        """The number that the gate looks at."""
        return aggregate(gate, [clip[gate.metric] for clip in scores])

    def used(self, gate: Gate, scores: Scores) -> float:
        """Share of what the gate allows that is used up: 0 for an unchanged set, above 1 where the gate is broken.

        Infinite where a score is undefined, and at any change where the gate allows none.
        """
        value, best = self.value(gate, scores), self.value(gate, self.ideal)
        if math.isnan(value):
            return math.inf
        change = best - value if gate.min is not None else value - best
        if change <= 0.0:
            return 0.0
        allowed = abs(gate.threshold - best)
        return change / allowed if allowed > 0.0 else math.inf

    def broken(self, scores: Scores, gates: Sequence[Gate] | None = None) -> tuple[Gate, ...]:
        """The gates, of all or of some, that refuse the set."""
        verdicts = judge(self.gates if gates is None else gates, scores)
        return tuple(verdict.gate for verdict in verdicts if not verdict.kept)

    def refusing(self, scores: Scores, scope: Scope, gates: Sequence[Gate] | None = None) -> tuple[Gate, ...]:
        """The gates that refuse a defect whose scores in every clip are given.

        Planted in one clip, it is caught only where it is caught in whichever clip it falls: a fault in one of twelve
        must not hide in a mean. The gates are then those that refuse it in any.
        """
        if scope == "every":
            return self.broken(scores, gates)
        found: set[Gate] = set()
        for index, clip in enumerate(scores):
            broken = self.broken((*self.ideal[:index], clip, *self.ideal[index + 1 :]), gates)
            if not broken:
                return ()
            found.update(broken)
        return tuple(gate for gate in self.gates if gate in found)

    def tightest(self, scores: Scores) -> Gate:
        """The gate of which a set uses up most."""
        return max(self.gates, key=lambda gate: self.used(gate, scores))


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A set that every defect is measured by: the model's own renders in bf16."""

    applied: AppliedGates
    scores: Scores

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates in which the yardstick's damage shows, that of which it uses up most first."""
        known = [gate for gate in self.applied.gates if gate.metric in self.scores[0]]
        shown = [gate for gate in known if SHOWS <= self.used(gate) < math.inf]
        return tuple(sorted(shown, key=self.used, reverse=True))

    def used(self, gate: Gate) -> float:
        """Share of what a gate allows that the yardstick uses up."""
        return self.applied.used(gate, self.scores)

    def value(self, gate: Gate) -> float:
        """The number that the gate looks at."""
        return self.applied.value(gate, self.scores)


def _cost(gate: Gate) -> int:
    return COST_RANK[gate.metric]
