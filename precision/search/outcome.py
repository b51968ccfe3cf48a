"""Outcome: what a search tried, what it found, and why it stopped."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from precision.search.problem import Choice, Problem

Goal = Literal["cheapest", "best_audio"]
"""What is sought: the least cost that keeps every gate, or the least `Evaluation.worst` within the limits."""
Stage = Literal["first", "improve", "safest", "uniform", "diverse", "prove", "repair", "exhaustive", "warm", "sampled"]
"""What an evaluation was for: the choice that the damages of single sites make the best bet; the best bet by what was
learned since; the choice of least predicted damage; one option at every site; choices unlike those that broke; a change
of one unit that proves the rest; raising sites of a broken choice; one of all; a sampler's start, what it drew."""
Reason = Literal["settled", "cheapest", "evaluations", "unreachable", "repaired", "optimal"]


@dataclass(frozen=True)
class Evaluation:
    """How a choice did in the gates."""

    kept: bool
    """Whether every gate was kept."""
    worst: float
    """The largest relative excess over a gate's threshold: > 0 where one is broken, negative where all are kept with
    room, which makes it the measure of audio; NaN where a gate has no value."""
    ratio: Mapping[str, float] = field(default_factory=dict)
    """Value by threshold of the metrics that have budgets; metrics may be missing."""


@dataclass(frozen=True)
class Trial:
    """A choice that was evaluated, and what was foretold of it."""

    stage: Stage
    choice: Choice
    cost: float
    predicted: Mapping[str, float]
    evaluation: Evaluation


@dataclass(frozen=True)
class Progress:
    """Where a search stands after an evaluation."""

    trial: Trial
    spent: int
    evaluations: int
    """The most evaluations that the search may use."""
    best: Trial | None
    """The best so far, as `Outcome.best` has it."""


@dataclass(frozen=True)
class Outcome:
    """The result of a search or a repair."""

    best: Trial | None
    """The cheapest choice that was kept; None where none was. Where the best audio is sought, the choice of least
    `worst` among those within the limits, kept or not."""
    tried: tuple[Trial, ...]
    """Every choice evaluated, in order, each once."""
    reason: Reason
    """Why it stopped: nothing better is likely; the cheapest choice of all is kept; the evaluations are used up;
    neither the choice of least damage nor any unlike it is kept; a broken choice is repaired; the optimum is proved."""
    one_optimal: bool = False
    """Every cheaper choice that differs from the best in one site (or group) was evaluated and broke. Where a search
    does not happen to have tried them all, `precision.search.prove` does."""
    remeasured: tuple[str, ...] = ()
    """Of each time that damages were measured anew around a choice: why."""
    goal: Goal = "cheapest"

    @property
    def nearest(self) -> Trial | None:
        """The choice that came nearest to keeping the gates, kept or not: what was reachable."""
        return min(self.tried, key=lambda trial: (_excess(trial.evaluation), trial.cost, trial.choice), default=None)

    @property
    def message(self) -> str:
        """One sentence for people, with the numbers."""
        return self.told("cost {:.6g}".format)

    def told(self, priced: Callable[[float], str]) -> str:
        """Give the same with costs written as the caller has them."""
        if self.best is not None:
            cut = "; the evaluations are used up" if self.reason == "evaluations" else ""
            price = priced(self.best.cost)
            if self.goal == "cheapest":
                return f"a choice of {price} keeps every gate after {len(self.tried)} evaluations{cut}"
            room = -100.0 * self.best.evaluation.worst
            told = f"{room:.4g} % within" if room >= 0.0 else f"{-room:.4g} % beyond"
            return (
                f"the best audio within the limits, at {price}, is {told} its worst threshold after "
                f"{len(self.tried)} evaluations{cut}"
            )
        if self.nearest is None:
            return "nothing was evaluated"
        excess = 100.0 * self.nearest.evaluation.worst
        why = (
            "neither that of least damage nor any unlike it"
            if self.reason == "unreachable"
            else "evaluations are used up"
        )
        beyond = "breaks by no number" if math.isnan(excess) else f"is {excess:.4g} % beyond its worst threshold"
        return (
            f"none of {len(self.tried)} choices keeps every gate ({why}); the nearest, of {priced(self.nearest.cost)},"
            f" {beyond}"
        )


class OutOfEvaluations(Exception):  # noqa: N818 - the end of a search, not an error of it
    """Raised inside a search when it may evaluate nothing more."""


class Ledger:
    """Evaluates every choice once, counts, and keeps the cheapest that was kept."""

    def __init__(
        self,
        problem: Problem,
        evaluate: Callable[[Choice], Evaluation],
        evaluations: int,
        on_progress: Callable[[Progress], None] | None,
        known: Mapping[Choice, Evaluation] | None,
        goal: Goal = "cheapest",
    ) -> None:
        """Start empty; see `precision.search.driver.search` for the arguments."""
        if evaluations < 1:
            raise ValueError(f"a search needs at least 1 evaluation, got {evaluations}")
        self._problem = problem
        self._evaluate = evaluate
        self._evaluations = evaluations
        self._on_progress = on_progress
        self._known = known or {}
        self._goal = goal
        self._trials: dict[Choice, Trial] = {}
        self.best: Trial | None = None

    @property
    def tried(self) -> tuple[Trial, ...]:
        """Every trial, in order."""
        return tuple(self._trials.values())

    @property
    def left(self) -> int:
        """How many evaluations may still be used."""
        return self._evaluations - len(self._trials)

    def ask(self, choice: Choice, stage: Stage) -> Trial:
        """Give the trial of a choice, evaluating it if that has not been done.

        What is known from an earlier run counts as an evaluation, so that a resumed search takes the same path.

        Raises:
            OutOfEvaluations: the choice is new and nothing is left.
        """
        if choice in self._trials:
            return self._trials[choice]
        if self.left <= 0:
            raise OutOfEvaluations
        evaluation = self._known[choice] if choice in self._known else self._evaluate(choice)
        trial = Trial(stage, choice, self._problem.total_cost(choice), self._problem.predicted(choice), evaluation)
        self._trials[choice] = trial
        counts = evaluation.kept or self._goal == "best_audio"
        if counts and (self.best is None or self._rank(trial) < self._rank(self.best)):
            self.best = trial
        if self._on_progress is not None:
            self._on_progress(Progress(trial, len(self._trials), self._evaluations, self.best))
        return trial

    def foretell(self, problem: Problem) -> None:
        """Foretell by another table of damages from here on."""
        self._problem = problem

    def outcome(self, reason: Reason, one_optimal: bool = False, remeasured: tuple[str, ...] = ()) -> Outcome:
        """Close the ledger."""
        return Outcome(self.best, self.tried, reason, one_optimal, remeasured, self._goal)

    def _rank(self, trial: Trial) -> tuple[float, float, Choice]:
        cost, excess = trial.cost, _excess(trial.evaluation)
        return (cost, excess, trial.choice) if self._goal == "cheapest" else (excess, cost, trial.choice)


def _excess(evaluation: Evaluation) -> float:
    return math.inf if math.isnan(evaluation.worst) else evaluation.worst
