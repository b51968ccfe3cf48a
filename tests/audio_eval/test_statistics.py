import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audio_eval.statistics import lower_bound, upper_bound


@pytest.mark.parametrize("make", [lambda r, n: r.normal(0, 1, n), lambda r, n: r.exponential(1, n)])
@pytest.mark.parametrize("count", [8, 32])
def test_agrees_with_scipy(make, count):
    values = make(np.random.default_rng(4), count)
    for ours, alternative, end in ((lower_bound, "greater", 0), (upper_bound, "less", 1)):
        theirs = stats.bootstrap(
            (values,), np.mean, confidence_level=0.95, alternative=alternative, method="BCa", n_resamples=9999
        ).confidence_interval[end]
        assert ours(values) == pytest.approx(theirs, abs=0.05 * np.std(values))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=2, max_size=12))
def test_bounds_lie_around_the_mean_within_the_scores(values):
    low, high = lower_bound(values), upper_bound(values)
    slack = 1e-9
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack
    assert low <= np.mean(values) + slack
    assert high >= np.mean(values) - slack


def test_degenerate_scores():
    assert lower_bound([0.25, 0.25, 0.25]) == upper_bound([0.25, 0.25, 0.25]) == 0.25
    assert math.isnan(lower_bound([0.1, float("nan"), 0.2]))
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        lower_bound([0.1])
    assert -1.0 <= lower_bound([0.0] * 9 + [-1.0]) < -0.1


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=12)
    assert lower_bound(values, seed=1) == lower_bound(values, seed=1)
    assert lower_bound(values, seed=1) != lower_bound(values, seed=2)


def test_covers_as_often_as_it_says():
    rng = np.random.default_rng(9)
    covered = [lower_bound(rng.normal(size=20), seed=k) < 0.0 for k in range(120)]
    assert 0.87 <= np.mean(covered) <= 0.99
