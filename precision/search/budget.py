"""Budgets of damage and limits of resources: what is allowed, and what can be reached."""

import difflib
import math
from collections.abc import Iterable, Mapping

import numpy as np

from precision.search.amount import RESOLUTION as RESOLUTION
from precision.search.amount import Amount, Selection, power, taken, weighed
from precision.search.problem import COST, Choice, Problem
from precision.search.program import Program, least
from precision.search.unit import Array, Unit


class BudgetError(ValueError):
    """A budget or a limit that means nothing, or that no choice meets."""

    def __init__(
        self,
        message: str,
        metric: str | None,
        budget: float,
        reachable: float,
        least: Mapping[str, float] | None = None,
    ) -> None:
        """Keep the numbers beside the message.

        Args:
            message: what held, what was got, what to do.
            metric: the metric, or the resource of a limit; None where they cannot be met together.
            budget: what was asked, in the unit of the metric or resource (1.0, the common scale, where metric is None).
            reachable: the least that any choice reaches, in the same unit.
            least: of everything asked for, by name, the least that any choice reaches, each by itself.
        """
        super().__init__(message)
        self.metric = metric
        self.budget = budget
        self.reachable = reachable
        self.least = dict(least or {})


def check_budgets(problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float] | None = None) -> None:
    """Refuse budgets and limits that name nothing, mean nothing or lie below what any choice reaches on its own.

    Raises:
        ValueError: a name that is no metric, or no usage, of the problem.
        BudgetError: NaN or negative, or below the floor; with the numbers of the first that is.
    """
    limits = limits or {}
    check_meaning(problem, budgets)
    check_limits(problem, limits)
    floor = floors(problem, budgets, limits)
    wrong = []
    for name, budget in budgets.items():
        if limit(budget) < floor[name] ** 2 * (1.0 - RESOLUTION):
            high = reach(problem, name)[1]
            message = f"the budget of {name} is {budget}, but no choice is predicted below {floor[name]}"
            message += f" (and none above {high}); raise the budget or allow options of higher precision"
            wrong.append((message, name, budget))
    for name, most in limits.items():
        if ceiling(most) < floor[name] * (1.0 - RESOLUTION):
            message = f"the limit of {name} is {most}, but no choice takes less than {floor[name]}"
            wrong.append((message + "; raise the limit or allow options that take less", name, most))
    if wrong:
        message = "; ".join(said for said, _, _ in wrong)
        raise BudgetError(message, wrong[0][1], wrong[0][2], floor[wrong[0][1]], floor)


def check_meaning(problem: Problem, budgets: Mapping[str, float]) -> None:
    """Refuse budgets that name no metric (ValueError), or are NaN or negative (BudgetError)."""
    for name, budget in budgets.items():
        if name not in problem.metrics:
            raise ValueError(f"a budget names {name!r}, but the metrics are {_nearest(name, problem.metrics)}")
        if math.isnan(budget) or budget < 0.0:
            low, high = reach(problem, name)
            message = f"the budget of {name} must be >= 0, got {budget}; choices reach from {low} to {high}"
            raise BudgetError(message, name, budget, low)


def check_limits(problem: Problem, limits: Mapping[str, float]) -> None:
    """Refuse limits that name no usage (nor "cost": ValueError), or are NaN or negative (BudgetError)."""
    for name, most in limits.items():
        if name != COST and name not in problem.usage:
            raise ValueError(f"a limit names {name!r}, but there are {_nearest(name, [COST, *problem.usage])}")
        if math.isnan(most) or most < 0.0:
            low = least(problem, taken(problem, name))[0]
            raise BudgetError(f"the limit of {name} must be >= 0, got {most}; no choice takes < {low}", name, most, low)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"{list(known)}" + (f"; did you mean {near[0]!r}?" if near else "")


def limit(budget: float) -> float:
    """Give the most power that a budget allows: its square, and the resolution on top."""
    return budget**2 * (1.0 + RESOLUTION)


def ceiling(most: float) -> float:
    """Give the most that a limit allows: itself, and the resolution on top."""
    return most * (1.0 + RESOLUTION)


def caps(problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float]) -> list[tuple[Amount, float]]:
    """Give the finite budgets, then the finite limits, as amounts and the most that each may take."""
    found = [(power(problem, name), limit(budget)) for name, budget in budgets.items() if budget < math.inf]
    return found + [(taken(problem, name), ceiling(most)) for name, most in limits.items() if most < math.inf]


def floors(problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """Give what is the least that any choice reaches in every metric and resource named, each by itself."""
    found = {name: reach(problem, name)[0] for name in budgets}
    return found | {name: least(problem, taken(problem, name))[0] for name in limits}


def fits(problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float], choice: Choice) -> bool:
    """Whether a choice is foretold to be within every budget, and is within every limit."""
    if any(problem.total(name, choice) > ceiling(most) for name, most in limits.items()):
        return False
    damage = problem.predicted(choice) if budgets else {}
    return all(damage[name] ** 2 <= limit(budget) for name, budget in budgets.items())


def reach(problem: Problem, metric: str) -> tuple[float, float]:
    """Give the least and the most damage of one metric over all choices of efficient options."""
    row = problem.metrics.index(metric)
    powers = [unit.power[row, unit.efficient] for unit in problem.units]
    low, high = math.fsum(p.min() for p in powers), math.fsum(p.max() for p in powers)
    return math.sqrt(low), math.sqrt(high)


def weights(problem: Problem, budgets: Mapping[str, float]) -> Array:
    """Give the weight [metric] that turns power into load: 1 where a metric uses up its budget.

    Metrics with no budget, or an infinite one, weigh as their share of their own highest reach does, a million times
    less: they only part what is equal otherwise. A budget of 0 weighs as 1e-6 of that reach.
    """
    found = np.zeros(len(problem.metrics))
    for row, name in enumerate(problem.metrics):
        ceiling = reach(problem, name)[1] ** 2
        budget = budgets.get(name, math.inf)
        if ceiling > 0.0:
            power = max(budget**2, ceiling * 1e-12)
            found[row] = 1e-6 / ceiling if math.isinf(power) else 1.0 / power
    return found


def load(unit: Unit, weight: Array) -> Array:
    """Weigh the power of a unit's options into one number each [option]."""
    return np.asarray(weight @ unit.power, dtype=np.float64)


def safest(problem: Problem, weight: Array) -> Selection:
    """Select the option of least load in every unit; the cheaper, then the earlier of equal ones."""
    mildest = []
    for unit in problem.units:
        loads = np.where(unit.efficient, load(unit, weight), np.inf)
        mildest.append(np.flatnonzero(loads == loads.min()))
    return least(problem, taken(problem, COST), mildest)[1]


def cheapest(problem: Problem, weight: Array) -> Selection:
    """Select what costs least, boundaries included; what loads less, then the earlier of equal ones."""
    cost = taken(problem, COST)
    if cost.links:
        return Program(problem, (), cost, weighed(problem, weight)).best(()) or safest(problem, weight)
    return tuple(_least(unit, load(unit, weight)) for unit in problem.units)


def _least(unit: Unit, loads: Array) -> int:
    return min((float(unit.cost[i]), float(loads[i]), int(i)) for i in np.flatnonzero(unit.efficient))[2]
