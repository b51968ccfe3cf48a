"""Contests: budgets on an enumerated space, whose optimum is known, and how many evaluations a method may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from searching.enumeration import Table, Values

from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem

BUDGETS = 7
TOGETHER = "all together"
Evaluate = Callable[[Choice], Evaluation]


@dataclass(frozen=True, eq=False)
class Contest:
    """A space under budgets in one metric or in several."""

    metric: str
    """That alone has a budget, or TOGETHER."""
    step: int
    """Which of the budgets, 1 the tightest."""
    problem: Problem
    budgets: Mapping[str, float]
    evaluate: Evaluate
    optimum: float
    """Cost of the cheapest policy of all that keeps the budgets."""
    mildest: Choice
    """Keeps them, and is what a method that finds nothing is left with."""

    def gap(self, cost: float) -> float:
        """How far above the optimum a cost is, %."""
        return 100.0 * (cost / self.optimum - 1.0)


def contests(table: Table) -> list[Contest]:
    """Of each metric alone and of all together: BUDGETS log-evenly between what the mildest and the boldest do."""
    units, options = table.cost.shape
    mildest, boldest = (0,) * units, (options - 1,) * units
    costs = table.policy_costs()
    found = []
    for metric in (*table.metrics, TOGETHER):
        chosen = table.metrics if metric == TOGETHER else (metric,)
        rows = [table.metrics.index(name) for name in chosen]
        problem = Problem(
            sites=table.units, options=table.options, cost=table.cost, metrics=chosen, damage=table.alone[rows]
        )
        scores = table.scores[..., rows]
        low, high = scores[mildest], scores[boldest]
        for step in range(1, BUDGETS + 1):
            limits = low * (high / low) ** (step / (BUDGETS + 1))
            optimum = float(costs[(scores <= limits).all(axis=-1)].min())
            budgets = dict(zip(chosen, limits.tolist(), strict=True))
            evaluate = looked_up(scores, budgets)
            found.append(Contest(metric, step, problem, budgets, evaluate, optimum, mildest))
    return found


def looked_up(scores: Values, budgets: Mapping[str, float]) -> Evaluate:
    """What the gates say of a choice; `scores` as in the table, of the metrics that have budgets."""
    limits = np.array(list(budgets.values()))

    def evaluate(choice: Choice) -> Evaluation:
        ratio = scores[choice] / limits
        worst = float(ratio.max()) - 1.0
        return Evaluation(worst <= 0.0, worst, dict(zip(budgets, ratio.tolist(), strict=True)))

    return evaluate


class OutOfTurns(Exception):  # noqa: N818 - the end of a method, not an error of it
    """Raised where a method has used up its evaluations."""


@dataclass(eq=False)
class Turns:
    """Evaluations that a method uses: each choice counts once, and after each the cheapest that was kept is noted."""

    problem: Problem
    ask: Evaluate
    limit: int
    spent: int = 0
    """Those used before the first policy: measurements of the damage of single units."""
    best: tuple[float, Choice] | None = None
    course: dict[int, float] = field(default_factory=dict)
    """Evaluations used -> cost of the best, where it became better."""
    _known: dict[Choice, Evaluation] = field(default_factory=dict)

    def __call__(self, choice: Choice) -> Evaluation:
        """Evaluate; OutOfTurns where the choice is new and nothing is left."""
        if choice in self._known:
            return self._known[choice]
        if self.left <= 0:
            raise OutOfTurns
        self.spent += 1
        evaluation = self._known[choice] = self.ask(choice)
        cost = self.problem.total_cost(choice)
        if evaluation.kept and (self.best is None or cost < self.best[0]):
            self.best = cost, choice
            self.course[self.spent] = cost
        return evaluation

    @property
    def left(self) -> int:
        """How many may still be used."""
        return self.limit - self.spent
