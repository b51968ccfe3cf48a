"""The solver under limits, with boundaries and groups, against enumeration by the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precision.search.boundary import Boundary
from precision.search.budget import BudgetError
from precision.search.problem import Problem
from precision.search.solve import solve
from tests.precision.enumeration import SETTINGS, anchored, every_choice, power, problems, taken, within


def chain(costs, boundaries=(), usage=None, damage=None) -> Problem:
    costs = np.asarray(costs, dtype=float)
    return Problem(
        sites=tuple("abcdef"[: len(costs)]),
        options=(tuple("xyz"[: costs.shape[1]]),) * len(costs),
        cost=costs,
        metrics=("lsd_db",),
        damage=np.zeros((1, *costs.shape)) if damage is None else np.asarray(damage, dtype=float),
        usage=usage or {},
        boundaries=tuple(boundaries),
    )


@SETTINGS
@given(st.data())
def test_the_cheapest_within_budgets_and_limits_is_that_of_enumeration(data):
    problem = data.draw(problems())
    budgets, limits = anchored(data.draw, problem)
    fitting = [choice for choice in every_choice(problem) if within(problem, budgets, limits, choice)]
    costs = [taken(problem, "cost", choice) for choice in fitting]
    (found,) = solve(problem, budgets, limits=limits)
    assert found.choice in fitting
    assert found.cost == pytest.approx(min(costs), abs=1e-8)
    assert found.cost == pytest.approx(taken(problem, "cost", found.choice))
    assert all(
        problem.total(name, found.choice) == pytest.approx(taken(problem, name, found.choice)) for name in limits
    )
    everything = [taken(problem, "cost", choice) for choice in every_choice(problem)]
    assert found.slack == (min(costs) <= min(everything) + 1e-8)


@SETTINGS
@given(st.data())
def test_the_best_five_are_those_of_enumeration(data):
    problem = data.draw(problems(sites=4))
    budgets, limits = anchored(data.draw, problem)
    apart = data.draw(st.integers(1, 3))
    expected = []
    ranked = sorted(
        (round(taken(problem, "cost", choice), 7), round(load, 6), choice)
        for choice in every_choice(problem)
        if within(problem, budgets, limits, choice) and is_efficient(problem, choice)
        for load in [sum(power(problem, m, choice) / top**2 for m, top in budgets.items() if top > 0)]
    )
    for _, _, choice in ranked:
        if all(distance(problem, choice, other) >= apart for other in expected):
            expected.append(choice)
    assert [one.choice for one in solve(problem, budgets, k=5, limits=limits, apart=apart)] == expected[:5]
    rest = [one for one in expected if distance(problem, one, expected[0]) >= apart]
    found = solve(problem, budgets, exclude=expected[:1], limits=limits, apart=apart)
    assert [one.choice for one in found] == rest[:1]


@SETTINGS
@given(problems())
def test_an_option_is_left_out_only_where_another_is_no_worse_in_anything(problem):
    for index, unit in enumerate(problem.units):
        assert unit.efficient.any()
        for choice in every_choice(problem):
            selection = problem.selection(choice)
            if unit.efficient[selection[index]]:
                continue
            others = [
                problem.choice((*selection[:index], int(option), *selection[index + 1 :]))
                for option in np.flatnonzero(unit.efficient)
            ]
            assert any(
                all(
                    taken(problem, what, other) <= taken(problem, what, choice) + 1e-9
                    for what in ("cost", *problem.usage)
                )
                and all(power(problem, what, other) <= power(problem, what, choice) + 1e-9 for what in problem.metrics)
                for other in others
            )


def is_efficient(problem, choice) -> bool:
    return all(unit.efficient[option] for unit, option in zip(problem.units, problem.selection(choice), strict=True))


def distance(problem, one, other) -> int:
    return sum(a != b for a, b in zip(problem.selection(one), problem.selection(other), strict=True))


@SETTINGS
@given(st.data())
def test_what_cannot_be_met_is_said_with_what_can(data):
    problem = data.draw(problems(sites=4))
    budgets, limits = anchored(data.draw, problem)
    tighter = data.draw(st.sampled_from([0.3, 0.8]))
    budgets = {name: tighter * budget for name, budget in budgets.items()}
    limits = {name: tighter * most for name, most in limits.items()}
    choices = every_choice(problem)
    if any(within(problem, budgets, limits, choice) for choice in choices):
        assert solve(problem, budgets, limits=limits)
        return
    with pytest.raises(BudgetError) as caught:
        solve(problem, budgets, limits=limits)
    error = caught.value
    for name, least in error.least.items():
        values = [taken(problem, name, c) if name in limits else math.sqrt(power(problem, name, c)) for c in choices]
        assert least == pytest.approx(min(values), abs=1e-9)
    if error.metric is not None:
        assert error.reachable == error.least[error.metric] > error.budget
        return
    assert "together" in str(error)
    limited = [choice for choice in choices if within(problem, {}, limits, choice)]

    def scale(choice) -> float:
        parts = [(power(problem, name, choice), top**2) for name, top in budgets.items()] if limited else []
        parts += [] if limited else [(taken(problem, name, choice), top) for name, top in limits.items()]
        largest = max((math.inf if top == 0.0 else value / top for value, top in parts if value > 0.0), default=0.0)
        return math.sqrt(largest) if limited else largest

    assert error.reachable == pytest.approx(min(scale(choice) for choice in limited or choices))
    assert ("limits" in str(error).split("together")[0]) == (not limited)


def test_a_boundary_makes_neighbours_alike():
    costs = [[3.0, 1.0], [1.0, 1.9], [3.0, 1.0]]
    unlike = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert solve(chain(costs), {})[0].choice == (1, 0, 1)
    problem = chain(costs, [Boundary(0, 1, unlike), Boundary(1, 2, unlike)])
    (found,) = solve(problem, {})
    assert (found.choice, found.cost, problem.total_cost((1, 0, 1))) == ((1, 1, 1), pytest.approx(3.9), 5.0)


def test_a_boundary_inside_of_a_group_is_part_of_its_cost_and_several_add_up():
    table = np.arange(9.0).reshape(3, 3)
    problem = Problem(
        sites=("a", "b", "c"),
        options=(("x", "y", "z"), ("z", "x", "y"), ("x", "y", "z")),
        cost=np.ones((3, 3)),
        metrics=("lsd_db",),
        damage=np.zeros((1, 3, 3)),
        groups=((0, 1),),
        boundaries=(Boundary(0, 1, table), Boundary(0, 2, table), Boundary(2, 1, table))[:2],
    )
    assert problem.units[0].cost.tolist() == [2.0 + 1.0, 2.0 + 5.0, 2.0 + 6.0]
    twice = Problem(
        sites=problem.sites,
        options=problem.options,
        cost=problem.cost,
        metrics=problem.metrics,
        damage=problem.damage,
        groups=((0, 1),),
        boundaries=(Boundary(0, 2, table), Boundary(2, 1, table)),
    )
    (link,) = twice.links
    assert link.cost[0, 2] == table[0, 2] + table[2, 1]
    assert link.cost[1, 0] == table[1, 0] + table[0, 2]


def test_an_option_that_costs_more_by_itself_stays_where_a_neighbour_may_make_it_cheaper():
    unlike = np.array([[0.0, 5.0], [5.0, 0.0]])
    assert chain([[1.0, 2.0], [9.0, 1.0]]).units[0].efficient.tolist() == [True, False]
    assert chain([[1.0, 2.0], [9.0, 1.0]], [Boundary(0, 1, unlike)]).units[0].efficient.tolist() == [True, True]
    assert solve(chain([[1.0, 2.0], [9.0, 1.0]], [Boundary(0, 1, unlike)]), {})[0].choice == (1, 1)
    like = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert chain([[1.0, 2.0], [9.0, 1.0]], [Boundary(0, 1, like)]).units[0].efficient.tolist() == [True, False]


def test_limits_count_what_boundaries_use_and_name_cost_as_well():
    joules = {"joules": np.array([[2.0, 1.0], [2.0, 1.0]])}
    cast = Boundary(0, 1, np.zeros((2, 2)), {"joules": np.array([[0.0, 3.0], [3.0, 0.0]])})
    problem = chain([[1.0, 2.0], [1.0, 2.0]], [cast], usage=joules)
    assert [one.choice for one in solve(problem, {}, k=4, limits={"joules": 4.0})] == [(0, 0), (1, 1)]
    assert [one.choice for one in solve(problem, {}, k=4, limits={"joules": 4.0, "cost": 3.0})] == [(0, 0)]
    assert problem.total("joules", (0, 1)) == 6.0
    assert solve(problem, {}, limits={"joules": math.inf})[0].slack


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({"joule": 1.0}, r"names 'joule'.*did you mean 'joules'"),
        ({"joules": math.nan}, r"must be >= 0, got nan"),
        ({"joules": 1.0}, r"no choice takes less than 2\.0"),
        ({"cost": 0.5}, r"limit of cost is 0\.5, but no choice takes less than 1\.0"),
    ],
)
def test_limits_that_mean_nothing_or_are_out_of_reach(limits, match):
    problem = chain([[1.0, 2.0]], usage={"joules": np.array([[3.0, 2.0]])})
    with pytest.raises(ValueError, match=match):
        solve(problem, {}, limits=limits)


def test_every_mistake_of_usages_and_boundaries_is_named_at_once():
    with pytest.raises(ValueError, match="boundary") as caught:
        chain(
            [[1.0, 2.0]] * 4,
            [
                Boundary(0, 1, np.array([[0.0, -1.0], [0.0, 0.0]])),
                Boundary(1, 2, np.zeros(2)),
                Boundary(3, 2, np.zeros((2, 2)), {"amperes": np.zeros((2, 2))}),
                Boundary(2, 9, np.zeros((2, 2))),
                Boundary(2, 3, np.zeros((2, 2)), {"joules": np.full((2, 2), math.nan)}),
            ],
            usage={"joules": np.array([[1.0, math.inf]] * 4)},
        )
    message = str(caught.value)
    for part in (
        "a, y: joules must be finite",
        "a and b: cost must be finite and >= 0",
        "b and c: cost has shape (2,)",
        "c is the second of two",
        "uses ['amperes']",
        "sites 2 and 9",
        "c and d: joules must be finite",
    ):
        assert part in message
    with pytest.raises(ValueError, match=r"circle: a, b"):
        chain([[1.0], [1.0]], [Boundary(0, 1, np.zeros((1, 1))), Boundary(1, 0, np.zeros((1, 1)))])
    with pytest.raises(ValueError, match=r"usage of joules has shape.*'cost'"):
        chain([[1.0]], usage={"joules": np.ones(3), "cost": np.ones((1, 1))})


def test_what_stands_at_options_that_may_not_be_chosen_has_no_meaning():
    cast = Boundary(0, 1, np.array([[0.0, math.nan, 7.0], [math.nan, math.nan, 7.0]]))
    problem = chain([[1.0, math.inf], [1.0, 0.5]], [cast], damage=[[[0.0, 0.0], [0.0, math.inf]]])
    assert [one.choice for one in solve(problem, {}, k=3)] == [(0, 0)]
    assert problem.total_cost((1, 0)) == math.inf


def test_tables_may_be_wider_than_the_sites_have_options():
    wide = Boundary(0, 1, np.array([[0.0, 9.0], [9.0, 9.0]]), {"joules": np.pad([[2.0]], (0, 3))})
    problem = chain([[1.0], [1.0]], [wide], usage={"joules": np.ones((2, 1))})
    assert (solve(problem, {})[0].cost, problem.total("joules", (0, 0))) == (2.0, 4.0)


def test_limits_of_zero_that_exclude_each_other_are_helped_by_no_scale():
    problem = chain([[1.0, 1.0]], usage={"joules": np.array([[0.0, 1.0]]), "usd": np.array([[1.0, 0.0]])})
    with pytest.raises(BudgetError, match="no common scale helps") as caught:
        solve(problem, {}, limits={"joules": 0.0, "usd": 0.0})
    assert caught.value.reachable == math.inf


def test_solutions_apart_need_a_number_of_units():
    with pytest.raises(ValueError, match="at least 1 unit, got apart = 0"):
        solve(chain([[1.0]]), {}, apart=0)
