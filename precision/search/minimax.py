"""The selection whose largest share of some caps is least."""

import math
from collections.abc import Sequence

from precision.search.amount import RESOLUTION, Amount, Selection
from precision.search.formulation import Cut, Formulation
from precision.search.problem import Problem
from precision.search.program import Relaxed, descend, efficient_options

_ROUNDS = 60
"""More than enough: each but the last at least halves the range."""


def tightest(
    problem: Problem,
    parts: Sequence[tuple[Amount, float]],
    caps: Sequence[tuple[Amount, float]] = (),
    cuts: Sequence[Cut] = (),
) -> tuple[float, Selection] | None:
    """Minimise the largest of amount / top over `parts`, under `caps`, by a continuous variable above all of them.

    Solved again with the range at what was found until that is the scale of the answer, so that the answer is exact to
    one part in 1e9 of itself, however small a share of the whole range it is.

    Args:
        problem: gives units and efficient options.
        parts: amounts and the top > 0 that each is measured by; at least one.
        caps: amounts and the most that each may take.
        cuts: what the answer must differ from.

    Returns:
        The least share and a selection that has it; None where no selection is under the caps.
    """
    found: tuple[float, Selection] | None = None
    scaled = [amount.over(top) for amount, top in parts]
    for _ in range(_ROUNDS):
        held = list(caps)
        if found is not None:
            held += [(amount, found[0] * (1.0 + RESOLUTION)) for amount in scaled]
        formulation = Formulation(efficient_options(problem), held, scaled)
        goal = formulation.goal(*scaled)
        least = descend(formulation, Relaxed(goal, *formulation.relax(goal)), cuts)
        if least is None:
            return found
        share = max(amount.total(least[0]) for amount in scaled)
        before = math.inf if found is None else found[0]
        if share < before:
            found = share, least[0]
        if found is None or share <= 0.0 or share >= 0.5 * before:
            return found
    return found
