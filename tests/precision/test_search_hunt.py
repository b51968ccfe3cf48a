"""The search against enumeration: additive models, gates that do not add, limits, the best audio."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.search.budget import BudgetError
from precision.search.driver import search
from precision.search.outcome import Evaluation
from precision.search.problem import Boundary, Choice, Problem

SITES = 5


def random_problem(seed: int, metrics: int = 1, *, linked: bool = False, grouped: bool = False) -> Problem:
    generator = np.random.default_rng(seed)
    shape = (metrics, SITES, 3)
    return Problem(
        sites=tuple("abcde"),
        options=(("full", "half", "low"),) * SITES,
        cost=generator.lognormal(0.0, 0.5, (SITES, 1)) * np.array([1.0, 0.6, 0.3]),
        metrics=tuple(f"m{row}" for row in range(metrics)),
        damage=generator.lognormal(0.0, 0.7, shape) * np.array([0.01, 0.2, 1.0]),
        groups=((0, 4),) if grouped else (),
        usage={"bytes": generator.lognormal(0.0, 0.5, (SITES, 1)) * np.array([1.0, 0.5, 0.25])},
        boundaries=tuple(
            Boundary(site, site + 1, generator.uniform(0.0, 0.3, (3, 3)) * (1.0 - np.eye(3)))
            for site in (range(SITES - 1) if linked else ())
        ),
    )


def choices(problem: Problem) -> list[Choice]:
    spans = [range(len(unit.picks)) for unit in problem.units]
    return [problem.choice(selection) for selection in itertools.product(*spans)]


def additive(problem: Problem, share: float) -> tuple[dict[str, float], Callable[[Choice], Evaluation]]:
    """Gates at a share of what the cheapest choice damages, which hold exactly what the table foretells."""
    ceiling = problem.predicted((2,) * SITES)
    budgets = {name: share * value for name, value in ceiling.items()}

    def evaluate(choice: Choice) -> Evaluation:
        ratio = {name: value / budgets[name] for name, value in problem.predicted(choice).items()}
        worst = max(ratio.values()) - 1.0
        return Evaluation(worst <= 0.0, worst, ratio)

    return budgets, evaluate


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 0.9),
    metrics=st.integers(1, 2),
    linked=st.booleans(),
    grouped=st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_where_damage_adds_the_optimum_is_found(seed, share, metrics, linked, grouped):
    problem = random_problem(seed, metrics, linked=linked, grouped=grouped)
    budgets, evaluate = additive(problem, share)
    kept = [choice for choice in choices(problem) if evaluate(choice).kept]
    outcome = search(problem, budgets, evaluate, evaluations=60)
    if not kept:
        assert outcome.reason == "unreachable"
    else:
        assert outcome.best.cost == pytest.approx(min(map(problem.total_cost, kept)), rel=1e-9)


@given(seed=st.integers(0, 10_000), bias=st.floats(0.3, 3.0), slope=st.floats(0.7, 1.2))
@settings(max_examples=4, deadline=None)
def test_errors_of_single_sites_bias_and_saturation_are_learned(seed, bias, slope):
    problem = random_problem(seed)
    budgets, _ = additive(problem, 0.4)
    errors = np.random.default_rng(seed).lognormal(0.0, 0.3, problem.damage.shape)

    def evaluate(choice: Choice) -> Evaluation:
        power = sum((errors * problem.damage)[0, site, option] ** 2 for site, option in enumerate(choice))
        ratio = bias * (math.sqrt(power) / budgets["m0"]) ** slope
        return Evaluation(ratio <= 1.0, ratio - 1.0, {"m0": ratio})

    kept = [problem.total_cost(choice) for choice in choices(problem) if evaluate(choice).kept]
    outcome = search(problem, budgets, evaluate, evaluations=40, candidates=30)
    if kept:
        assert outcome.best.cost <= 1.02 * min(kept)


def hidden(problem: Problem, seed: int):
    """An additive gate that is loose, and one that is not in the table: which sites hurt it, it alone knows."""
    budgets, additively = additive(problem, 0.9)
    weight = np.random.default_rng(seed).dirichlet(np.ones(SITES) * 0.7)

    def evaluate(choice: Choice) -> Evaluation:
        found = additively(choice)
        other = float(weight @ (np.array(choice) / 2.0) ** 2) - 0.35
        return Evaluation(found.kept and other <= 0.0, max(found.worst, other), found.ratio)

    return budgets, evaluate


@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_a_gate_that_is_not_in_the_table_is_learned(seed):
    problem = random_problem(seed)
    budgets, evaluate = hidden(problem, seed)
    kept = [problem.total_cost(choice) for choice in choices(problem) if evaluate(choice).kept]
    outcome = search(problem, budgets, evaluate, evaluations=40, candidates=40)
    assert outcome.best is not None
    assert outcome.best.cost <= 1.05 * min(kept)


@pytest.mark.parametrize("seed", range(4))
def test_gates_that_only_a_mixture_keeps_are_reached(seed):
    problem = random_problem(seed)
    budgets, additively = additive(problem, 0.8)

    def evaluate(choice: Choice) -> Evaluation:
        """A level that full precision raises and low precision lowers, so that it holds in the middle alone."""
        found = additively(choice)
        level = abs(sum(choice) - SITES) / SITES - 0.45
        return Evaluation(found.kept and level <= 0.0, max(found.worst, level), found.ratio)

    assert not evaluate((0,) * SITES).kept
    kept = [problem.total_cost(choice) for choice in choices(problem) if evaluate(choice).kept]
    outcome = search(problem, budgets, evaluate, evaluations=60)
    assert outcome.best is not None
    assert outcome.best.cost <= 1.15 * min(kept)


def test_unreachable_names_the_nearest_after_unlike_choices_were_tried():
    problem = random_problem(3)
    budgets, _ = additive(problem, 0.5)
    outcome = search(
        problem, budgets, lambda choice: Evaluation(False, 0.1 + abs(sum(choice) - 6) / 10), evaluations=60
    )
    assert (outcome.best, outcome.reason) == (None, "unreachable")
    stages = {trial.stage for trial in outcome.tried}
    assert {"safest", "uniform"} <= stages
    assert {(0,) * SITES, (1,) * SITES, (2,) * SITES} <= {trial.choice for trial in outcome.tried}
    assert "neither that of least damage nor any unlike it" in outcome.message
    assert outcome.nearest.evaluation.worst < 0.5


@given(seed=st.integers(0, 10_000), share=st.floats(0.2, 0.9), most=st.floats(0.3, 0.95))
@settings(max_examples=6, deadline=None)
def test_the_cheapest_within_limits(seed, share, most):
    problem = random_problem(seed)
    budgets, evaluate = additive(problem, share)
    limits = {"bytes": most * problem.total("bytes", (0,) * SITES)}
    within = [choice for choice in choices(problem) if problem.total("bytes", choice) <= limits["bytes"]]
    kept = [problem.total_cost(choice) for choice in within if evaluate(choice).kept]
    outcome = search(problem, budgets, evaluate, limits=limits, evaluations=60)
    assert all(problem.total("bytes", trial.choice) <= limits["bytes"] * (1 + 1e-9) for trial in outcome.tried)
    if kept:
        assert outcome.best.cost == pytest.approx(min(kept))
    else:
        assert outcome.best is None


@given(seed=st.integers(0, 10_000), most=st.floats(0.35, 0.95), noise=st.sampled_from([0.0, 0.05]))
@settings(max_examples=6, deadline=None)
def test_the_best_audio_within_limits(seed, most, noise):
    problem = random_problem(seed, 2)
    budgets, additively = additive(problem, 0.3)

    def evaluate(choice: Choice) -> Evaluation:
        factor = math.exp(noise * np.random.default_rng([seed, *choice]).normal())
        ratio = {name: value * factor for name, value in additively(choice).ratio.items()}
        worst = max(ratio.values()) - 1.0
        return Evaluation(worst <= 0.0, worst, ratio)

    limits = {"cost": most * problem.total_cost((0,) * SITES)}
    within = [choice for choice in choices(problem) if problem.total_cost(choice) <= limits["cost"] * (1 + 1e-9)]
    outcome = search(problem, budgets, evaluate, goal="best_audio", limits=limits, evaluations=60)
    assert {trial.choice for trial in outcome.tried} <= set(within)
    least = min(evaluate(choice).worst for choice in within)
    assert 1.0 + outcome.best.evaluation.worst <= (1.0 + least) * (1.0 + 1e-9 if noise == 0.0 else 1.05)
    assert ("within its" if least <= 0 else "beyond its") in outcome.message


@pytest.mark.parametrize("goal", ["cheapest", "best_audio"])
def test_limits_that_nothing_meets_raise(goal):
    problem = random_problem(1)
    budgets, evaluate = additive(problem, 0.5)
    with pytest.raises(BudgetError):
        search(problem, budgets, evaluate, goal=goal, limits={"bytes": 1e-6})


@pytest.mark.parametrize("goal", ["cheapest", "best_audio"])
def test_a_limited_search_that_is_cut_off_goes_the_same_way(goal):
    problem = random_problem(4, 2)
    budgets, evaluate = hidden(problem, 4)
    limits = {"bytes": 0.7 * problem.total("bytes", (0,) * SITES)}
    whole = search(problem, budgets, evaluate, goal=goal, limits=limits, evaluations=14)
    known = {trial.choice: trial.evaluation for trial in whole.tried[: len(whole.tried) // 2]}
    asked = []

    def counted(choice: Choice) -> Evaluation:
        asked.append(choice)
        return evaluate(choice)

    assert search(problem, budgets, counted, goal=goal, limits=limits, evaluations=14, known=known) == whole
    assert len(asked) == len(whole.tried) - len(known)
