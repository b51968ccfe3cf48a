"""What no site computes is told, and where it is much there is a warning."""

from precision_search.table import coverage_sentences
from precision_search.uncovered import outside_lines, warning


def test_a_share_under_99_percent_is_a_warning():
    assert warning(1.0) is None
    assert warning(0.99) is None
    said = warning(0.98994)
    assert said is not None
    assert said.startswith("the sites are 98.99% of the MACs, under 99%.")


def test_the_smallest_are_told_in_one_line():
    shares = [(f"part.{i}", 0.01 / 2**i) for i in range(14)]
    lines = outside_lines(shares)
    assert len(lines) == 13
    assert lines[0] == "outside: part.0 1.00%"
    assert lines[9] == "outside: part.9 under 0.01%"
    assert lines[-1] == "outside: 2 more modules under 0.01%"
    assert outside_lines(()) == []


def test_a_study_says_what_is_outside():
    assert coverage_sentences({}) == [], "of older code"
    assert coverage_sentences({"covered_mac_share": 1.0, "outside": []}) == []
    half = {"covered_mac_share": 0.5, "outside": [{"module": "odd.fft", "mac_share": 0.5}]}
    outside, warned = coverage_sentences(half)
    assert outside == "outside: odd.fft 50.00%"
    assert warned.startswith("warning: the sites are 50.00%")
