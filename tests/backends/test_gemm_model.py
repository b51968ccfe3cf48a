"""The fitted formula, the rows that it is bent through, and what a launch comes to by both."""

import math
from dataclasses import replace
from itertools import product as all_of

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cost import CostModel, Gemm
from backends.devices import load_devices
from backends.evidence import evidence_shares, joined_shares, weaker
from backends.gemm_fit import fit
from backends.gemm_formula import GemmFormula, Product
from backends.gemm_model import GemmModel
from backends.gemm_tables import CARDS, DTYPES, GemmTable
from precision.policy import Scheme

DEVICES = load_devices()
BF16 = Scheme("bf16", "bf16", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
DYNAMIC = replace(FP8, activation_scale="dynamic")
WEIGHTS = Scheme("w8", "fp8_e4m3", "bf16")
FP32 = Scheme("fp32", "fp32", "fp32")

ROUND = GemmFormula(
    multiprocessors=100,
    l2_mib=50,
    launch_us=2.0,
    tflops=100.0,
    operand_gb_per_s=1e6,
    tile_us=0.0,
    split_us=1e9,
    dram_gb_per_s=1000.0,
    l2_gb_per_s=4000.0,
    write_gb_per_s=4000.0,
    l2_share=1.0,
    l2_edge=30.0,
    blend=1.0,
    quantize_us=9.0,
    quantize_gb_per_s=2000.0,
)
"""Round figures: what a product takes can be had by hand."""


def model_of(card: str) -> GemmModel:
    found = GemmModel.of(card)
    assert found is not None
    return found


def gemm(m: int, k: int, n: int) -> Gemm:
    return Gemm(m, k, n, 1, m * k, True)


def seconds(card: str, asked: Gemm, scheme: Scheme, on_chip: bool = True) -> float:
    return CostModel(DEVICES[card], weights_on_chip=on_chip).gemm_cost(asked, scheme).seconds


class TestFormula:
    def test_a_product_that_fills_the_card_once_by_hand(self):
        # 100 tiles of 256 x 128 on 100 multiprocessors: each does 2 * 256 * 128 * 1024 operations at 1 TFLOPS.
        asked = Product(2560, 1280, 1024)
        compute = 2 * 256 * 128 * 1024 / 1e6
        memory = 2 * (1280 * 1024 + 2560 * 1024 + 2560 * 1280) / 4e6
        assert ROUND.product_us(asked) == pytest.approx(2.0 + compute + memory, rel=1e-6)

    def test_one_row_more_than_a_tile_takes_a_round_more(self):
        thin = replace(ROUND, multiprocessors=1)
        full, over = (thin._compute_us(Product(m, 128, 512)) for m in (256, 257))
        assert over > full * 1.2

    def test_weights_come_from_where_they_lie(self):
        small = Product(64, 1024, 1024)
        warm, cold, rows = (ROUND.product_us(replace(small, weights=place)) for place in ("warm", "cold", "rows"))
        assert cold - warm == pytest.approx(2 * 1024 * 1024 * (1 / 1e6 - 1 / 4e6), rel=1e-6)
        assert rows == pytest.approx(warm), "five copies of 2 MiB lie in 50 MiB of cache"
        large = Product(64, 8192, 4096)
        assert ROUND.product_us(large) == pytest.approx(ROUND.product_us(replace(large, weights="cold")), rel=1e-3)

    def test_quantizing_reads_twice_and_writes_once(self):
        assert ROUND.quantize_activation_us(10**6) == pytest.approx(9.0 + 5e6 / 2e6)

    def test_one_size_and_many_are_told_alike(self):
        sizes = [(1, 32, 32), (100, 27, 352), (4096, 8192, 3072)]
        m, n, k = np.array(sizes, np.float64).T
        for card, dtype in all_of(CARDS, DTYPES):
            model = model_of(card)
            assert model.row_us(dtype, m, n, k) == pytest.approx([model.row_us(dtype, *size) for size in sizes])

    def test_a_fit_finds_the_figures_that_made_the_rows(self):
        drawn = np.random.default_rng(0)
        shapes = np.exp2(drawn.uniform(5, 13, (800, 3))).astype(np.int64)
        made = replace(model_of("h100_sxm").formulas["bf16"], launch_us=3.0, tflops=600.0, dram_gb_per_s=2000.0)
        latency = made.product_us(Product(*shapes.astype(np.float64).T))
        card = {"multiprocessors": made.multiprocessors, "l2_mib": made.l2_mib, "peak_tflops": 989.0}
        found = fit(shapes, latency, **card, peak_gb_per_s=3350.0)
        assert found.launch_us == pytest.approx(3.0, rel=0.02)
        assert found.tflops == pytest.approx(600.0, rel=0.02)
        missed = np.abs(found.product_us(Product(*shapes.astype(np.float64).T)) / latency - 1)
        assert np.quantile(missed, 0.9) < 0.03


class TestRows:
    @pytest.mark.parametrize("card", CARDS)
    def test_on_the_grid_stands_what_was_measured(self, card):
        model, drawn = model_of(card), np.random.default_rng(1)
        for dtype in DTYPES:
            measured = model.table.latency_us[dtype]
            assert np.nanmax(np.abs(model.predicted(dtype) / measured - 1)) < 1e-9
            for place in drawn.permutation(np.argwhere(~np.isnan(measured)))[:20]:
                point = [axis[i] for axis, i in zip((model.table.m, model.table.n, model.table.k), place, strict=True)]
                factor, inside = model.correction(dtype, *point)
                assert inside
                assert model.row_us(dtype, *point) * factor == pytest.approx(measured[tuple(place)])

    def test_beyond_the_grid_the_formula_takes_over_and_nothing_is_called_measured(self):
        model = model_of("l40s")
        edge, beyond, far = (model.correction("bf16", m, 64, 512)[0] for m in (32768, 65536, 1 << 24))
        assert math.log(beyond) == pytest.approx(math.log(edge) / 2)
        assert far == pytest.approx(1, abs=0.01)
        for outside in ((65536, 64, 512), (64, 16, 64), (64, 64, 70000), (32768, 65536, 65536)):
            assert not model.correction("bf16", *outside)[1]

    def test_gaps_are_filled_by_what_lies_around_and_nothing_is_nan(self):
        whole = model_of("h100_sxm")
        holes = np.where(np.random.default_rng(2).random(whole.table.latency_us["bf16"].shape) < 0.5, np.nan, 1.0)
        seen = {dtype: values * holes for dtype, values in whole.table.latency_us.items()}
        model = GemmModel(replace(whole.table, latency_us=seen), whole.formulas, {})
        held = np.isnan(holes) & ~np.isnan(whole.table.latency_us["bf16"])
        for dtype, most in (("bf16", 0.03), ("fp8", 0.02)):
            told = model.predicted(dtype)
            assert np.isfinite(told).all()
            missed = np.abs(told[held] / whole.table.latency_us[dtype][held] - 1)
            assert np.median(missed) < most
        nothing = replace(whole.table, latency_us={dtype: np.full_like(holes, np.nan) for dtype in DTYPES})
        empty = GemmModel(nothing, whole.formulas, {})
        assert empty.correction("fp8", 64, 1024, 1024) == (1.0, False)

    @pytest.mark.parametrize(("card", "right"), [("h100_sxm", 0.98), ("h200_sxm", 0.98), ("l40s", 0.96)])
    def test_which_of_fp8_and_bf16_is_faster_is_foretold_from_half_of_the_rows(self, card, right):
        whole, drawn = model_of(card), np.random.default_rng(3)
        held = {dtype: drawn.random(whole.table.latency_us[dtype].shape) < 0.5 for dtype in DTYPES}
        seen = {t: np.where(held[t], np.nan, whole.table.latency_us[t]) for t in DTYPES}
        model = GemmModel(replace(whole.table, latency_us=seen), whole.formulas, {})
        cells = held["bf16"] & held["fp8"] & ~np.isnan(whole.table.latency_us["bf16"])
        faster = [table["fp8"][cells] < table["bf16"][cells] for table in (whole.table.latency_us, told(model))]
        assert np.mean(faster[0] == faster[1]) > right

    def test_errors_of_the_package_meet_what_was_asked(self):
        for card, dtype in all_of(CARDS, DTYPES):
            errors = model_of(card).errors[dtype]
            assert 0 < errors["measured"] < errors["calibrated"] < 0.3


def told(model: GemmModel) -> dict:
    return {dtype: model.predicted(dtype) for dtype in DTYPES}


class TestLaunch:
    @pytest.mark.parametrize("card", CARDS)
    def test_rows_come_out_as_they_are_and_say_so(self, card):
        table = GemmTable.of(card)
        assert table is not None
        model = CostModel(DEVICES[card], weights_on_chip=True)
        for scheme, dtype in ((BF16, "bf16"), (DYNAMIC, "fp8")):
            cost = model.gemm_cost(gemm(1024, 512, 1024), scheme)
            assert cost.evidence == "measured"
            assert cost.seconds == pytest.approx(table.seconds(dtype, 1024, 1024, 512))

    @pytest.mark.parametrize(
        ("card", "asked", "scheme", "evidence"),
        [
            ("h100_sxm", gemm(64, 1024, 1000), BF16, "measured"),
            ("h100_sxm", gemm(64, 1024, 1024), FP8, "calibrated"),
            ("h100_sxm", gemm(64, 1024, 1024), WEIGHTS, "calibrated"),
            ("h100_sxm", gemm(64, 1024, 1024), replace(BF16, activation="fp16", weight="fp16"), "calibrated"),
            ("h100_sxm", gemm(64, 1024, 1024), FP32, "roofline"),
            ("h100_sxm", gemm(64, 1024, 1024), replace(BF16, bias_apart=True), "roofline"),
            ("h100_sxm", gemm(100_000, 64, 64), BF16, "calibrated"),
            ("h100_sxm", Gemm(1000, 448, 64, 1, 64_000, True), BF16, "calibrated"),
            ("h100_sxm", Gemm(43, 64, 172, 32, 43 * 64 * 32, False), BF16, "calibrated"),
            ("h100_pcie", gemm(64, 1024, 1024), BF16, "roofline"),
            ("p150a", gemm(64, 1024, 1024), replace(BF16, fidelity="lofi"), "roofline"),
        ],
    )
    def test_every_launch_says_what_it_rests_on(self, card, asked, scheme, evidence):
        assert CostModel(DEVICES[card], weights_on_chip=True).gemm_cost(asked, scheme).evidence == evidence

    def test_a_dynamic_scale_may_cost_more_than_fp8_saves(self):
        small, large = gemm(64, 1024, 1024), gemm(8192, 8192, 8192)
        assert seconds("h100_sxm", small, DYNAMIC) > 2 * seconds("h100_sxm", small, BF16)
        assert seconds("h100_sxm", large, DYNAMIC) < 0.8 * seconds("h100_sxm", large, BF16)

    def test_a_convolution_takes_less_than_the_product_it_comes_to(self):
        as_product = seconds("l40s", gemm(16384, 704, 64), BF16)
        assert 0.2 * as_product < seconds("l40s", Gemm(16384, 704, 64, 1, 16384 * 64, True), BF16) < as_product

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        card=st.sampled_from(list(CARDS)),
        m=st.integers(1, 200_000),
        k=st.integers(1, 20_000),
        n=st.integers(1, 20_000),
        taps=st.sampled_from([1, 7]),
        count=st.sampled_from([1, 1, 4]),
        on_chip=st.booleans(),
    )
    def test_narrower_and_faster_is_never_dearer_where_physics_gives_no_reason(
        self, card, m, k, n, taps, count, on_chip
    ):
        asked = Gemm(m, k, n, count, m * k * count / taps, True)
        bf16, weights, fp8, dynamic, wide = (
            seconds(card, asked, scheme, on_chip) for scheme in (BF16, WEIGHTS, FP8, DYNAMIC, FP32)
        )
        assert fp8 <= weights * (1 + 1e-9)
        assert weights <= bf16 * (1 + 1e-9)
        assert fp8 <= dynamic * (1 + 1e-9)
        assert bf16 < wide
        assert 0 < fp8 < math.inf
        plain = gemm(m, k, n)
        assert seconds(card, plain, BF16, True) <= seconds(card, plain, BF16, False) * (1 + 1e-9)
        model = CostModel(DEVICES[card], weights_on_chip=on_chip)
        low, high = (replace(model, case=case).gemm_cost(asked, FP8).seconds for case in ("low", "high"))
        assert low < fp8 < high

    def test_the_card_at_hand_goes_before_nvidias(self):
        class Own:
            def seconds(self, dtype, m, n, k, quantizes="none", cache=None):
                return 1e-3 if (dtype, m, quantizes, cache) == ("fp8_e4m3", 64, "none", None) else None

        device = replace(DEVICES["h100_sxm"], own=Own())
        model = CostModel(device)
        own = model.gemm_cost(gemm(64, 1024, 1024), FP8)
        assert (own.seconds, own.evidence) == (1e-3, "measured")
        theirs = CostModel(DEVICES["h100_sxm"])
        for asked, scheme in ((gemm(65, 1024, 1024), FP8), (gemm(64, 1024, 1024), BF16), (gemm(64, 64, 64), DYNAMIC)):
            assert model.gemm_cost(asked, scheme) == theirs.gemm_cost(asked, scheme)
        assert replace(model, tables=False).gemm_cost(gemm(64, 1024, 1024), FP8).evidence == "roofline"
        assert device == DEVICES["h100_sxm"], "what was measured is no figure of the card"

    def test_operands_come_over_a_tensix_network(self):
        device = DEVICES["p150a"]
        assert device.noc_gb_per_s is not None
        assert device.noc_gb_per_s.value == pytest.approx(64 * 1.35)
        lofi = replace(BF16, fidelity="lofi")
        without, with_it = (
            CostModel(card, weights_on_chip=True).gemm_cost(gemm(4096, 1024, 1024), lofi).memory_seconds
            for card in (replace(device, noc_gb_per_s=None), device)
        )
        # Cut in blocks, a core lacks all but its own part of its rows and columns, which are 1 in sqrt(120).
        lacks = (4096 * 1024 + 1024 * 1024) * 2 / math.sqrt(120) * (1 - 1 / 120)
        network = min(lacks, 1024 * 1024 * 2 * (1 - 1 / 120)) / (64 * 1.35e9)
        assert with_it == pytest.approx(max(without, network) + 0.1 * min(without, network))


def test_shares_of_a_sum_by_what_it_rests_on():
    assert evidence_shares([("measured", 3.0), ("roofline", 1.0), ("calibrated", 0.0)]) == {
        "measured": 0.75,
        "roofline": 0.25,
    }
    assert evidence_shares([]) == {}
    halves = ({"measured": 0.5, "roofline": 0.5}, {"calibrated": 1.0})
    assert joined_shares(zip(halves, (2.0, 2.0), strict=True)) == {
        "measured": 0.25,
        "calibrated": 0.5,
        "roofline": 0.25,
    }
    assert weaker("measured", "roofline") == "roofline"
