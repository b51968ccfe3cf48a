"""Trial: at which strength a planted defect is caught, by which gates, and where it is as bad as a yardstick."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from audio_eval.clip import Samples
from audio_eval.gauntlet.applied import AppliedGates, Scope, Yardstick
from audio_eval.gauntlet.panel import Panel, Scores
from audio_eval.judge import stages
from precision.gates import Gate

HALVINGS = 4
"""Between two graded strengths: a strength is found to a sixteenth of the distance."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The slightest strength from which on something holds."""

    strength: float
    exact: bool
    """False where it is the slightest strength tried: it may begin below."""


@dataclass(frozen=True, slots=True)
class Caught:
    """Where a defect begins to be refused, and by which gates, from cheap to dear."""

    begun: Begun
    gates: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one trial came to under one profile."""

    every: Caught | None
    """Planted in every clip; None where the grossest strength escapes."""
    one: Caught | None
    """Planted in one clip."""
    even: Begun | None
    """Where it is as bad as the yardstick by the gate of which the yardstick uses up most; None if it never is."""
    own_gate: Gate | None
    """The gate in which it overtakes the yardstick first."""
    own_even: Begun | None
    """Where it does."""

    def held(self, named: float | None) -> bool:
        """Whether it is caught before it is as bad as the yardstick, and at a named strength in one clip, too."""
        if self.every is None or (self.even is not None and self.every.begun.strength > self.even.strength):
            return False
        return named is None or (
            self.every.begun.strength <= named and self.one is not None and self.one.begun.strength <= named
        )


@dataclass(slots=True)
class Trial:
    """One defect in one set of clips; what was scored once is remembered."""

    panel: Panel
    degraded: Callable[[float], Sequence[Samples]]
    """The set with the defect in every clip, at a strength."""
    strengths: tuple[float, ...]
    """From slight to gross."""
    whole: bool = False
    """Strengths are whole numbers."""
    monotone: bool = True
    """Worth looking between the graded strengths."""
    _scores: dict[float, list[dict[str, float]]] = field(default_factory=dict)
    _sets: dict[float, Sequence[Samples]] = field(default_factory=dict)

    def scores(self, strength: float, metrics: Sequence[str]) -> Scores:
        """Scores of these metrics, and of others that are known, at a strength."""
        known = self._scores.setdefault(strength, [{} for _ in self.panel.originals])
        missing = [name for name in metrics if name not in known[0]]
        if missing:
            if strength not in self._sets:
                self._sets[strength] = self.degraded(strength)
            for row, found in zip(known, self.panel.score(self._sets[strength], missing), strict=True):
                row.update(found)
        return tuple(known)

    def find(self, yardstick: Yardstick) -> Finding:
        """Run the trial against the yardstick's gates."""
        own_gate, own_even = self._first_overtaken(yardstick)
        gates = yardstick.gates
        return Finding(
            self.caught(yardstick.applied, "every"),
            self.caught(yardstick.applied, "one"),
            self._begin(partial(self._overtakes, yardstick, gates[0])) if gates else None,
            own_gate,
            own_even,
        )

    def caught(self, applied: AppliedGates, scope: Scope) -> Caught | None:
        """Where the defect begins to be refused; None where the grossest strength escapes."""
        begun = self._begin(lambda strength: self.refused(applied, scope, strength))
        if begun is None:
            return None
        return Caught(begun, applied.refusing(self.scores(begun.strength, applied.metrics), scope))

    def _begin(self, holds: Callable[[float], bool]) -> Begun | None:
        """Where something begins to hold up to the grossest strength; None where it does not hold there."""
        held = len(self.strengths)
        while held > 0 and holds(self.strengths[held - 1]):
            held -= 1
        if held == len(self.strengths):
            return None
        return self._narrowed(held, holds)

    def _narrowed(self, index: int, holds: Callable[[float], bool]) -> Begun:
        """Where something begins that holds at a graded strength and does not at the one below."""
        if index == 0:
            return Begun(self.strengths[0], exact=False)
        low, high = self.strengths[index - 1], self.strengths[index]
        for _ in range(HALVINGS if self.monotone else 0):
            middle = math.sqrt(low * high) if low > 0.0 else (low + high) / 2.0
            middle = float(round(middle)) if self.whole else middle
            if middle in (low, high):
                break
            low, high = (low, middle) if holds(middle) else (middle, high)
        return Begun(high, exact=True)

    def refused(self, applied: AppliedGates, scope: Scope, strength: float) -> bool:
        """Whether any gate refuses it, asked from cheap to dear; between graded strengths only likely ones are."""
        gates = applied.gates
        if strength not in self.strengths:
            grosser = min(known for known in self.strengths if known > strength)
            gates = applied.refusing(self.scores(grosser, applied.metrics), scope)
        asked: list[str] = []
        for names in stages(gates):
            asked += names
            scores = self.scores(strength, names)
            if applied.refusing(scores, scope, [gate for gate in gates if gate.metric in asked]):
                return True
        return False

    def _overtakes(self, yardstick: Yardstick, gate: Gate, strength: float) -> bool:
        """Whether it uses up more of a gate than the yardstick does."""
        scores = self.scores(strength, (gate.metric,))
        return yardstick.applied.used(gate, scores) > yardstick.used(gate)

    def _first_overtaken(self, yardstick: Yardstick) -> tuple[Gate, Begun] | tuple[None, None]:
        """The gate that shows the defect as worse than the yardstick at the slightest strength, and that strength.

        Between graded strengths what is used up is taken to grow evenly.
        """
        before = dict.fromkeys(yardstick.gates, 0.0)
        for index, strength in enumerate(self.strengths):
            scores = self.scores(strength, [gate.metric for gate in before])
            after = {gate: yardstick.applied.used(gate, scores) for gate in before}
            over = [gate for gate in before if after[gate] > yardstick.used(gate)]
            if over:
                first = min(over, key=lambda g: max(0.0, yardstick.used(g) - before[g]) / (after[g] - before[g]))
                return first, self._narrowed(index, partial(self._overtakes, yardstick, first))
            before = after
        return None, None
