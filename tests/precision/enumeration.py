"""Small random problems with groups, usages and boundaries, and all their choices, by the definition."""

import itertools
import math

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from precision.search.boundary import Boundary
from precision.search.problem import Choice, Problem

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)
NEAR = 1e-9


@st.composite
def problems(draw, *, whole: bool | None = None, sites: int = 6, metrics: int = 2) -> Problem:
    """Up to `sites` sites of up to 4 options, 2 resources; boundaries to any site before, groups close circles."""
    count, options = draw(st.integers(1, sites)), draw(st.integers(1, 4))
    shape = (count, options)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def values(*size: int) -> np.ndarray:
        return generator.integers(0, 4, size).astype(float) if is_whole else generator.lognormal(0, 1, size)

    is_whole = draw(st.booleans()) if whole is None else whole
    cost, damage = values(*shape), np.sqrt(values(metrics, *shape))
    usage = {"joules": values(*shape), "weight_bytes": values(*shape)}
    refused = generator.random(shape) < 0.15
    refused[:, 0] = False
    cost[refused] = np.inf
    damage[:, refused] = np.nan
    usage["joules"][refused] = np.nan
    boundaries = []
    for second in range(1, count):
        if draw(st.booleans()):
            formats = generator.integers(0, 2, options)  # what one format needs from another, as real ones do
            unlike = (formats[:, None] != formats[None, :]) * values(1, 1)
            table = unlike if generator.random() < 0.5 else values(options, options)
            used = {"joules": values(options, options)} if generator.random() < 0.5 else {}
            boundaries.append(Boundary(int(generator.integers(second)), second, table, used))
    grouped = draw(st.sampled_from([(), ((0, 1),), ((0, 2), (1, 3)), ((1, 2, 4),)]))
    return Problem(
        sites=tuple(f"s{i}" for i in range(count)),
        options=(tuple(f"o{i}" for i in range(options)),) * count,
        cost=cost,
        metrics=tuple(f"m{i}" for i in range(metrics)),
        damage=damage,
        groups=grouped if all(site < count for group in grouped for site in group) else (),
        usage=usage,
        boundaries=tuple(boundaries),
    )


def every_choice(problem: Problem) -> list[Choice]:
    """All choices that are allowed and whose groups agree."""
    allowed = [np.flatnonzero(np.isfinite(row)).tolist() for row in problem.cost]
    return [
        choice
        for choice in itertools.product(*allowed)
        if all(len({problem.options[site][choice[site]] for site in group}) == 1 for group in problem.groups)
    ]


def taken(problem: Problem, resource: str, choice: Choice) -> float:
    """What a choice takes of a usage, or of "cost"."""
    table = problem.cost if resource == "cost" else problem.usage[resource]
    total = sum(table[site, option] for site, option in enumerate(choice))
    for one in problem.boundaries:
        met = one.cost if resource == "cost" else one.usage.get(resource, np.zeros_like(one.cost))
        total += met[choice[one.first], choice[one.second]]
    return float(total)


def power(problem: Problem, metric: str, choice: Choice) -> float:
    """The squared predicted damage of a choice."""
    row = problem.damage[problem.metrics.index(metric)]
    return float(sum(row[site, option] ** 2 for site, option in enumerate(choice)))


def within(problem: Problem, budgets, limits, choice: Choice) -> bool:
    """Whether a choice is within budgets and limits, to the resolution that the solver promises."""
    return all(power(problem, name, choice) <= top**2 * (1 + NEAR) for name, top in budgets.items()) and all(
        taken(problem, name, choice) <= top * (1 + NEAR) for name, top in limits.items()
    )


def anchored(draw, problem: Problem, resources=("joules", "weight_bytes")):
    """Budgets and limits that some choice is within, barely or well."""
    choices = every_choice(problem)
    anchor = choices[draw(st.integers(0, len(choices) - 1))]
    room = draw(st.sampled_from([1.0, 1.2, 2.0]))
    budgets = {name: room * math.sqrt(power(problem, name, anchor)) for name in problem.metrics}
    return budgets, {name: room * taken(problem, name, anchor) for name in resources}
