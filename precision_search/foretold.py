"""Foretold: the whole Pareto front that one table of damages speaks for, cost against the metric that binds."""

import math
from collections.abc import Mapping
from typing import Any

from precision.policy import Policy
from precision.search.pareto import pareto_front
from precision.search.problem import Choice
from precision.search.sweep import TangledError
from precision_search.problem import Posed, meter_of
from precision_search.setting import Setting

POINTS = 100
"""Points of the front that are written, evenly spread over it; all of them may be thousands."""


def foretold_front(
    setting: Setting, posed: Posed, budgets: Mapping[str, float], chosen: Choice
) -> dict[str, Any] | None:
    """The exact front in the plane of cost and of the additive metric that binds the chosen policy, for `front.json`.

    Each point is a policy: the index of every site's scheme. `ratio` is the predicted damage over its threshold. None
    where groups and boundaries are so entangled that the front cannot be made.
    """
    problem = posed.problem
    predicted = problem.predicted(chosen)
    metric = max(budgets, key=lambda name: predicted[name] / budgets[name] if budgets[name] > 0 else math.inf)
    try:
        front = pareto_front(problem, metric)
    except TangledError:
        return None
    meter, schemes = meter_of(setting), setting.recipe.schemes
    points = []
    for point in front.thinned(POINTS):
        schemed = [(site, schemes[option]) for site, option in zip(problem.sites, point.choice, strict=True)]
        seconds = meter.policy_usage(Policy(tuple(schemed)), "seconds")
        ratio = point.damage[metric] / budgets[metric] if budgets[metric] > 0 else None
        points.append({"cost": point.cost, "seconds": seconds, "ratio": ratio, "choice": list(point.choice)})
    return {
        "metric": metric,
        "minimize": setting.recipe.search.minimize,
        "size": len(front),
        "error": front.error,
        "sites": list(problem.sites),
        "schemes": [scheme.name for scheme in schemes],
        "points": points,
    }
