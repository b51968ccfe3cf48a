"""TPE and NSGA-II on problems whose optimum is known by going through everything."""

import numpy as np
import pytest

from precision.search.best_audio import best_audio
from precision.search.exhaustive import exhaustive
from precision.search.outcome import Evaluation
from precision.search.problem import Choice, Problem
from precision.search.sampled import METHODS, sampled
from precision.search.solve import solve
from precision.search.warm import warm_starts


def drawn(seed: int, sites: int = 6) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.sort(rng.uniform(0.1, 1.0, (sites, 3)))[:, ::-1]
    damage = np.sort(rng.uniform(0.0, 1.0, (1, sites, 3)))
    return Problem(
        tuple(f"s{i}" for i in range(sites)), (tuple("abc"),) * sites, cost, ("m",), damage, usage={"seconds": cost}
    )


def gate(problem: Problem, top: float):
    """The sum of amplitudes, which no sum of powers foretells."""

    def evaluate(choice: Choice) -> Evaluation:
        value = sum(float(problem.damage[0, site, option]) for site, option in enumerate(choice))
        return Evaluation(value <= top, value / top - 1.0)

    return evaluate


@pytest.mark.parametrize("method", METHODS)
def test_it_keeps_the_gates_and_comes_near_the_optimum(method):
    problem = drawn(1)
    evaluate = gate(problem, 2.0)
    optimum = exhaustive(problem, evaluate).best.cost
    outcome = sampled(problem, evaluate, method=method, evaluations=150, seed=0)
    assert outcome.best.evaluation.kept
    assert optimum <= outcome.best.cost <= 1.1 * optimum
    choices = [trial.choice for trial in outcome.tried]
    assert len(choices) == len(set(choices)) <= 150


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_draws_the_same_and_another_does_not(method):
    problem = drawn(2)
    runs = [
        [t.choice for t in sampled(problem, gate(problem, 2.0), method=method, evaluations=30, seed=seed).tried]
        for seed in (5, 5, 6)
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("method", METHODS)
def test_it_begins_at_the_warm_choices(method):
    problem = drawn(3)
    warm = [(0,) * 6, (2, 1, 0, 0, 1, 2), (0,) * 6]
    outcome = sampled(problem, gate(problem, 2.0), method=method, evaluations=12, seed=0, warm=warm)
    assert [(trial.choice, trial.stage) for trial in outcome.tried[:2]] == [(warm[0], "warm"), (warm[1], "warm")]
    assert len(outcome.tried) == 12


@pytest.mark.parametrize("method", METHODS)
def test_the_best_audio_lies_within_the_limits(method):
    problem = drawn(4)
    evaluate = gate(problem, 2.0)
    limits = {"seconds": 0.6 * float(problem.cost[:, 0].sum())}
    best = exhaustive(problem, evaluate, goal="best_audio", limits=limits).best.evaluation.worst
    outcome = sampled(problem, evaluate, method=method, evaluations=80, seed=0, goal="best_audio", limits=limits)
    assert all(problem.total("seconds", trial.choice) <= limits["seconds"] for trial in outcome.tried)
    assert best <= outcome.best.evaluation.worst <= best + 0.15


def test_a_space_smaller_than_the_evaluations_ends():
    problem = drawn(5, sites=2)
    outcome = sampled(problem, gate(problem, 1.0), method="tpe", evaluations=40, seed=0)
    assert len(outcome.tried) <= 9
    assert outcome.best == exhaustive(problem, gate(problem, 1.0)).best or outcome.best.evaluation.kept


def test_values_that_are_no_numbers_are_taken_as_broken():
    problem = drawn(6)

    def evaluate(choice: Choice) -> Evaluation:
        return Evaluation(False, float("nan")) if 2 in choice else Evaluation(True, -0.1)

    outcome = sampled(problem, evaluate, method="nsga2", evaluations=60, seed=1)
    assert outcome.best is not None
    assert 2 not in outcome.best.choice


def test_warm_choices_begin_with_what_is_sought():
    problem = drawn(4)
    budgets, limits = {"m": 1.9}, {"seconds": 0.6 * float(problem.cost[:, 0].sum())}
    audible = best_audio(problem, budgets, limits).choice
    cheapest = solve(problem, budgets, limits=limits)[0].choice
    assert audible != cheapest
    assert warm_starts(problem, budgets, limits, 1) == (cheapest,)
    assert warm_starts(problem, budgets, limits, 1, "best_audio") == (audible,)
    every, other = (warm_starts(problem, budgets, limits, 40, goal) for goal in ("cheapest", "best_audio"))
    assert set(every) == set(other)
    assert audible in every
