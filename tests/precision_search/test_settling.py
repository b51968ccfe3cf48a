import numpy as np
import pytest

from precision_search.settling import HARMLESS, HOPELESS, first_part, settle

SITES = [f"site{index}" for index in range(40)]
SCHEMES = {"fine": 1e-3, "coarse": 1e-1, "wild": 30.0}
BUDGETS = {"lsd_db": 2.0, "phase_rad": 0.2}


def options(spread=0.1, slope=1.0):
    """What is foretold and what is true of a model whose damage follows its forecast, with a spread."""
    draw = np.random.default_rng(0)
    foretold, true = {}, {}
    for site in SITES:
        weight = np.exp(draw.normal())
        for scheme, size in SCHEMES.items():
            change = weight * size * np.exp(0.1 * draw.normal())
            foretold[site, scheme] = (change, change * np.exp(2 * draw.normal()), 0.0)
            noise = np.exp(spread * draw.normal(size=2))
            true[site, scheme] = {"lsd_db": 0.5 * change**slope * noise[0], "phase_rad": 0.05 * change * noise[1]}
    return foretold, true


def settled(foretold, true, budgets=BUDGETS):
    part = first_part(foretold)
    return part, settle(foretold, {key: true[key] for key in part}, budgets, len(SITES))


def test_the_first_part_is_spread_over_what_is_foretold_of_every_scheme():
    foretold, _ = options()
    part = first_part(foretold)
    assert part == [key for key in foretold if key in set(part)]
    for scheme in SCHEMES:
        changes = {key: foretold[key][0] for key in foretold if key[1] == scheme}
        mine = [changes[key] for key in part if key[1] == scheme]
        assert len(mine) == 6
        assert min(mine) == min(changes.values())
        assert max(mine) == max(changes.values())


def test_what_is_settled_is_right_and_bounded():
    foretold, true = options()
    part, found = settled(foretold, true)
    assert {key[1] for key, option in found.items() if option.why == "harmless"} >= {"fine"}
    assert {key[1] for key, option in found.items() if option.why == "hopeless"} == {"wild"}
    assert not set(part) & set(found)
    assert len(found) > 30
    for key, option in found.items():
        if option.why == "harmless":
            assert all(true[key][metric] <= option.damage[metric] for metric in BUDGETS)
            assert all(option.damage[metric] <= BUDGETS[metric] * (HARMLESS / len(SITES)) ** 0.5 for metric in BUDGETS)
        else:
            assert any(true[key][metric] > HOPELESS * BUDGETS[metric] for metric in BUDGETS)
            assert any(option.damage[metric] > HOPELESS * BUDGETS[metric] for metric in BUDGETS)


def test_all_harmless_options_together_take_little_of_a_budget():
    foretold, true = options()
    _, found = settled(foretold, true)
    worst = {}
    for (site, _), option in found.items():
        if option.why == "harmless":
            worst[site] = max(worst.get(site, 0.0), option.damage["lsd_db"])
    assert np.sqrt(sum(value**2 for value in worst.values())) <= (HARMLESS**0.5 + 1e-9) * BUDGETS["lsd_db"]


@pytest.mark.parametrize(("spread", "slope"), [(0.1, 3.0), (3.0, 1.0)])
def test_where_the_forecast_is_of_something_else_little_or_nothing_is_settled(spread, slope):
    foretold, true = options(spread, slope)
    _, found = settled(foretold, true)
    assert not found


def test_an_option_is_hopeless_only_where_another_keeps_the_budgets():
    foretold, true = options()
    _, found = settled(foretold, true)
    site = next(key[0] for key, option in found.items() if option.why == "hopeless")
    alone = {key: value for key, value in foretold.items() if key[0] != site or key[1] == "wild"}
    part = [key for key in first_part(foretold) if key in alone]
    again = settle(alone, {key: true[key] for key in part}, BUDGETS, len(SITES))
    assert (site, "wild") in found
    assert (site, "wild") not in again


def test_what_no_gradient_sees_or_has_no_value_is_not_settled():
    foretold, true = options()
    _, found = settled(foretold, true)
    unseen, broken = [key for key in found if key[1] == "fine"][:2]
    for key, views in ((unseen, (0.0, 0.0, 0.0)), (broken, (np.nan, np.inf, 0.0))):
        foretold[key] = views
    _, again = settled(foretold, true)
    assert unseen not in again
    assert broken not in again
    part = first_part(foretold)
    assert settle(foretold, {key: true[key] for key in part}, {}, len(SITES)) == {}
    assert settle(foretold, {}, BUDGETS, len(SITES)) == {}


def test_a_measurement_without_a_value_does_not_bend_the_line():
    foretold, true = options()
    part = first_part(foretold)
    measured = {key: true[key] for key in part}
    last = part[-1]
    measured[last] = dict.fromkeys(BUDGETS, np.inf)
    assert settle(foretold, measured, BUDGETS, len(SITES))
