"""The section `search`: what is looked for, within what, and by which method."""

import pytest

from precision.recipe import load_recipe
from tests.precision.recipes import GOOD, KNOWN, mistakes


def test_the_search_is_for_the_cheapest_where_nothing_else_is_asked() -> None:
    search = load_recipe(GOOD, KNOWN).search
    assert (search.goal, search.minimize, search.method, dict(search.within)) == ("cheapest", "seconds", "exact", {})
    limits = ["search.within.seconds=0.8", "search.within.effective_bits=6.5"]
    recipe = load_recipe(GOOD, KNOWN, ["search.goal=best_audio", *limits, "search.method=tpe"])
    assert (recipe.search.goal, recipe.search.method) == ("best_audio", "tpe")
    assert dict(recipe.search.within) == {"seconds": 0.8, "effective_bits": 6.5}
    assert "joules" not in recipe.search.within
    with pytest.raises(KeyError):
        recipe.search.within["joules"]
    again = load_recipe(recipe.to_yaml(), KNOWN)
    assert (again, again.digest) == (recipe, recipe.digest)
    assert "within: {seconds: 0.8, effective_bits: 6.5}" in recipe.to_yaml()
    # A limit on what is minimized, and one above the baseline, are promises like others.
    assert dict(load_recipe(GOOD, KNOWN, ["search.within={seconds: 1.5}"]).search.within) == {"seconds": 1.5}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.goal=best_audio"], "search.within: missing, must be given with goal best_audio"),
        (["search.goal=best_audio", "search.within={seconds: null}"], "missing, must be given with goal best_audio"),
        (
            ["search.goal=best_audio", "search.within={seconds: 0.9}", "adapt={}"],
            "given, must be left out with search.goal",
        ),
        (["search.goal=loudest"], "got 'loudest', must be 'cheapest' or 'best_audio'"),
        (["search.method=nsga"], "did you mean 'nsga2'?"),
        (["search.minimize=weights"], "must be 'seconds', 'passes', 'joules', 'usd' or 'weight_bytes'"),
        (["search.within.second=0.8"], "search.within.second (--set): unknown key"),
        (["search.within.seconds=0"], "search.within.seconds (--set): got 0, must be more than 0"),
        (["search.within.usd=4.5"], "got 4.5, must be at most 4"),
        (["search.within.joules='0.8'"], "got '0.8', must be a number"),
        (["search.within.effective_bits=0.5"], "got 0.5, must be at least 1"),
        (["search.within.effective_bits=33"], "got 33, must be at most 32"),
        (["search.within=0.8"], "search.within (--set): got 0.8, must be a mapping with the keys seconds, passes"),
    ],
)
def test_a_goal_that_cannot_be_is_told(overrides: list[str], said: str) -> None:
    assert any(said in line for line in mistakes(GOOD, *overrides)), mistakes(GOOD, *overrides)
    assert len(mistakes(GOOD, *overrides)) == 1
