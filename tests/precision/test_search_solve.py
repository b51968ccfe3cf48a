"""The solver against enumeration, and what it refuses."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.search.budget import BudgetError
from precision.search.problem import Choice, Problem
from precision.search.solve import front, solve

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


def make(cost, damage, *, groups=(), metrics=None) -> Problem:
    cost, damage = np.asarray(cost, dtype=float), np.asarray(damage, dtype=float)
    return Problem(
        sites=tuple(f"s{i}" for i in range(cost.shape[0])),
        options=(tuple(f"o{i}" for i in range(cost.shape[1])),) * cost.shape[0],
        cost=cost,
        metrics=metrics or tuple(f"m{i}" for i in range(damage.shape[0])),
        damage=damage,
        groups=groups,
    )


def every_choice(problem: Problem) -> list[Choice]:
    """All choices of efficient options, by the definition."""
    per_unit = [range(len(unit.picks)) for unit in problem.units]
    kept = [
        [
            option
            for option in options
            if not any(
                other != option
                and unit.cost[other] <= unit.cost[option]
                and (unit.power[:, other] <= unit.power[:, option]).all()
                and (
                    unit.cost[other] < unit.cost[option]
                    or (unit.power[:, other] < unit.power[:, option]).any()
                    or other < option
                )
                for other in options
            )
        ]
        for unit, options in zip(problem.units, per_unit, strict=True)
    ]
    return [problem.choice(selection) for selection in itertools.product(*kept)]


def by_enumeration(problem: Problem, budgets) -> list[Choice]:
    """Choices within the budgets, by cost, then load, then order; near ties are one."""
    fitting = []
    for choice in every_choice(problem):
        power = {name: amplitude**2 for name, amplitude in problem.predicted(choice).items()}
        if all(power[name] <= budget**2 * (1 + 1e-9) for name, budget in budgets.items()):
            load = sum(power[name] / budget**2 for name, budget in budgets.items() if budget > 0)
            fitting.append((round(problem.total_cost(choice), 7), round(load, 6), choice))
    return [choice for _, _, choice in sorted(fitting)]


@st.composite
def problems(draw, whole: bool = False):
    sites, options, metrics = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if whole:
        cost = generator.integers(0, 4, (sites, options)).astype(float)
        damage = np.sqrt(generator.integers(0, 4, (metrics, sites, options)).astype(float))
    else:
        cost = generator.lognormal(0, 1, (sites, options))
        damage = generator.lognormal(0, 1.5, (metrics, sites, options))
    refused = generator.random((sites, options)) < 0.2
    refused[:, 0] = False
    cost[refused] = np.inf
    damage[:, refused] = np.nan
    groups = ((0, sites - 1),) if sites > 2 and draw(st.booleans()) else ()
    problem = make(cost, damage, groups=groups)
    everything = every_choice(problem)
    anchor = problem.predicted(everything[draw(st.integers(0, len(everything) - 1))])
    room = draw(st.sampled_from([1.0, 1.01, 1.5]))
    return problem, {name: room * anchor[name] for name in problem.metrics}


@SETTINGS
@given(problems())
def test_best_five_are_those_of_enumeration(case):
    problem, budgets = case
    expected = by_enumeration(problem, budgets)
    found = solve(problem, budgets, k=5)
    assert [one.choice for one in found] == expected[:5]
    ceiling = all(
        problem.predicted(min(every_choice(problem), key=problem.total_cost))[name] <= budget
        for name, budget in budgets.items()
    )
    assert found[0].slack == ceiling


@SETTINGS
@given(problems(whole=True))
def test_ties_go_to_the_lower_damage_and_then_to_the_first(case):
    problem, budgets = case
    expected = by_enumeration(problem, budgets)
    assert [one.choice for one in solve(problem, budgets, k=4)] == expected[:4]
    assert [one.choice for one in solve(problem, budgets, exclude=expected[:2], k=2)] == expected[2:4]


def test_one_at_a_time_is_all_at_once():
    generator = np.random.default_rng(3)
    problem = make(generator.lognormal(0, 1, (9, 4)), generator.lognormal(0, 1, (2, 9, 4)))
    budgets = {"m0": 4.0, "m1": 4.0}
    together = solve(problem, budgets, k=6)
    tried: list[Choice] = []
    for expected in together:
        (found,) = solve(problem, budgets, exclude=tried)
        assert found == expected
        tried.append(found.choice)


def test_large_problem_with_equal_layers_is_repeatable_and_quiet(capfd):
    generator = np.random.default_rng(5)
    cost = np.repeat(generator.lognormal(0, 1, (6, 1)), 8, axis=0) * np.array([1.0, 0.5, 0.3, 0.25])
    damage = generator.lognormal(0, 1, (2, 48, 1)) * np.array([0.0, 0.1, 0.4, 1.0])
    problem = make(cost, damage)
    first, second = (solve(problem, {"m0": 5.0, "m1": 6.0}, k=3) for _ in range(2))
    assert first == second
    assert [one.cost for one in first] == sorted(one.cost for one in first)
    assert all(one.damage["m0"] <= 5.0 + 1e-6 for one in first)
    assert capfd.readouterr().out == ""


def test_groups_agree_by_name_where_the_indices_differ():
    problem = Problem(
        sites=("q", "k"),
        options=(("full", "low"), ("low", "full", "lower")),
        cost=np.array([[4.0, 1.0, np.inf], [1.0, 4.0, 0.5]]),
        metrics=("lsd_db",),
        damage=np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 2.0]]]),
        groups=((0, 1),),
    )
    assert [one.choice for one in solve(problem, {"lsd_db": 2.0}, k=9)] == [(1, 0), (0, 1)]


def test_a_budget_below_the_floor_says_what_is_reachable():
    problem = make([[2.0, 1.0]] * 4, [[[1.0, 3.0]] * 4])
    with pytest.raises(BudgetError, match=r"budget of m0 is 1\.5, but no choice is predicted below 2\.0") as caught:
        solve(problem, {"m0": 1.5})
    assert (caught.value.metric, caught.value.budget, caught.value.reachable) == ("m0", 1.5, 2.0)
    assert solve(problem, {"m0": 2.0})[0].choice == (0, 0, 0, 0)


def test_budgets_that_can_only_be_met_apart_say_by_how_much():
    problem = make([[1.0, 1.0]], [[[0.0, 2.0]], [[2.0, 0.0]]])
    with pytest.raises(BudgetError, match="together") as caught:
        solve(problem, {"m0": 1.0, "m1": 1.0})
    assert caught.value.metric is None
    assert caught.value.reachable == pytest.approx(2.0)


def test_a_budget_at_the_ceiling_is_flagged():
    problem = make([[2.0, 1.0]] * 4, [[[0.0, 1.0]] * 4])
    assert [(one.choice, one.slack) for one in solve(problem, {"m0": 2.0})] == [((1, 1, 1, 1), True)]
    assert solve(problem, {"m0": 1.99})[0].slack is False
    assert solve(problem, {})[0].slack is True
    assert solve(problem, {"m0": math.inf})[0].slack is True


def test_a_budget_of_zero_allows_what_does_no_damage():
    problem = make([[3.0, 2.0, 1.0]] * 2, [[[0.0, 0.0, 1.0]] * 2])
    assert [one.choice for one in solve(problem, {"m0": 0.0}, k=5)] == [(1, 1)]


@pytest.mark.parametrize("budget", [math.nan, -1.0])
def test_a_budget_that_means_nothing_raises(budget):
    with pytest.raises(BudgetError, match="must be >= 0, got"):
        solve(make([[1.0]], [[[0.0]]]), {"m0": budget})


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'lsd_db'"):
        solve(make([[1.0]], [[[0.0]]], metrics=("lsd_db",)), {"lsd": 1.0})


def test_nothing_is_left_when_all_are_excluded():
    problem = make([[2.0, 1.0]], [[[0.0, 1.0]]])
    assert solve(problem, {"m0": 1.0}, exclude=[(0,), (1,)]) == []
    assert len(solve(problem, {"m0": 1.0}, k=7)) == 2


def test_front_falls_from_the_safest_to_the_cheapest():
    generator = np.random.default_rng(1)
    problem = make(
        generator.lognormal(0, 1, (8, 1)) * [1, 0.5, 0.2], generator.lognormal(0, 1, (1, 8, 1)) * [0, 0.1, 1]
    )
    points = front(problem, ["m0"], 12)
    assert points[-1].choice == (0,) * 8
    assert points[0].choice == (2,) * 8
    costs, damages = [one.cost for one in points], [one.damage["m0"] for one in points]
    assert costs == sorted(costs)
    assert damages == sorted(damages, reverse=True)
    assert len(points) > 5


def test_every_mistake_of_a_problem_is_named_at_once():
    with pytest.raises(ValueError, match="no allowed option") as caught:
        Problem(
            sites=("a", "b", "c"),
            options=(("x", "y"), ("x",), ("x", "y")),
            cost=np.array([[1.0, math.nan], [1.0, 1.0], [math.inf, math.inf]]),
            metrics=("lsd_db",),
            damage=np.array([[[-1.0, 0.0], [math.nan, 0.0], [0.0, 0.0]]]),
            groups=((0, 7), (0, 1)),
        )
    message = str(caught.value)
    for part in (
        "a, y: cost",
        "a, x: damage",
        "b, x: damage",
        "b: columns beyond",
        "c: no allowed",
        "site 7",
        "a is in",
    ):
        assert part in message


def test_shapes_are_named():
    with pytest.raises(ValueError, match=r"cost has shape \(2,\).*; damage has shape"):
        Problem(("a",), (("x",),), np.ones(2), ("m",), np.ones((1, 1, 2)))


def test_a_group_with_no_option_in_common_is_refused():
    with pytest.raises(ValueError, match=r"in common.*a\+b"):
        Problem(("a", "b"), (("x",), ("y",)), np.ones((2, 1)), ("m",), np.ones((1, 2, 1)), ((0, 1),))


def test_a_problem_keeps_its_own_arrays():
    cost = np.ones((1, 1))
    problem = make(cost, [[[0.5]]])
    cost[0, 0] = 9.0
    assert problem.total_cost((0,)) == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.cost[0, 0] = 2.0


def test_infinite_damage_is_never_chosen():
    problem = make([[2.0, 1.0]], [[[0.0, math.inf]]])
    assert [one.choice for one in solve(problem, {}, k=3)] == [(0,)]


def test_the_room_loads_no_torch():
    code = "import sys, precision.search.driver; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
