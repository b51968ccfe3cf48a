"""Figures, scales and ranks of a report."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from precision_search.report.figures import percent, significant, told_apart
from precision_search.report.heat import LogScale
from precision_search.report.prediction import spearman
from precision_search.report.scatter import Span


class TestFigures:
    def test_a_value_beside_its_threshold_is_told_apart(self):
        assert told_apart(4.39996, 4.4) == "4.39996"
        assert told_apart(4.4, 4.4) == "4.4"
        assert told_apart(math.nan, 4.4) == "undefined"

    @settings(derandomize=True, deadline=None)
    @given(st.floats(-1e300, 1e300))
    def test_figures_keep_their_value(self, value):
        assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=0)

    @settings(derandomize=True, deadline=None)
    @given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
    def test_a_part_is_never_told_as_all_or_nothing(self, share):
        assert percent(share) not in {"100 %", "100.0 %", "0 %", "0.0 %"}

    @settings(derandomize=True, deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30))
    def test_rank_correlation_agrees_with_scipy(self, pairs):
        left, right = [float(pair[0]) for pair in pairs], [float(pair[1]) for pair in pairs]
        found = spearman(left, right)
        if len(set(left)) == 1 or len(set(right)) == 1:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(left, right).statistic, abs=1e-12)

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
    def test_an_axis_holds_its_values(self, values):
        span = Span.of("x", values)
        assert all(span.low < value < span.high for value in values)
        assert not span.log or span.low > 0

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=20))
    def test_classes_of_the_heat_map_rise_with_damage(self, values):
        scale = LogScale.of(values)
        steps = [scale.step(value) for value in sorted(values)]
        assert steps == sorted(steps)
        assert steps[0] >= 0
        assert steps[-1] <= 8
        assert LogScale.of([0.0, math.nan, math.inf]) is None
        assert LogScale.of([1e-12, 2.0]).low == 2e-4
