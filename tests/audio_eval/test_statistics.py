import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audio_eval.statistics import (
    clips_needed,
    describe,
    lower_bound,
    non_inferiority,
    resolvable_change,
    tail,
    upper_bound,
)

NAN = float("nan")
scores = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=2, max_size=12)

DATA = {
    "normal, 8": lambda r: r.normal(0, 1, 8),
    "normal, 32": lambda r: r.normal(0, 1, 32),
    "exponential, 8": lambda r: r.exponential(1, 8),
    "exponential, 32": lambda r: r.exponential(1, 32),
    "lognormal, 12": lambda r: r.lognormal(0, 1, 12),
    "heavy tails, 20": lambda r: r.standard_t(3, 20),
    "many ties, 12": lambda r: np.round(r.normal(0, 1, 12)),
    "near a ceiling, 12": lambda r: 1.0 - r.beta(0.5, 40, 12),
    "one outlier, 10": lambda r: np.append(r.normal(4.5, 0.02, 9), 3.9),
    "tiny and far off, 12": lambda r: 4.6 + 1e-9 * r.normal(0, 1, 12),
}


def by_scipy(values, alternative, generator):
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=0.95,
        alternative=alternative,
        method="BCa",
        n_resamples=9999,
        rng=generator,
    ).confidence_interval
    return interval[0 if alternative == "greater" else 1]


@pytest.mark.parametrize("name", DATA)
def test_bounds_are_those_of_scipy(name):
    values = DATA[name](np.random.default_rng(4))
    step = 1 / 12 if "ties" in name else 0.0  # means of whole numbers lie on a lattice
    for ours, alternative in ((lower_bound, "greater"), (upper_bound, "less")):
        # The same resamples: the same bound, but for ties, which rounding splits by chance in scipy.
        theirs = by_scipy(values, alternative, np.random.default_rng(3))
        assert ours(values, seed=3) == pytest.approx(theirs, abs=3e-3 * np.std(values), rel=1e-12)
        # Others: within the noise of resampling, which is measured.
        drawn = [ours(values, seed=seed) for seed in range(10, 30)]
        noise = np.std(drawn, ddof=1) + 1e-3 * np.std(values)
        assert abs(np.mean(drawn) - by_scipy(values, alternative, np.random.default_rng(99))) < 4.5 * noise + step


@settings(max_examples=25)
@given(scores)
def test_bounds_lie_around_the_mean_within_the_scores(values):
    low, high = lower_bound(values), upper_bound(values)
    slack = 1e-9
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack
    assert low <= np.mean(values) + slack
    assert high >= np.mean(values) - slack


@settings(max_examples=25)
@given(scores, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_bounds_move_with_unit_and_origin(values, unit, origin):
    moved = [unit * value + origin for value in values]
    assert lower_bound(moved) == pytest.approx(unit * lower_bound(values) + origin, abs=1e-9 * unit + 1e-9, rel=1e-9)


def test_degenerate_scores():
    assert lower_bound([0.25, 0.25, 0.25]) == upper_bound([0.25, 0.25, 0.25]) == 0.25
    assert math.isnan(lower_bound([0.1, NAN, 0.2]))
    assert math.isnan(upper_bound([0.1, math.inf, 0.2]))
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        lower_bound([0.1])
    assert -1.0 <= lower_bound([0.0] * 9 + [-1.0]) < -0.1
    assert lower_bound([1e-200, 3e-200, 2e-200]) == pytest.approx(1e-200, rel=0.5)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=12)
    assert lower_bound(values, seed=1) == lower_bound(values, seed=1)
    assert lower_bound(values, seed=1) != lower_bound(values, seed=2)


def coverage(bound, draw, mean, times):
    held = [(bound(draw(), seed=k) <= mean) if bound is lower_bound else (bound(draw(), seed=k) >= mean) for k in times]
    return float(np.mean(held))


def test_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(9)
    assert 0.88 <= coverage(lower_bound, lambda: rng.normal(size=20), 0.0, range(200)) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "mean", "bound", "clips", "said"),
    [
        ("normal", 0.0, lower_bound, 5, 0.89),
        ("normal", 0.0, lower_bound, 12, 0.93),
        ("normal", 0.0, upper_bound, 12, 0.93),
        ("exponential", 1.0, lower_bound, 12, 0.94),
        ("exponential", 1.0, upper_bound, 12, 0.88),
    ],
)
def test_coverage_that_the_module_tells(draw, mean, bound, clips, said):
    rng = np.random.default_rng(5)
    found = coverage(bound, lambda: getattr(rng, draw)(size=clips), mean, range(1000))
    assert found == pytest.approx(said, abs=4.0 * math.sqrt(said * (1.0 - said) / 1000))


def test_tail_is_between_the_worst_and_the_second_worst_of_few():
    assert tail([3.0], "higher") == 3.0
    assert tail([1.0, 0.0], "higher") == pytest.approx(0.05)
    twelve = [10.0, 20.0, *range(30, 40)]
    assert tail(twelve, "higher") == pytest.approx(10.0 + 0.55 * 10.0)
    assert tail(list(range(21)), "higher") == pytest.approx(1.0)
    assert tail(list(range(21)), "lower") == pytest.approx(19.0)
    assert tail(list(range(101)), "lower") == pytest.approx(95.0)
    with pytest.raises(ValueError, match="at least 1 clip"):
        tail([], "lower")
    assert math.isnan(tail([1.0, NAN], "lower"))
    assert math.isnan(tail([1.0, -math.inf], "higher"))


@given(scores)
def test_tail_mirrors_and_lies_beyond_the_median(values):
    assert tail(values, "higher") == pytest.approx(-tail([-value for value in values], "lower"))
    assert min(values) <= tail(values, "higher") + 1e-12
    assert tail(values, "higher") <= np.median(values) + 1e-12


def test_a_loss_within_the_margin_is_kept_and_one_beyond_is_not():
    rng = np.random.default_rng(1)
    reference = rng.normal(3.0, 0.5, 16)  # clips differ far more than what is done to them
    change = rng.normal(-0.02, 0.02, 16)
    found = non_inferiority(candidate=reference + change, reference=reference, margin=0.05, better="higher")
    assert found.kept
    assert found.mean_change == pytest.approx(change.mean())
    assert found.bound == pytest.approx(lower_bound(change), abs=1e-12)
    assert found.clips == 16
    assert not non_inferiority(candidate=reference + change, reference=reference, margin=0.01, better="higher").kept
    # The same numbers as an error, of which less is better.
    error = non_inferiority(candidate=reference - change, reference=reference, margin=0.05, better="lower")
    assert error.kept
    assert error.bound == pytest.approx(upper_bound(-change), abs=1e-12)
    assert not non_inferiority(candidate=reference - change, reference=reference, margin=0.01, better="lower").kept


def test_few_clips_that_scatter_prove_nothing():
    rng = np.random.default_rng(2)
    reference = rng.normal(3.0, 0.5, 5)
    candidate = reference + np.array([0.1, -0.3, 0.2, -0.1, 0.1])
    found = non_inferiority(candidate=candidate, reference=reference, margin=0.05, better="higher")
    assert found.mean_change == pytest.approx(0.0)
    assert not found.kept


def test_non_inferiority_at_its_edges():
    same = non_inferiority(candidate=[1.0, 2.0], reference=[1.0, 2.0], margin=0.0, better="higher")
    assert (same.mean_change, same.bound, same.kept) == (0.0, 0.0, True)
    for bad in (NAN, math.inf):
        broken = non_inferiority(candidate=[1.0, bad], reference=[1.0, bad], margin=9.0, better="lower")
        assert not broken.kept
        assert broken.to_dict() == {
            "mean_change": "nan",
            "bound": "nan",
            "margin": 9.0,
            "better": "lower",
            "clips": 2,
            "kept": False,
        }
    with pytest.raises(ValueError, match="come in pairs, got 3 of the candidate, 2"):
        non_inferiority(candidate=[1.0, 2.0, 3.0], reference=[1.0, 2.0], margin=0.1, better="higher")
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        non_inferiority(candidate=[1.0], reference=[1.0], margin=0.1, better="higher")
    for margin in (-0.1, NAN, math.inf):
        with pytest.raises(ValueError, match="0 or more"):
            non_inferiority(candidate=[1.0, 2.0], reference=[1.0, 2.0], margin=margin, better="higher")


@pytest.mark.parametrize(
    ("clips", "power", "expected"),
    [
        # statsmodels 0.15.0: TTestPower().solve_power(nobs=n, alpha=0.05, power=power, alternative="larger")
        (2, 0.8, 5.79280148680405),
        (3, 0.8, 2.2972747898357215),
        (5, 0.9, 1.6099453525826732),
        (12, 0.8, 0.7664046554361232),
        (12, 0.5, 0.5062801097270129),
        (32, 0.8, 0.44947225093781323),
        (100, 0.9, 0.29466571499166555),
    ],
)
def test_resolvable_change_is_that_of_statsmodels(clips, power, expected):
    values = np.random.default_rng(clips).normal(size=clips)
    values = 3.0 + 0.02 * values / values.std(ddof=1)
    assert resolvable_change(values, power=power) == pytest.approx(0.02 * expected, rel=1e-5)


def test_clips_needed_is_the_first_number_that_resolves():
    values = np.random.default_rng(0).normal(size=20)
    values /= values.std(ddof=1)
    # R: power.t.test(delta = 0.5, sd = 1, power = 0.8, type = "one.sample", alternative = "one.sided"): n = 26.1375
    assert clips_needed(values, 0.5) == 27
    assert clips_needed(values, resolvable_change(values) * 1.0001) == 20
    assert clips_needed(values, resolvable_change(values) * 0.9999) == 21
    assert clips_needed(values, 1e3) == 2
    assert clips_needed([0.3, 0.3], 1e-9) == 2
    with pytest.raises(ValueError, match="over 1073741824 clips"):
        clips_needed(values, 1e-6)


def test_a_loss_of_that_size_shows_as_often_as_said():
    """The claim itself, by simulation: of true losses of the resolvable size four fifths are shown."""
    rng = np.random.default_rng(7)
    loss = resolvable_change(1.0 * stats.zscore(rng.normal(size=12), ddof=1))
    shown = 0
    for _ in range(2000):
        change = rng.normal(-loss, 1.0, 12)
        shown += change.mean() + stats.t.ppf(0.95, 11) * change.std(ddof=1) / math.sqrt(12) < 0.0
    assert shown / 2000 == pytest.approx(0.8, abs=4.0 * math.sqrt(0.8 * 0.2 / 2000))


def test_bootstrap_is_a_little_more_powerful_than_said():
    rng = np.random.default_rng(8)
    loss = resolvable_change(stats.zscore(rng.normal(size=12), ddof=1))
    shown = np.mean([upper_bound(rng.normal(-loss, 1.0, 12), seed=k) < 0.0 for k in range(300)])
    assert 0.78 < shown < 0.95


def test_resolution_at_its_edges():
    assert resolvable_change([0.5, 0.5, 0.5]) == 0.0
    assert math.isnan(resolvable_change([0.5, NAN]))
    for call in (resolvable_change, lambda values: clips_needed(values, 0.1)):
        with pytest.raises(ValueError, match="at least 2 clips, got 1"):
            call([0.5])
    with pytest.raises(ValueError, match="NaN or Inf"):
        clips_needed([0.5, NAN], 0.1)
    for change in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="above 0"):
            clips_needed([0.5, 0.6], change)
    for power in (0.05, 1.0, NAN):
        with pytest.raises(ValueError, match="power"):
            resolvable_change([0.5, 0.6], power=power)


def test_a_summary_has_all_of_it():
    values = list(np.random.default_rng(3).normal(4.5, 0.05, 12))
    found = describe(values, "higher", seed=4)
    assert (found.clips, found.mean, found.worst) == (12, pytest.approx(np.mean(values)), min(values))
    assert (found.lower_bound, found.upper_bound) == (lower_bound(values, seed=4), upper_bound(values, seed=4))
    assert found.worst < found.tail < found.mean
    assert found.resolvable_change == resolvable_change(values)
    assert describe(values, "lower").worst == max(values)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["tail"] == found.tail


def test_a_summary_of_one_clip_or_of_nan():
    one = describe([4.5], "higher")
    assert one.mean == one.worst == one.tail == 4.5
    assert all(math.isnan(value) for value in (one.lower_bound, one.upper_bound, one.resolvable_change))
    assert one.to_dict()["lower_bound"] == "nan"
    broken = describe([4.5, NAN, 4.4], "higher")
    assert all(math.isnan(v) for v in (broken.mean, broken.worst, broken.tail, broken.lower_bound))
    with pytest.raises(ValueError, match="at least 1 clip"):
        describe([], "higher")
