"""Roofline, streams and dollars."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cost import CostModel, Gemm, rate_key
from backends.devices import Figure, load_devices
from backends.money import Accounting, Comparison, compare, dollars
from backends.serving import policy_cost, serve
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.site_call import SiteCall

DEVICES = load_devices()
BF16 = Scheme("bf16", "bf16", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
HIFI4 = Scheme("hifi4", "bf16", "bf16", fidelity="hifi4")
LOFI_BFP8 = Scheme("lofi_bfp8", "bfp8_b", "bf16", fidelity="lofi")

LINEAR = Site("encoder.fc", "linear", (1024, 256), k=256, n=1024, rows_per_second=86.0)
CONV = Site("vocoder.conv", "conv1d", (64, 64, 7), k=448, n=64, rows_per_second=22050.0, kernel=7)
UP = Site("vocoder.up", "conv_transpose1d", (128, 64, 8), k=128, n=512, rows_per_second=5512.0, kernel=8)
SCORES = Site("encoder.scores", "matmul", (), k=64, n=172, rows_per_second=86.0, groups=4)
SITES = (LINEAR, SCORES, UP, CONV)


def uniform(scheme: Scheme) -> Policy:
    return Policy.uniform([site.name for site in SITES], scheme)


class TestSite:
    def test_compute_is_operations_over_rate_with_tiles_padded(self):
        device = DEVICES["p150a"]
        model = CostModel(device, streams=1, chunk_seconds=1.0)
        cost = model.gemm_cost(Gemm(33, 33, 1, 1, 33 * 33, True), HIFI4)
        rate = device.rates_tflops["hifi4"].value * 1e12 * device.gemm_efficiency.value
        assert cost.compute_seconds == pytest.approx(2 * 64 * 64 * 32 / rate)
        assert cost.weight_bytes == 64 * 32 * 2
        assert cost.bound_by == "overhead"

    def test_weights_are_read_once_for_all_streams_and_activations_by_each(self):
        one, many = (CostModel(DEVICES["l40s"], streams=n).site_cost(CONV, BF16) for n in (1, 64))
        assert many.activation_bytes == pytest.approx(one.activation_bytes)
        assert many.weight_bytes == one.weight_bytes
        assert many.overhead_seconds == pytest.approx(one.overhead_seconds / 64)
        assert many.seconds < one.seconds
        read, written = 22050.0 * 64 * 2, 22050.0 * 64 * 2
        assert one.activation_bytes == pytest.approx(read + written), "a tap of the kernel reads nothing anew"

    def test_a_product_of_activations_has_no_weights_and_is_not_shared(self):
        model = CostModel(DEVICES["p150a"], streams=8)
        gemm = model.gemm_of(SCORES)
        assert (gemm.m, gemm.count, gemm.has_weights) == (43, 32, False)
        assert model.site_cost(SCORES, HIFI4).weight_bytes == 0

    @pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
    def test_fewer_passes_and_fewer_bytes_are_always_cheaper(self, site):
        model = CostModel.of(DEVICES["p150a"], SITES)
        steps = [Scheme(f, "bf16", "bf16", fidelity=f) for f in ("hifi4", "hifi3", "hifi2", "lofi")]
        steps.append(replace(steps[-1], activation="bfp8_b"))
        if site.weight_elements:
            steps += [replace(steps[-1], weight=weight) for weight in ("bfp8_b", "bfp4_b")]
        seconds = [model.site_cost(site, scheme).seconds for scheme in steps]
        assert all(later < earlier for earlier, later in itertools.pairwise(seconds))

    @pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
    def test_fp8_is_cheaper_than_bf16_on_hopper_and_weight_only_fp8_computes_as_bf16(self, site):
        model = CostModel.of(DEVICES["h100_sxm"], SITES)
        full, half = model.site_cost(site, BF16), model.site_cost(site, FP8)
        assert half.seconds < full.seconds
        assert half.compute_seconds == pytest.approx(full.compute_seconds / 2)
        if site.weight_elements:
            weights = model.site_cost(site, Scheme("w8", "fp8_e4m3", "bf16"))
            assert weights.compute_seconds == full.compute_seconds
            assert weights.weight_bytes == full.weight_bytes / 2
            assert weights.seconds < full.seconds

    def test_a_bias_apart_takes_a_pass_of_its_own(self):
        fused = Scheme("f", "bfp8_b", "fp32", fidelity="lofi")
        model = CostModel.of(DEVICES["p150a"], [CONV], streams=1)
        together, apart = (model.site_cost(CONV, replace(fused, bias_apart=on)) for on in (False, True))
        assert apart.overhead_seconds == pytest.approx(2 * together.overhead_seconds)
        assert apart.activation_bytes - together.activation_bytes == pytest.approx(2 * 4 * 64 * 22050)
        assert apart.compute_seconds == together.compute_seconds

    def test_a_dynamic_scale_takes_a_pass_of_its_own(self):
        model = CostModel(DEVICES["h100_sxm"])
        static = model.site_cost(LINEAR, FP8)
        dynamic = model.site_cost(LINEAR, replace(FP8, activation_scale="dynamic"))
        assert dynamic.overhead_seconds == pytest.approx(2 * static.overhead_seconds)
        assert dynamic.activation_bytes > static.activation_bytes

    @pytest.mark.parametrize(
        ("device", "scheme", "word"),
        [
            ("p150a", BF16, "fidelity"),
            ("l40s", LOFI_BFP8, "bfp8_b"),
            ("h100_sxm", Scheme("mx", "mxfp8_e4m3", "mxfp8_e4m3"), "mxfp8"),
            ("h100_pcie", Scheme("full", "fp32", "fp32"), "fp32"),
        ],
    )
    def test_a_scheme_without_a_rate_is_refused(self, device, scheme, word):
        with pytest.raises(ValueError, match=word):
            CostModel(DEVICES[device]).site_cost(LINEAR, scheme)

    @pytest.mark.parametrize(
        ("device", "weight", "activation", "key"),
        [
            ("h100_sxm", "fp8_e4m3", "fp8_e5m2", "fp8"),
            ("l40s", "int8", "fp8_e4m3", "bf16"),
            ("h100_sxm", "fp16", "bf16", "bf16"),
            ("h100_sxm", "bf16", "fp32", "fp32"),
            ("b200_sxm", "tf32", "tf32", "fp32"),
            ("b200_sxm", "mxfp8_e4m3", "mxfp8_e4m3", "fp8"),
        ],
    )
    def test_the_rate_is_that_of_the_wider_operand(self, device, weight, activation, key):
        assert rate_key(DEVICES[device], Scheme("s", weight, activation)) == key

    def test_large_weights_are_not_taken_to_stay_on_the_chip(self):
        big = replace(LINEAR, weight_shape=(11008, 4096), k=4096, n=11008)
        assert CostModel.of(DEVICES["l40s"], SITES).weights_on_chip
        assert not CostModel.of(DEVICES["l40s"], [big]).weights_on_chip

    @pytest.mark.parametrize(("streams", "chunk_seconds"), [(0, 0.5), (1, 0.0), (1, float("nan"))])
    def test_no_batch_and_no_chunk_are_refused(self, streams, chunk_seconds):
        with pytest.raises(ValueError, match="streams >= 1"):
            CostModel(DEVICES["l40s"], streams=streams, chunk_seconds=chunk_seconds)

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        device=st.sampled_from(["p150a", "n150"]),
        k=st.integers(1, 4096),
        n=st.integers(1, 4096),
        rows=st.floats(0.5, 48000.0),
        streams=st.integers(1, 512),
    )
    def test_costs_are_ordered_over_the_cases_and_grow_with_the_batch(self, device, k, n, rows, streams):
        site = Site("s", "linear", (n, k), k=k, n=n, rows_per_second=rows)
        low, middle, high = (
            CostModel(DEVICES[device], streams=streams, case=case).site_cost(site, HIFI4).seconds
            for case in ("low", "middle", "high")
        )
        assert 0 < low <= middle <= high < math.inf
        more = CostModel(DEVICES[device], streams=streams + 1).site_cost(site, HIFI4).seconds * (streams + 1)
        assert more >= middle * streams * (1 - 1e-12), "a batch is never done sooner for being larger"


FP32 = Scheme("fp32", "fp32", "fp32", fidelity="hifi4")
BFP8 = Scheme("bfp8", "bfp8_b", "bfp8_b", fidelity="lofi")
BFP4 = Scheme("bfp4", "bfp4_b", "bfp4_b", fidelity="lofi")
TENSIX = (FP32, HIFI4, LOFI_BFP8, BFP8, BFP4)
CHAIN = (LINEAR, replace(SCORES, fed_by=LINEAR.name), replace(UP, fed_by=SCORES.name), replace(CONV, fed_by=UP.name))


class TestBoundaries:
    """What a site's input takes beside the site where another format was stored."""

    def test_a_typecast_by_hand(self):
        device = DEVICES["p150a"]
        model = CostModel(device, streams=32)
        cost = model.boundary_cost(CONV, HIFI4, BFP8)
        assert cost.activation_bytes == pytest.approx(22050 * 64 * (16 + 8.5) / 8), "every element read and written"
        moved = cost.activation_bytes * 0.5 * 32
        assert moved < 0.5 * device.sram_mb.value * 1e6
        assert cost.memory_seconds == pytest.approx(cost.activation_bytes / (device.sram_gb_per_s.value * 1e9))
        assert cost.overhead_seconds == pytest.approx(device.overhead_us.value * 1e-6 / (0.5 * 32))
        assert cost.seconds == cost.memory_seconds + cost.overhead_seconds
        assert (cost.compute_seconds, cost.weight_bytes) == (0, 0)
        many = model.with_streams(1024).boundary_cost(CONV, HIFI4, BFP8)
        dram = device.memory_gb_per_s.value * 1e9 * device.memory_efficiency.value
        assert many.memory_seconds == pytest.approx(many.activation_bytes / dram), "too much for SRAM"
        assert many.bound_by == "memory"

    @pytest.mark.parametrize(
        ("before", "after", "bits"),
        [
            (HIFI4, HIFI4, 0),
            (HIFI4, LOFI_BFP8, 0),  # unlike weights and fidelities, one activation
            (BFP8, BFP8, 0),
            (BFP8, HIFI4, 0),  # results of bfp8_b sites are stored in bf16
            (HIFI4, BFP8, 16 + 8.5),
            (BFP8, BFP4, 16 + 4.5),
            (HIFI4, FP32, 16 + 32),
            (BFP8, FP32, 16 + 32),
            (FP32, HIFI4, 32 + 16),
            (FP32, BFP8, 32 + 8.5),
            (FP32, FP32, 0),
        ],
        ids=lambda value: getattr(value, "name", value),
    )
    def test_only_readers_of_another_format_take_one(self, before, after, bits):
        cost = CostModel(DEVICES["n150"], streams=4).boundary_cost(LINEAR, before, after)
        assert cost.activation_bytes == pytest.approx(86 * 256 * bits / 8)
        assert (cost.seconds > 0) == (bits > 0)

    @pytest.mark.parametrize("scheme", TENSIX, ids=lambda scheme: scheme.name)
    def test_what_is_stored_is_what_the_emulation_stores(self, scheme):
        x, weight = (torch.randn(32, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        call = SiteCall("s", "linear", x, weight, None, None, is_product=False, index=0)
        result = TensixArithmetic().compute(call, scheme, TensixArithmetic().prepare(call, scheme), None)
        stored = "bf16" if torch.equal(result.bfloat16().float(), result) else "fp32"
        model = CostModel(DEVICES["p150a"])
        free = [after for after in (HIFI4, FP32) if model.boundary_cost(LINEAR, scheme, after).seconds == 0]
        assert [after.activation for after in free] == [stored]

    def test_a_product_has_both_operands_converted(self):
        model = CostModel(DEVICES["p150a"], streams=8)
        cost = model.boundary_cost(SCORES, HIFI4, BFP8)
        gemm = model.gemm_of(SCORES)
        elements = (gemm.input_elements + gemm.k * gemm.n * gemm.count) / (0.5 * 8)
        assert cost.activation_bytes == pytest.approx(elements * (16 + 8.5) / 8)
        assert cost.overhead_seconds == pytest.approx(2 * model.boundary_cost(LINEAR, HIFI4, BFP8).overhead_seconds)

    @pytest.mark.parametrize("fused", [True, False])
    def test_nvidia_charges_a_quantization_with_its_site_or_not_at_all(self, fused):
        model = CostModel(DEVICES["h100_sxm"], fused_quantization=fused)
        for before, after in itertools.product((BF16, FP8, Scheme("fp32", "fp32", "fp32")), repeat=2):
            assert model.boundary_cost(LINEAR, before, after).seconds == 0
        plain = CostModel(DEVICES["h100_sxm"]).site_cost(LINEAR, FP8).seconds
        assert (model.site_cost(LINEAR, FP8).seconds > plain) == (not fused)

    def test_a_policy_takes_its_sites_and_its_boundaries(self):
        model = CostModel.of(DEVICES["p150a"], CHAIN)
        policy = {site.name: scheme for site, scheme in zip(CHAIN, (HIFI4, BFP8, BFP8, FP32), strict=True)}
        alone = [model.site_cost(site, policy[site.name]).seconds for site in CHAIN]
        casts = model.typecasts(CHAIN, policy)
        assert list(casts) == [SCORES.name, CONV.name]
        assert casts[CONV.name] == model.boundary_cost(CONV, BFP8, FP32)
        by_hand = math.fsum([*alone, *(cast.seconds for cast in casts.values())])
        assert model.policy_seconds(CHAIN, policy) == by_hand > math.fsum(alone)

    @pytest.mark.parametrize("scheme", TENSIX, ids=lambda scheme: scheme.name)
    def test_a_uniform_policy_has_none(self, scheme):
        model = CostModel.of(DEVICES["p150a"], CHAIN)
        assert model.typecasts(CHAIN, uniform(scheme)) == {}
        assert model.policy_seconds(CHAIN, uniform(scheme)) == model.policy_seconds(SITES, uniform(scheme))

    def test_streams_pay_for_them(self):
        policy = dict(uniform(HIFI4)) | {SCORES.name: BFP8, CONV.name: FP32}
        model = CostModel.of(DEVICES["p150a"], CHAIN)
        free, paid = (policy_cost(model, sites, policy) for sites in (SITES, CHAIN))
        assert paid.streams_per_card < free.streams_per_card
        at = model.with_streams(paid.batch)
        assert paid.seconds_per_audio_second == pytest.approx(at.policy_seconds(CHAIN, policy), rel=1e-15)
        assert paid.activation_bytes > free.activation_bytes
        assert paid.weight_bytes == free.weight_bytes

    def test_what_feeds_a_site_needs_a_scheme_too(self):
        fed = replace(CONV, fed_by="nowhere")
        model = CostModel.of(DEVICES["p150a"], [fed])
        with pytest.raises(ValueError, match="nowhere"):
            policy_cost(model, [fed], {fed.name: HIFI4})
        with pytest.raises(KeyError, match="nowhere"):
            model.policy_seconds([fed], {fed.name: HIFI4})


# NVIDIA's own latencies in us, of ai-dynamo/aiconfigurator systems/data (TensorRT-LLM 1.3.0rc20, Apache-2.0).
NVIDIA_GEMMS = [
    ((64, 1024, 1024), {"l40s": (6.6, 13.6), "h100_sxm": (4.1, 13.5), "h200_sxm": (4.1, 13.5)}),
    ((1024, 2048, 2048), {"l40s": (36.4, 33.6), "h100_sxm": (14.4, 21.7), "h200_sxm": (13.9, 21.2)}),
    ((4096, 3072, 3072), {"l40s": (298.0, 227.0), "h100_sxm": (102.0, 98.0), "h200_sxm": (116.0, 95.0)}),
    ((4096, 8192, 3072), {"l40s": (928.0, 550.0), "h100_sxm": (271.0, 185.0), "h200_sxm": (267.0, 180.0)}),
]
# (card, m, k, n, format, fidelity, us), of tenstorrent/tt-metal tech_reports/GEMM_FLOPS, hand-tuned.
TENSTORRENT_GEMMS = [
    ("p150a", 640, 704, 704, "bfp8_b", "hifi2", 10.99),
    ("p150a", 1280, 1408, 1408, "bfp8_b", "hifi2", 24.7),
    ("p150a", 2560, 2816, 2816, "bfp8_b", "hifi2", 154.0),
    ("p150a", 3840, 4224, 4224, "bfp8_b", "lofi", 268.8),
    ("p150a", 3840, 4224, 4224, "bf16", "hifi4", 963.8),
    ("p150a", 640, 704, 704, "bf16", "hifi4", 11.87),
    ("n150", 512, 512, 512, "bfp8_b", "lofi", 11.24),
    ("n150", 1024, 1024, 1024, "bfp8_b", "hifi2", 27.5),
    ("n150", 2048, 2048, 2048, "bf16", "hifi4", 332.5),
    ("n150", 4096, 4096, 4096, "bfp8_b", "lofi", 991.0),
]


class TestAgainstMeasuredProducts:
    """A plain roofline is a guess: these hold it within a factor, and say which.

    The efficiencies and the Tensix overhead are taken from the same measurements, so this checks the shape of the model
    and not its prediction.
    """

    @pytest.mark.parametrize("card", ["l40s", "h100_sxm", "h200_sxm"])
    @pytest.mark.parametrize("shape", range(len(NVIDIA_GEMMS)))
    def test_nvidia_within_a_factor_of_two_and_a_quarter(self, shape, card):
        (m, n, k), row = NVIDIA_GEMMS[shape]
        model = CostModel(DEVICES[card], weights_on_chip=True, fused_quantization=False)
        for scheme, measured_us in zip((BF16, FP8), row[card], strict=True):
            factor = model.gemm_cost(Gemm(m, k, n, 1, m * k, True), scheme).seconds * 1e6 / measured_us
            assert 1 / 2.25 < factor < 1.3, f"{scheme.name}: {factor:.2f} of the measured time"
            if scheme is BF16 and m > 64:
                assert factor > 0.95, "large bf16 products are within a quarter"

    @pytest.mark.parametrize("row", TENSTORRENT_GEMMS, ids=lambda row: "-".join(map(str, row[:-1])))
    def test_tenstorrent_within_a_third(self, row):
        card, m, k, n, fmt, fidelity, measured_us = row
        scheme = Scheme("s", fmt, fmt, fidelity=fidelity)
        factor = CostModel(DEVICES[card]).gemm_cost(Gemm(m, k, n, 1, m * k, True), scheme).seconds * 1e6 / measured_us
        assert 0.75 < factor < 1.33, f"{factor:.2f} of the measured time"

    def test_small_products_show_no_gain_from_fp8_unless_the_quantization_is_fused(self):
        gemm = Gemm(64, 1024, 1024, 1, 64 * 1024, True)
        alone = CostModel(DEVICES["h100_sxm"], weights_on_chip=True, fused_quantization=False)
        fused = replace(alone, fused_quantization=True)
        assert alone.gemm_cost(gemm, FP8).seconds > alone.gemm_cost(gemm, BF16).seconds
        assert fused.gemm_cost(gemm, FP8).seconds < fused.gemm_cost(gemm, BF16).seconds


class TestServing:
    @pytest.mark.parametrize(("card", "scheme"), [("l40s", BF16), ("p150a", LOFI_BFP8), ("h200_sxm", FP8)])
    def test_streams_keep_the_card_within_its_utilization(self, card, scheme):
        model = CostModel.of(DEVICES[card], SITES)
        cost = policy_cost(model, SITES, uniform(scheme), utilization=0.7)
        assert cost.streams_per_card >= cost.batch >= 1
        assert 0 < cost.utilization <= 0.7 + 1e-9
        assert (cost.streams_per_card + 1) * cost.seconds_per_audio_second > 0.7
        assert cost.fits
        assert cost.compute_share + cost.memory_share + cost.overhead_share == pytest.approx(1)
        by_hand = [model.with_streams(cost.batch).site_cost(site, scheme).seconds for site in SITES]
        assert cost.seconds_per_audio_second == pytest.approx(sum(by_hand)), "costs add over sites"

    def test_more_utilization_and_a_cheaper_scheme_never_carry_fewer_streams(self):
        model = CostModel.of(DEVICES["p150a"], SITES)
        streams = [
            policy_cost(model, SITES, uniform(scheme), utilization=busy).streams_per_card
            for scheme, busy in ((HIFI4, 0.2), (HIFI4, 0.7), (LOFI_BFP8, 0.7), (LOFI_BFP8, 1.0))
        ]
        assert streams == sorted(streams)
        assert streams[0] < streams[-1]

    def test_a_model_that_is_too_slow_or_too_large_carries_no_stream(self):
        slow = replace(CONV, rows_per_second=1e12)
        large = replace(LINEAR, weight_shape=(400_000, 200_000), k=200_000, n=400_000, rows_per_second=1.0)
        for site, limit in ((slow, "time"), (large, "memory")):
            served = serve(DEVICES["n150"], [site], {site.name: HIFI4})
            assert served.middle.streams_per_card == 0
            assert served.middle.limited_by == limit or not served.middle.fits

    def test_memory_of_the_streams_bounds_them(self):
        model = CostModel.of(DEVICES["l40s"], SITES)
        free = policy_cost(model, SITES, uniform(BF16))
        bound = policy_cost(model, SITES, uniform(BF16), state_bytes_per_stream=1e9)
        assert bound.streams_per_card <= 43
        assert bound.limited_by == "memory"
        assert free.limited_by == "time"
        assert free.streams_per_card > bound.streams_per_card

    def test_the_batch_is_bounded(self):
        model = CostModel.of(DEVICES["h200_sxm"], SITES)
        assert policy_cost(model, SITES, uniform(BF16), max_batch=24).batch <= 24
        wide = policy_cost(model, SITES, uniform(BF16), max_batch=4096)
        narrow = policy_cost(model, SITES, uniform(BF16), max_batch=1)
        assert narrow.batch == 1
        assert narrow.streams_per_card <= wide.streams_per_card

    def test_what_cannot_be_asked_is_refused(self):
        model = CostModel.of(DEVICES["l40s"], SITES)
        with pytest.raises(ValueError, match=r"vocoder\.conv"):
            policy_cost(model, SITES, Policy.uniform(["encoder.fc"], BF16))
        with pytest.raises(ValueError, match="no sites at all"):
            policy_cost(model, [], uniform(BF16))
        with pytest.raises(ValueError, match="utilization"):
            policy_cost(model, SITES, uniform(BF16), utilization=1.5)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    candidate = serve(DEVICES["p150a"], SITES, uniform(LOFI_BFP8), label="lofi_bfp8")
    return compare(candidate, serve(DEVICES["l40s"], SITES, uniform(BF16), label="bf16"))


class TestMoney:
    def test_ratio_is_that_of_price_per_stream_within_its_range(self, comparison):
        ours, theirs = comparison.candidate, comparison.baseline
        assert ours.usd_per_stream.middle == pytest.approx(1399 / ours.serving.middle.streams_per_card)
        assert comparison.ratio.middle == pytest.approx(ours.usd_per_stream.middle / theirs.usd_per_stream.middle)
        wide, narrow = comparison.ratio, comparison.ratio_by_price
        assert 0 < wide.low <= narrow.low <= narrow.middle == wide.middle <= narrow.high <= wide.high
        assert narrow.high == pytest.approx(wide.middle * 8300 / 7500), "the dear end of its price is its middle"

    def test_a_card_against_itself_costs_the_same(self):
        served = serve(DEVICES["l40s"], SITES, uniform(BF16))
        assert compare(served, served).ratio.middle == 1

    def test_a_thousand_hours_by_hand(self, comparison):
        streams = comparison.candidate.serving.middle.streams_per_card
        by_hand = 1000 / streams * (1399 / (4 * 8766) + 0.3 * 1.2 * 0.08)
        assert comparison.candidate.usd_per_1000_hours.middle == pytest.approx(by_hand)
        assert comparison.candidate.cloud_usd_per_1000_hours is None
        rented = comparison.baseline.cloud_usd_per_1000_hours
        assert rented is not None
        assert rented.middle == pytest.approx(1000 * 1.3 / comparison.baseline.serving.middle.streams_per_card)

    def test_the_block_of_the_summary(self, comparison):
        data = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
        assert set(data["usd_per_stream"]) == {"candidate", "baseline"}
        assert data["low"] <= data["ratio"] <= data["high"]
        assert data["streams"]["baseline"] > 0
        assert {"low", "middle", "high"} == set(data["usd_per_1000_hours"]["candidate"])
        assert all(entry["source"] and entry["date"] for entry in data["sources"])
        assert {entry["device"] for entry in data["sources"]} == {"p150a", "l40s"}
        assert any("PUE" in sentence for sentence in data["assumptions"])

    def test_prices_can_be_replaced_with_a_source_and_a_date(self, comparison):
        quote = Figure.of(500.0, "a quote", "2026-11-20")
        served = comparison.candidate.serving
        assert compare(served, comparison.baseline.serving, prices={"p150a": quote}).ratio.middle == pytest.approx(
            comparison.ratio.middle * 500 / 1399
        )
        unpriced = replace(served, device=replace(served.device, price_usd=None))
        with pytest.raises(ValueError, match="no price of p150a"):
            dollars(unpriced)
        assert dollars(unpriced, prices={"p150a": quote}).price is quote

    def test_a_card_that_carries_nothing_has_no_price_a_stream(self, comparison):
        served = comparison.candidate.serving
        nothing = replace(served.middle, streams_per_card=0)
        none = replace(served, low=nothing, middle=nothing, high=nothing)
        data = json.loads(json.dumps(compare(none, none).to_dict(), allow_nan=False))
        assert data["ratio"] is None
        assert data["usd_per_stream"] == {"candidate": None, "baseline": None}

    @pytest.mark.parametrize("wrong", [{"years": 0.0}, {"pue": 0.9}, {"usd_per_kwh": -1.0}])
    def test_accounting_that_cannot_be_is_refused(self, wrong):
        with pytest.raises(ValueError, match="must hold"):
            Accounting(**wrong)
