"""The optimum by the gates alone, against the least over everything."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.search.boundary import Boundary
from precision.search.exhaustive import SpaceError, exhaustive, in_order, space_size
from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem
from precision.search.solve import solve


def drawn(seed: int, sites: int = 4, options: int = 3) -> Problem:
    """Random costs, a usage, two boundaries and a group."""
    rng = np.random.default_rng(seed)
    table = rng.uniform(0.0, 1.0, (options, options))
    return Problem(
        sites=tuple(f"s{i}" for i in range(sites)),
        options=(tuple("abc"[:options]),) * sites,
        cost=rng.uniform(0.1, 1.0, (sites, options)),
        metrics=("m",),
        damage=rng.uniform(0.0, 1.0, (1, sites, options)),
        groups=((0, 2),),
        usage={"bytes": rng.integers(1, 9, (sites, options)).astype(float)},
        boundaries=(Boundary(0, 1, table), Boundary(1, 3, table.T, {"bytes": np.rint(table)})),
    )


def everything(problem: Problem) -> list[Choice]:
    picks = itertools.product(*(range(len(unit.picks)) for unit in problem.units))
    return [problem.choice(pick) for pick in picks]


def not_additive(problem: Problem, seed: int):
    """A gate that no sum foretells: kept by a fixed random tenth of all choices."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(len(problem.sites), 3, len(problem.sites), 3))

    def evaluate(choice: Choice) -> Evaluation:
        worst = sum(weights[a, choice[a], b, choice[b]] for a in range(len(choice)) for b in range(a)) + 0.5
        return Evaluation(worst <= 0.0, float(worst))

    return evaluate


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_first_that_is_kept_is_the_cheapest_of_all(seed):
    problem = drawn(seed)
    evaluate = not_additive(problem, seed)
    kept = [choice for choice in everything(problem) if evaluate(choice).kept]
    outcome = exhaustive(problem, evaluate)
    if not kept:
        assert outcome.best is None
        assert outcome.reason == "unreachable"
        assert len(outcome.tried) == space_size(problem)
    else:
        assert outcome.reason == "optimal"
        assert outcome.best.cost == pytest.approx(min(map(problem.total_cost, kept)), rel=1e-12)
        assert all(trial.cost <= outcome.best.cost * (1 + 1e-8) for trial in outcome.tried)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_audio_within_a_limit_is_the_best_of_all_within_it(seed):
    problem = drawn(seed)
    evaluate = not_additive(problem, seed)
    used = sorted(problem.total("bytes", choice) for choice in everything(problem))
    top = used[len(used) // 3]
    outcome = exhaustive(problem, evaluate, goal="best_audio", limits={"bytes": top})
    within = [choice for choice in everything(problem) if problem.total("bytes", choice) <= top]
    assert outcome.best.evaluation.worst == min(evaluate(choice).worst for choice in within)
    assert {trial.choice for trial in outcome.tried} == set(within)


def test_it_finds_what_an_additive_solver_does_not_foretell():
    problem = Problem(("a", "b"), (("high", "low"),) * 2, [[3, 1], [3, 2]], ("m",), [[[0, 1], [0, 1]]])

    def evaluate(choice: Choice) -> Evaluation:
        return Evaluation(choice == (1, 1), 0.0 if choice == (1, 1) else 1.0)  # the two errors cancel

    assert solve(problem, {"m": 1.0})[0].choice != (1, 1)
    assert exhaustive(problem, evaluate).best.choice == (1, 1)


def test_choices_come_in_order_of_cost_then_of_damage():
    problem = drawn(7)
    costs = [problem.total_cost(choice) for choice in in_order(problem, {})]
    assert costs == sorted(costs)
    assert len(costs) == space_size(problem) == 27
    equal = Problem(("a", "b"), (("x", "y"),) * 2, np.ones((2, 2)), ("m",), [[[3, 0], [0, 1]]])
    assert list(in_order(equal, {})) == [(1, 0), (1, 1), (0, 0), (0, 1)]


def test_a_space_that_is_too_large_says_how_large():
    problem = drawn(0, sites=4)
    with pytest.raises(SpaceError, match=r"27 choices \(3 units of up to 3 options\), and at most 20"):
        exhaustive(problem, lambda _: Evaluation(True, 0.0), largest=20)


def test_a_limit_that_nothing_meets_says_what_is_the_least():
    problem = drawn(0)
    least = min(problem.total("bytes", choice) for choice in everything(problem))
    with pytest.raises(SpaceError, match=f"no choice takes as little bytes as 0.5; the least is {least:g}"):
        exhaustive(problem, lambda _: Evaluation(True, 0.0), limits={"bytes": 0.5})
    with pytest.raises(ValueError, match="limits name"):
        exhaustive(problem, lambda _: Evaluation(True, 0.0), limits={"byte": 0.5})


def test_what_is_known_is_not_evaluated_again():
    problem = drawn(3)
    evaluate = not_additive(problem, 3)
    first = exhaustive(problem, evaluate)
    known = {trial.choice: trial.evaluation for trial in first.tried}

    def refuse(choice: Choice) -> Evaluation:
        raise AssertionError(choice)

    again = exhaustive(problem, refuse, known=known)
    assert again.best == first.best
    assert math.isfinite(first.best.cost)
