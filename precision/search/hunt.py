"""Hunt: the course of a search, from one evaluation to the next."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from precision.search.belief import Belief
from precision.search.best_audio import best_audio
from precision.search.budget import BudgetError, weights
from precision.search.outcome import Goal, Ledger, Reason, Stage, Trial
from precision.search.pool import around, everything, promising, uniform, untried, within
from precision.search.problem import COST, Choice, Problem
from precision.search.remeasure import Remeasure, Surprise, parted, retabled, worthwhile
from precision.search.solve import solve
from precision.search.table import Selections, Table
from precision.search.unit import Array

_HOPE = 1e-9
"""Probability of being better below which a choice is not tried. Next to nothing, as what is believed is too sure of
itself: `candidates` says how long to go on without a gain."""
_FAINT = 0.1
"""The same while nothing is kept: below it the choices for that case come first."""
_BLIND = 5
"""Trials that may break before the choice of least damage is asked whether anything is kept."""
_UNLIKE = 6
"""Choices unlike each other that are tried when nothing else is kept."""
_REMEASURED = 2
_DEEPER = (1.0, 0.98, 0.95, 0.9)
"""Of the best audio so far, as shares of the way from 0: what an improvement is weighed at."""


@dataclass(frozen=True)
class _Bet:
    """A choice that could be evaluated next."""

    choice: Choice
    chance: float
    """Probability that it is better than the best."""


class Hunt:
    """Bets on choices until none is worth it."""

    def __init__(
        self,
        problem: Problem,
        budgets: Mapping[str, float],
        limits: Mapping[str, float],
        ledger: Ledger,
        goal: Goal,
        safe: Choice,
        remeasure: Remeasure | None,
    ) -> None:
        """Begin; `safe` is the choice of least predicted damage within the limits, the rest is as for `search`."""
        self._table = Table(problem)
        self._budgets = budgets
        self._limits = limits
        self._ledger = ledger
        self._goal = goal
        self._safe = safe
        self._remeasure = remeasure
        self._surprises: list[Surprise] = []
        self._believed: Belief | None = None
        self.remeasured: tuple[str, ...] = ()
        """Why damages were measured anew, each time."""

    def run(self, candidates: int, floor: float) -> Reason:
        """Evaluate until nothing better is likely.

        Args:
            candidates: evaluations in a row that may better nothing.
            floor: the least cost that there is.

        Raises:
            OutOfEvaluations: before that.
        """
        idle = 0
        while True:
            best = self._ledger.best
            if best is None:
                if not self._seek(candidates):
                    return "unreachable"
                continue
            if self._goal == "cheapest" and best.cost <= floor * (1.0 + 1e-12):
                return "cheapest"
            bet = self._bet() if idle <= candidates else None
            if bet is None or bet.chance < _HOPE:
                return "settled"
            self._ask(bet.choice, "improve")
            idle = idle + 1 if self._ledger.best is best else 0

    def _seek(self, candidates: int) -> bool:
        """Evaluate one choice more while nothing is kept; False where nothing is left to try."""
        tried = {trial.choice for trial in self._ledger.tried}
        bet = self._bet()
        if self._safe not in tried:
            late = len(tried) >= _BLIND or self._ledger.left <= 1
            if tried and (late or bet is None or bet.chance < _FAINT):
                self._ask(self._safe, "safest")
            else:
                self._ask(self._safe if bet is None else bet.choice, "improve" if tried else "first")
            return True
        if len(tried) > _BLIND + _UNLIKE + candidates:
            return False
        if bet is not None and bet.chance >= _FAINT:
            self._ask(bet.choice, "improve")
            return True
        for stage, choice in self._unlike():
            if choice not in tried:
                self._ask(choice, stage)
                return True
        return False

    def _unlike(self) -> Iterator[tuple[Stage, Choice]]:
        """Choices that may keep what the choice of least damage does not: uniform ones, then ones unlike each other."""
        rows = within(
            self._table, uniform(self._table, np.array(self._table.problem.selection(self._safe))), self._limits
        )
        for row in rows:
            yield "uniform", self._table.choice(row)
        problem = self._table.problem
        apart = max(2, len(problem.units) // 4)
        for scale in (1.0, 2.0, 4.0):
            budgets = {name: budget * scale for name, budget in self._budgets.items()}
            exclude = [trial.choice for trial in self._ledger.tried if trial.stage != "diverse"]
            try:
                found = solve(problem, budgets, exclude[:1], _UNLIKE, limits=self._limits, apart=apart)
            except BudgetError:
                continue
            for solution in found:
                yield "diverse", solution.choice
            return

    def _ask(self, choice: Choice, stage: Stage) -> Trial:
        believed = self._belief().believed(self._table.selections([choice]))
        trial = self._ledger.ask(choice, stage)
        for name, power in believed.items():
            ratio = trial.evaluation.ratio.get(name, math.nan)
            if math.isfinite(ratio) and ratio > 0.0:
                self._surprises.append(Surprise(name, power, 2.0 * math.log(ratio)))
        self._look_again(trial)
        return trial

    def _look_again(self, trial: Trial) -> None:
        """Measure damages anew around the best choice, or the last, where prediction and measurement part."""
        if self._remeasure is None or len(self.remeasured) >= _REMEASURED:
            return
        why = parted(self._surprises)
        if why is None:
            return
        at = self._ledger.best or trial
        problem = self._table.problem
        changes = worthwhile(problem, self._budgets, at.choice)
        found = self._remeasure(at.choice, changes) if changes else []
        problem = retabled(problem, self._budgets, at, changes, found)
        self._table = Table(problem)
        self._ledger.foretell(problem)
        self._surprises.clear()
        self.remeasured = (*self.remeasured, f"{why}; {len(changes)} changes measured around the best so far")

    def _belief(self) -> Belief:
        """What is believed after the last trial."""
        trials = self._ledger.tried
        if self._believed is None or self._believed.table is not self._table or self._believed.count != len(trials):
            self._believed = Belief(self._table, self._budgets, trials)
        return self._believed

    def _bet(self) -> _Bet | None:
        """The untried choice with the most to gain; None where none could gain anything."""
        belief, best = self._belief(), self._ledger.best
        tried = self._table.selections([trial.choice for trial in self._ledger.tried])
        safe = self._table.selections([self._safe])
        corrected = Table(belief.corrected())
        starts = [*self._solutions(corrected, belief, safe), safe[0]]
        if best is not None:
            starts[-1] = self._table.selections([best.choice])[0]
        weight = weights(corrected.problem, self._budgets)
        found = everything(corrected)
        if found is None:
            found = np.concatenate([around(corrected, start, weight) for start in np.unique(starts, axis=0)] + [safe])
        found = within(corrected, found, self._limits)
        found = found[promising(corrected, self._budgets, found, self._gain(corrected, found))]
        found = untried(found, tried)
        if not len(found):
            return None
        chance, worth = self._weigh(belief, found, self._gain(corrected, found))
        # rounded, so that what is equal but for the last bits is decided by order
        place = int(np.argmax(np.round(worth / max(float(worth.max()), 1e-300), 9)))
        return _Bet(self._table.choice(found[place]), float(chance[place] if best is None else chance.max()))

    def _gain(self, table: Table, found: Selections) -> Array:
        """What each selection saves if it keeps the gates; 1 for all where it is not the cost that counts."""
        if self._goal == "best_audio":
            return np.ones(len(found))
        cost = table.total(COST, found)
        if self._ledger.best is not None:
            return self._ledger.best.cost - cost
        # while nothing is kept, a choice as dear as the dearest is still worth something
        return np.asarray(cost.max(initial=0.0) * 1.001 - cost)

    def _weigh(self, belief: Belief, found: Selections, gain: Array) -> tuple[Array, Array]:
        """Probability that each selection is better, and what it is expected to gain."""
        if self._goal == "cheapest":
            chance = belief.chances(found)
            return chance, chance * gain
        best = self._ledger.best
        worst = 0.0 if best is None or math.isnan(best.evaluation.worst) else best.evaluation.worst
        steps = [belief.chances(found, (1.0 + worst) * share - 1.0) for share in _DEEPER]
        return steps[0], np.mean(steps, axis=0)

    def _solutions(self, corrected: Table, belief: Belief, safe: Selections) -> Iterator[Selections]:
        """What the solver makes of the corrected table: as believed, and with room for error either way."""
        problem = corrected.problem
        if self._goal == "best_audio":
            yield corrected.selections([best_audio(problem, self._budgets, self._limits).choice])[0]
            return
        anchor = safe
        for deviations in (0.0, -1.0, 1.0):
            budgets = belief.slackened(anchor, deviations)
            try:
                found = solve(problem, budgets, limits=self._limits)[0].choice
            except BudgetError:
                continue
            anchor = corrected.selections([found])
            yield anchor[0]
