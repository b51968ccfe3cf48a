"""What people search with: greedy lowering, thresholds, random draws; each goes on until its turns are used up."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from searching.contests import OutOfTurns, Turns

from precision.search.problem import Choice, Problem

Budgets = Mapping[str, float]
Peer = Callable[[Problem, Budgets, Turns], None]


def steepest_greedy(problem: Problem, budgets: Budgets, turns: Turns) -> None:
    """Try every single lowering of a policy, take the one that saves most for what it damages, and begin again.

    Lowered is to the next cheaper option; damage is what is used up of the worst budget. Asks for no table.
    """
    choice = mildest(problem)
    worst = turns(choice).worst
    while True:
        steps: list[tuple[float, Choice, float]] = []
        for site in range(len(problem.sites)):
            lowered = _lower(problem, choice, site)
            if lowered is None:
                continue
            evaluation = turns(lowered)
            if evaluation.kept:
                saved = problem.total_cost(choice) - problem.total_cost(lowered)
                damaged = max(evaluation.worst - worst, 1e-9)
                steps.append((saved / damaged, lowered, evaluation.worst))
        if not steps:
            return
        _, choice, worst = max(steps)


def one_pass_greedy(problem: Problem, budgets: Budgets, turns: Turns) -> None:
    """Go over the sites once, the one that damages least at its boldest first, and lower each as far as gates hold."""
    choice = mildest(problem)
    alone = _load(problem, budgets)
    options = [_by_cost(problem, site) for site in range(len(problem.sites))]
    for site in sorted(range(len(problem.sites)), key=lambda site: alone[site, options[site][0]]):
        for option in options[site]:
            if option == choice[site]:
                break
            lowered = (*choice[:site], option, *choice[site + 1 :])
            if turns(lowered).kept:
                choice = lowered
                break


def threshold(problem: Problem, budgets: Budgets, turns: Turns) -> None:
    """Lower every site as far as its own damage stays under one threshold, and bisect that threshold."""
    alone = _load(problem, budgets)
    levels = sorted({float(value) for value in alone[np.isfinite(problem.cost)]})
    low, high = -1, len(levels)
    while high - low > 1:
        middle = (low + high) // 2
        choice = tuple(
            next((o for o in _by_cost(problem, site) if alone[site, o] <= levels[middle]), mildest(problem)[site])
            for site in range(len(problem.sites))
        )
        low, high = (middle, high) if turns(choice).kept else (low, middle)


def random_draws(seed: int) -> Peer:
    """Policies drawn evenly, until no turn is left."""

    def draw(problem: Problem, budgets: Budgets, turns: Turns) -> None:
        generator = np.random.default_rng(seed)
        options = [np.flatnonzero(np.isfinite(row)) for row in problem.cost]
        while True:
            turns(tuple(int(generator.choice(allowed)) for allowed in options))

    return draw


def played(peer: Peer, problem: Problem, budgets: Budgets, turns: Turns) -> Turns:
    """The turns of a peer that was let go on until it ended, or had none left."""
    with suppress(OutOfTurns):
        peer(problem, budgets, turns)
    return turns


def mildest(problem: Problem) -> Choice:
    """Every site at its dearest option."""
    return tuple(_by_cost(problem, site)[-1] for site in range(len(problem.sites)))


def _by_cost(problem: Problem, site: int) -> list[int]:
    """Options that may be chosen, cheapest first; of equal ones the one that damages least first."""
    allowed = [option for option in range(problem.cost.shape[1]) if math.isfinite(problem.cost[site, option])]
    return sorted(allowed, key=lambda option: (problem.cost[site, option], problem.damage[:, site, option].tolist()))


def _lower(problem: Problem, choice: Choice, site: int) -> Choice | None:
    cheaper = [o for o in _by_cost(problem, site) if problem.cost[site, o] < problem.cost[site, choice[site]]]
    return (*choice[:site], cheaper[-1], *choice[site + 1 :]) if cheaper else None


def _load(problem: Problem, budgets: Budgets) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[site, option] damage of each alone, as a share of the budget of which it takes most."""
    limits = np.array([budgets.get(metric, math.inf) for metric in problem.metrics])
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (problem.damage / limits[:, None, None]).max(axis=0)
    return shares
