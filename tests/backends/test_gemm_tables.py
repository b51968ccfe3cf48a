"""Tables of measured products: what they hold, what lies between, and what they do not say."""

import math
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from backends.devices import load_devices
from backends.gemm_tables import CARDS, DTYPES, FILE, GemmTable, decoded, encoded


def table(name: str = "h100_sxm") -> GemmTable:
    found = GemmTable.of(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("card", "m", "n", "k", "bf16", "fp8"),
    [
        ("h100_sxm", 64, 1024, 1024, 4.1, 13.5),
        ("h100_sxm", 4096, 8192, 3072, 271, 185),
        ("h200_sxm", 1024, 2048, 2048, 13.9, 21.2),
        ("l40s", 4096, 3072, 3072, 298, 227),
    ],
)
def test_rows_are_those_of_nvidia(card, m, n, k, bf16, fp8):
    assert table(card).seconds("bf16", m, n, k) == pytest.approx(bf16 * 1e-6, rel=0.01)
    assert table(card).seconds("fp8", m, n, k) == pytest.approx(fp8 * 1e-6, rel=0.01)
    assert table(card).fp8_speedup(m, n, k) == pytest.approx(bf16 / fp8, rel=0.02)


def test_there_are_tables_of_what_was_measured_and_of_no_other_card():
    for name in load_devices():
        assert (GemmTable.of(name) is not None) == (name in CARDS)
    assert GemmTable.of("h100") is None
    for name in CARDS:
        held = table(name)
        assert all(held.latency_us[dtype].shape == (74, 22, 22) for dtype in DTYPES)
        assert np.isfinite(held.latency_us["bf16"]).sum() == np.isfinite(held.latency_us["fp8"]).sum() == 35700
    notice = files("backends").joinpath("data", "NOTICE").read_text(encoding="utf-8")
    assert all(said in notice for said in ("Apache-2.0", "aiconfigurator", "2026-11-21", FILE))


def test_between_the_points_lie_values_between_theirs():
    held = table()
    low, between, high = (held.seconds("bf16", 2048, 2048, k) for k in (4096, 4600, 5120))
    assert low is not None
    assert between is not None
    assert high is not None
    assert low < between < high
    # A power of the size is a straight line in logs, and comes out exactly.
    m, n, k = (np.array(axis, np.float64) for axis in (held.m, held.n, held.k))
    latency = 1e-3 * np.einsum("m,n,k->mnk", m**0.5, n**1.25, k)
    power = replace(held, latency_us={"bf16": latency, "fp8": 0.5 * latency})
    for shape in ((700, 900, 3000), (1, 33, 32), (20, 20000, 50), (32768, 65536, 65536)):
        expected = 1e-9 * shape[0] ** 0.5 * shape[1] ** 1.25 * shape[2]
        assert power.seconds("bf16", *shape) == pytest.approx(expected)
        assert power.fp8_speedup(*shape) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(0, 64, 64), (32769, 64, 64), (64, 31, 64), (64, 64, 65537), (64, 16, 64), (-1, 64, 64), (32768, 65536, 65536)],
)
def test_nothing_is_said_of_what_was_not_measured(m, n, k):
    assert table().seconds("bf16", m, n, k) is None
    assert table().fp8_speedup(m, n, k) is None


def test_one_gap_beside_a_point_does_not_reach_it():
    held = table()
    latency = {dtype: values.copy() for dtype, values in held.latency_us.items()}
    latency["bf16"][0, 1, 0] = math.nan
    gap = replace(held, latency_us=latency)
    assert gap.seconds("bf16", 1, 32, 32) == held.seconds("bf16", 1, 32, 32)
    assert gap.seconds("bf16", 1, 48, 32) is None
    assert gap.fp8_speedup(1, 64, 32) is None
    assert gap.seconds("fp8", 1, 64, 32) is not None


def test_small_products_are_slower_in_fp8_and_large_ones_faster():
    for name in CARDS:
        for m in (1, 64, 1024):
            assert (table(name).fp8_speedup(m, 512, 512) or 1) < 0.7
        assert (table(name).fp8_speedup(8192, 8192, 8192) or 0) > 1.2


def test_the_file_holds_logs_to_a_few_parts_in_ten_thousand():
    latency = np.array([[0.5, 2.6, math.nan], [17.123, 893969.4, 3e6]])
    again = decoded(encoded(latency))
    assert np.array_equal(np.isnan(again), np.isnan(latency))
    known = ~np.isnan(latency)
    assert np.abs(again[known] / latency[known] - 1).max() < 1.3e-4
    assert not encoded(np.full(2, math.nan)).any()
    for wrong in (0.49, 4e6, 0.0, math.inf):
        with (
            np.errstate(divide="ignore"),
            pytest.raises(ValueError, match=r"the file holds those from 0\.5 us to 3 s"),
        ):
            encoded(np.array([1.0, wrong]))
