"""The cheapest choices under budgets of damage, exactly."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from precision.search.budget import BudgetError, cheapest, check_budgets, limit, reach, safest, weights
from precision.search.problem import Choice, Problem
from precision.search.program import Program, Selection


@dataclass(frozen=True)
class Solution:
    """A choice that meets the budgets, as far as the damages of single sites foretell."""

    choice: Choice
    cost: float
    damage: Mapping[str, float]
    """Predicted amplitude in every metric of the problem."""
    slack: bool
    """Whether the budgets bind nothing: the cheapest choice of all meets them."""


def solve(
    problem: Problem, budgets: Mapping[str, float], exclude: Collection[Choice] = (), k: int = 1
) -> list[Solution]:
    """Give the `k` cheapest choices whose predicted damage is within every budget.

    Exact over the choices of efficient options (see `Unit.efficient`), to one part in 1e9 of the range of costs and
    of powers. Of equal costs the lower predicted damage (the sum over metrics of power by squared budget) comes first,
    then the lexicographically first choice (where few options are in question: see `Program.best`). The same arguments
    give the same answer.

    Args:
        problem: sites, options, costs and damages.
        budgets: amplitude allowed in each metric, in its unit, >= 0; a metric left out is not limited, nor is one of
            inf.
        exclude: choices that are not to be given.
        k: how many choices.

    Returns:
        At most `k` solutions, cheapest first; fewer, or none, where no more are left.

    Raises:
        ValueError: a budget for a metric that the problem has not.
        BudgetError: a budget is NaN or negative, or no choice meets the budgets.
    """
    return list(islice(solutions(problem, budgets, exclude), k))


def solutions(problem: Problem, budgets: Mapping[str, float], exclude: Collection[Choice] = ()) -> Iterator[Solution]:
    """Give the choices within the budgets one by one, cheapest first, each solved when it is asked for; see `solve`."""
    check_budgets(problem, budgets)
    weight = weights(problem, budgets)
    floor_free = cheapest(problem, weight)
    slack = _fits(problem, budgets, problem.choice(floor_free))
    cuts: list[Selection] = [problem.selection(choice) for choice in dict.fromkeys(exclude)]
    program = Program(problem, budgets, weight)
    found: Selection | None = floor_free if slack and floor_free not in cuts else program.best(cuts)
    if found is None and (not cuts or program.best([]) is None):
        scale = _common_scale(problem, budgets)
        raise BudgetError(
            f"no choice meets the budgets {dict(budgets)} together, though each can be met by itself; the choice of "
            f"least damage needs them {scale:.6g} times as large",
            None,
            1.0,
            scale,
        )
    while found is not None:
        choice = problem.choice(found)
        yield Solution(choice, problem.total_cost(choice), problem.predicted(choice), slack)
        cuts.append(found)
        found = program.best(cuts)


def front(problem: Problem, metrics: Sequence[str], points: int = 16) -> list[Solution]:
    """Give the predicted Pareto front: from the safest choice to the cheapest, no point worse than another.

    Args:
        problem: sites, options, costs and damages.
        metrics: the metrics whose budgets grow together; one is a front in the plane.
        points: how many budgets are tried, from what the safest choice needs to what the cheapest does, evenly in the
            logarithm of power; >= 2.

    Returns:
        At most `points` solutions, cheapest first.
    """
    if points < 2 or not metrics:
        raise ValueError(f"a front needs a metric and at least 2 points, got {list(metrics)} and {points}")
    check_budgets(problem, dict.fromkeys(metrics, math.inf))
    plain = weights(problem, {name: reach(problem, name)[1] for name in metrics})
    low = problem.predicted(problem.choice(safest(problem, plain)))
    high = problem.predicted(problem.choice(cheapest(problem, plain)))
    found: dict[Choice, Solution] = {}
    for point in range(points):
        share = 10.0 ** (-4.0 * (1.0 - point / (points - 1))) if point else 0.0
        budgets = {
            name: math.sqrt(low[name] ** 2 + share * max(high[name] ** 2 - low[name] ** 2, 0.0)) for name in metrics
        }
        solution = solve(problem, budgets)[0]
        found.setdefault(solution.choice, solution)
    kept = [one for one in found.values() if not any(_beats(other, one, metrics) for other in found.values())]
    return sorted(kept, key=lambda one: (one.cost, one.choice))


def _beats(one: Solution, other: Solution, metrics: Sequence[str]) -> bool:
    pairs = [(one.cost, other.cost)] + [(one.damage[name], other.damage[name]) for name in metrics]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _fits(problem: Problem, budgets: Mapping[str, float], choice: Choice) -> bool:
    damage = problem.predicted(choice)
    return all(damage[name] ** 2 <= limit(budget) for name, budget in budgets.items())


def _common_scale(problem: Problem, budgets: Mapping[str, float]) -> float:
    """Give the factor on all budgets under which the choice of least load meets them."""
    damage = problem.predicted(problem.choice(safest(problem, weights(problem, budgets))))
    ratios = [damage[name] / budget for name, budget in budgets.items() if budget > 0.0]
    return max(ratios, default=math.inf)
