"""`init` for a model of each family: what it writes has no mistake."""

import pytest

from precision_search.wire import read_recipe
from tests.families.searching import command


@pytest.mark.parametrize("model", ["autoregressive", "codec", "sampler", "understanding"])
def test_what_is_written_has_no_mistake(model, tmp_path):
    path = tmp_path / "mine.yaml"
    assert command("init", model, "--out", path) == 0
    assert command("check", path) == 0
    recipe = read_recipe(str(path), ())
    assert (recipe.data.search, recipe.data.held_back, recipe.data.seconds) == (2, 3, None)
    assert len(recipe.space) >= 3
