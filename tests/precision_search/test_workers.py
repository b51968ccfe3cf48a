"""Who is asked for auditions: the same answers from each, in order, and nobody left behind."""

import time

import numpy as np
import pytest

from precision.policy import Policy
from precision_search.auditions import Auditions
from precision_search.pools import Here, Processes
from precision_search.renders import load_render, store_render
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import Workers


@pytest.fixture(scope="module")
def setting(made):
    return make_setting(read_recipe(str(made / "tiny.yaml"), ()))


@pytest.fixture(scope="module")
def policy(setting):
    return Policy.uniform([site.name for site in setting.sites], setting.recipe.baseline)


@pytest.mark.slow
def test_processes_give_what_this_one_gives_in_order_and_tell_of_each(setting, policy):
    tasks = [(policy, index) for index in range(len(setting.held_back_clips))]
    told: dict[int, object] = {}
    here = list(Here(Auditions(setting, None, {})).each("render_exactly", tasks, told.setdefault))
    assert list(told) == [0, 1]
    pool = Processes(setting, None, 2, {}, None)
    try:
        told.clear()
        there = list(pool.each("render_exactly", tasks, told.setdefault))
        with pytest.raises(ValueError, match="no such site"):
            list(pool.each("damage", [("no such site", setting.recipe.baseline, ("lsd_db",))]))
    finally:
        pool.close()
    assert sorted(told) == [0, 1]
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.samples, other.samples)


def test_exact_renders_are_stored_as_they_are_made_and_not_made_twice(setting, policy, tmp_path):
    paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
    with Workers(setting, None, 1, {}) as crew:
        made = crew.render_exactly(policy, [None, *paths[1:]])
        first, second = made
        assert not paths[0].exists()
        assert np.array_equal(load_render(paths[1]).samples, second.samples)
        store_render(paths[0], second)  # something else than what would be made
        found = list(crew.render_exactly(policy, paths))
    assert np.array_equal(found[0].samples, second.samples), "what is there is read, and not made again"
    assert not np.array_equal(found[0].samples, first.samples)


def test_processes_in_the_middle_of_something_are_ended_and_not_waited_for(setting):
    begun = time.monotonic()
    pool = Processes(setting, None, 2, {}, None)
    pool._pool.submit(time.sleep, 60)
    (process,) = pool._pool._processes.values()
    pool.close()
    process.join(20)
    assert process.exitcode is not None
    assert time.monotonic() - begun < 40
