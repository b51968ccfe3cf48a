"""Settings of every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # librosa's compiled functions crash where two processes fill numba's cache at once (numba issues 4807, 10128).
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".numba_cache" / worker)

# One thread, as the search itself computes; two spinning on a busy machine can be ten times slower than one.
torch.set_num_threads(1)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Studies made once for a whole module keep their damages here, those of their processes too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PRECISION_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of damages of each test's own: what one measured, no other finds."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PRECISION_SEARCH_CACHE", str(folder))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what mostly waits, a cluster's nodes: other files run beside it."""
    items.sort(key=lambda item: item.path.name != "test_cluster.py")
