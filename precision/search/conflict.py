"""Why no choice meets budgets and limits that can each be met by itself, and what can be reached."""

import math
from collections.abc import Mapping

from precision.search.amount import power as power_of
from precision.search.amount import taken
from precision.search.budget import BudgetError, caps, floors
from precision.search.minimax import tightest
from precision.search.problem import COST, Problem


def conflict(problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float]) -> BudgetError:
    """Give the error for budgets and limits that no choice meets together.

    Its `reachable` is the least common scale: of all limits, where these alone cannot be met together; else of all
    budgets within the limits; inf where no scale helps (a budget or limit of 0 stands against another).
    """
    floor = floors(problem, budgets, limits)
    each = "; each by itself reaches " + ", ".join(f"{name} {value:.6g}" for name, value in floor.items())
    scale = _scale(problem, {}, limits, {}) if limits else 0.0
    if scale > 1.0:
        message = f"no choice is within the limits {dict(limits)} together, though each can be met alone"
        return BudgetError(f"{message}; {_needs('them', scale)}{each}", None, 1.0, scale, floor)
    scale = math.sqrt(_scale(problem, budgets, {}, limits))
    within = f" within the limits {dict(limits)}" if limits else ""
    message = f"no choice meets the budgets {dict(budgets)} together{within}, though each can be met alone"
    return BudgetError(f"{message}; {_needs('the budgets', scale)}{each}", None, 1.0, scale, floor)


def _scale(
    problem: Problem, budgets: Mapping[str, float], limits: Mapping[str, float], fixed: Mapping[str, float]
) -> float:
    """Give the least factor on powers and amounts under which they can be met, with `fixed` limits as they are."""
    parts = [(power_of(problem, name), budget**2) for name, budget in budgets.items() if 0.0 < budget < math.inf]
    parts += [(taken(problem, name), most) for name, most in limits.items() if 0.0 < most < math.inf]
    zero = {name: 0.0 for name, budget in budgets.items() if budget == 0.0}
    held = caps(problem, zero, {name: 0.0 for name, most in limits.items() if most == 0.0} | dict(fixed))
    if not parts:
        return math.inf if tightest(problem, [(taken(problem, COST), 1.0)], held) is None else 0.0
    found = tightest(problem, parts, held)
    return math.inf if found is None else found[0]


def _needs(what: str, scale: float) -> str:
    if math.isinf(scale):
        return "no common scale helps, as one is 0"
    return f"the choice that comes nearest needs {what} {scale:.6g} times as large"
