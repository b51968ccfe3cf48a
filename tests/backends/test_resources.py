"""Resources: what a policy takes of a card, and the arrays of a search."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from backends.cost import CostModel
from backends.devices import Figure, load_devices
from backends.money import Accounting, dollars, usd_per_second
from backends.resources import IDLE_SHARE, RESOURCES, TIE, Meter, search_arrays, typecast_summary
from backends.serving import serve
from precision.policy import Scheme
from precision.search.problem import Problem
from precision.site import Site

DEVICES = load_devices()
BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi4")
FP32 = Scheme("fp32", "fp32", "fp32", fidelity="hifi4")
LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")
BFP8 = Scheme("bfp8", "bfp8_b", "bfp8_b", fidelity="lofi")
SCHEMES = (BF16, FP32, LOFI, BFP8)
SITES = (
    Site("fc", "linear", (1000, 250), k=250, n=1000, rows_per_second=86.0),
    Site("scores", "matmul", (), k=64, n=172, rows_per_second=86.0, groups=4, fed_by="fc"),
    Site("up", "conv_transpose1d", (128, 64, 8), k=128, n=512, rows_per_second=5512.0, kernel=8, fed_by="scores"),
    Site("conv", "conv1d", (64, 64, 7), k=448, n=64, rows_per_second=22050.0, kernel=7, fed_by="up"),
    Site("side", "conv1d", (64, 64, 3), k=192, n=64, rows_per_second=22050.0, kernel=3, fed_by="up"),
)


def meter(card="p150a", streams=32) -> Meter:
    model = CostModel.of(DEVICES[card], SITES, streams=streams)
    return Meter(model, SITES, usd_per_second(DEVICES[card]))


def mixed(names: str) -> dict[str, Scheme]:
    return {site.name: SCHEMES[int(digit)] for site, digit in zip(SITES, names, strict=True)}


class TestMeter:
    @pytest.mark.parametrize("resource", RESOURCES)
    @pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
    def test_fewer_passes_and_fewer_bits_never_take_more(self, site, resource):
        steps = [replace(FP32, activation="fp32"), replace(FP32, activation="bf16"), BF16]
        steps += [replace(BF16, fidelity=fidelity) for fidelity in ("hifi3", "hifi2", "lofi")]
        steps += [replace(LOFI, weight="bfp8_b"), BFP8, replace(BFP8, weight="bfp4_b")]
        found = [meter().usage_of(site, scheme, resource) for scheme in steps]
        assert all(0 <= later <= earlier for earlier, later in itertools.pairwise(found))
        if not (resource.startswith("weight") and site.weight_elements == 0):
            assert found[-1] < found[0]

    @pytest.mark.parametrize("resource", RESOURCES)
    def test_boundaries_take_nothing_or_more(self, resource):
        for site, before, after in itertools.product(SITES, SCHEMES, SCHEMES):
            assert meter().boundary_usage_of(site, before, after, resource) >= 0
            assert meter().boundary_usage_of(site, after, after, resource) == 0
        timed = meter().boundary_usage_of(SITES[1], FP32, BF16, resource) > 0
        assert timed == (resource in ("seconds", "joules", "usd"))

    def test_passes_are_the_mean_over_all_macs(self):
        assert meter().policy_usage(mixed("00000"), "passes") == pytest.approx(4)
        assert meter().policy_usage(mixed("23232"), "passes") == pytest.approx(1)
        macs = [site.macs_per_second for site in SITES]
        by_hand = (sum(macs) + 3 * macs[3]) / sum(macs)
        assert meter().policy_usage(mixed("22202"), "passes") == pytest.approx(by_hand)

    def test_bits_are_without_padding_and_bytes_with_it(self):
        fc = SITES[0]
        assert meter().usage_of(fc, LOFI, "weight_bits") == 1000 * 250 * 8.5
        assert meter().usage_of(fc, LOFI, "weight_bytes") == 1024 * 256 * 8.5 / 8

    def test_joules_by_hand(self):
        model, site = meter().model, SITES[3]
        cost = model.site_cost(site, BF16)
        waiting = cost.seconds - cost.compute_seconds
        assert meter().usage_of(site, BF16, "joules") == pytest.approx(
            300 * (cost.compute_seconds + IDLE_SHARE * waiting)
        )
        cast = model.boundary_cost(site, BF16, BFP8)
        assert meter().boundary_usage_of(site, BF16, BFP8, "joules") == pytest.approx(300 * IDLE_SHARE * cast.seconds)

    def test_a_second_of_a_card_by_hand(self):
        hour = 1399 / (4 * 8766) + 0.3 * 1.2 * 0.08
        assert usd_per_second(DEVICES["p150a"]) == pytest.approx(hour / 3600)
        assert usd_per_second(DEVICES["p150a"], utilization=0.5) == pytest.approx(hour / 1800)
        price = Figure.of(500.0, "a quote", "2026-11-20")
        longer = usd_per_second(DEVICES["p150a"], Accounting(years=8), {"p150a": price})
        assert longer == pytest.approx((500 / (8 * 8766) + 0.3 * 1.2 * 0.08) / 3600)
        with pytest.raises(ValueError, match="utilization"):
            usd_per_second(DEVICES["p150a"], utilization=0.0)
        with pytest.raises(ValueError, match="no price of p150a"):
            usd_per_second(replace(DEVICES["p150a"], price_usd=None))

    def test_dollars_are_those_of_a_stream(self):
        policy = mixed("23201")
        served = serve(DEVICES["p150a"], SITES, policy)
        per_second = usd_per_second(DEVICES["p150a"], utilization=served.max_utilization)
        own = Meter(CostModel.of(DEVICES["p150a"], SITES, streams=served.middle.batch), SITES, per_second)
        thousand_hours = own.policy_usage(policy, "usd") * 3600 * 1000
        price = dollars(served).usd_per_1000_hours.middle
        assert price >= thousand_hours, "of the streams that a card carries none is a part of one"
        assert price == pytest.approx(thousand_hours, rel=2 / served.middle.streams_per_card)

    def test_what_cannot_be_had_is_refused(self):
        hopper = Meter(CostModel(DEVICES["h100_sxm"]), SITES)
        with pytest.raises(ValueError, match="no fidelity"):
            hopper.usage_of(SITES[0], Scheme("bf16", "bf16", "bf16"), "passes")
        with pytest.raises(ValueError, match="usd_per_second"):
            hopper.usage_of(SITES[0], Scheme("bf16", "bf16", "bf16"), "usd")
        with pytest.raises(ValueError, match="unknown resource 'watts'"):
            meter().usage_of(SITES[0], BF16, "watts")


def problem_of(arrays) -> Problem:
    return Problem(
        sites=tuple(site.name for site in SITES),
        options=tuple(tuple(scheme.name for scheme in SCHEMES) for _ in SITES),
        cost=arrays.cost,
        metrics=("damage",),
        damage=np.zeros((1, *arrays.cost.shape)),
        usage=arrays.usage,
        boundaries=arrays.boundaries,
    )


class TestArrays:
    @pytest.mark.parametrize("minimize", RESOURCES)
    def test_a_problem_adds_up_to_what_the_meter_reads_of_any_policy(self, minimize):
        allowed = np.ones((len(SITES), len(SCHEMES)), dtype=bool)
        within = dict.fromkeys(("seconds", "passes", "joules", "usd", "weight_bytes"), 0.9) | {"effective_bits": 9.0}
        arrays = search_arrays(meter(), SCHEMES, allowed, baseline=BF16, minimize=minimize, within=within)
        problem = problem_of(arrays)
        assert set(arrays.usage) == set(RESOURCES) == set(arrays.limits)
        whole = meter().policy_usage(mixed("00000"), "seconds")
        unit = {"passes": 1.0}.get(minimize, meter().policy_usage(mixed("00000"), minimize))
        for choice in itertools.product(range(len(SCHEMES)), repeat=len(SITES)):
            if sum(choice) % 7:
                continue
            policy = mixed("".join(map(str, choice)))
            found = {resource: meter().policy_usage(policy, resource) for resource in RESOURCES}
            for resource, used in found.items():
                assert problem.total(resource, choice) == pytest.approx(used, rel=1e-12)
            tied = minimize in ("passes", "weight_bytes", "weight_bits")
            tie = TIE * unit * found["seconds"] / whole if tied else 0.0
            assert problem.total_cost(choice) == pytest.approx(found[minimize] + tie, rel=1e-12)

    def test_limits_are_shares_of_the_baseline_and_bits_a_weight(self):
        allowed = np.ones((len(SITES), len(SCHEMES)), dtype=bool)
        within = {"joules": 0.5, "effective_bits": 8.5}
        arrays = search_arrays(meter(), SCHEMES, allowed, baseline=BF16, within=within)
        assert arrays.limits["joules"] == 0.5 * meter().policy_usage(mixed("00000"), "joules")
        problem, lofi = problem_of(arrays), (2,) * len(SITES)
        assert problem.total("weight_bits", lofi) == arrays.limits["weight_bits"], "8.5 bits are 8.5 bits"
        assert list(arrays.usage) == ["joules", "weight_bits"]
        with pytest.raises(ValueError, match=r"unknown resource 'watts'.*effective_bits"):
            search_arrays(meter(), SCHEMES, allowed, baseline=BF16, within={"watts": 1.0})

    def test_what_is_not_allowed_is_not_asked_for(self):
        schemes = (BF16, Scheme("none", "bf16", "bf16"))
        allowed = np.array([[True, False]] * len(SITES))
        arrays = search_arrays(meter(), schemes, allowed, baseline=BF16, minimize="passes")
        assert np.isposinf(arrays.cost[:, 1]).all()
        assert np.isfinite(arrays.cost[:, 0]).all()
        assert arrays.boundaries == ()
        assert arrays.usage == arrays.limits == {}

    def test_only_pairs_that_can_be_unlike_have_a_boundary(self):
        allowed = np.ones((len(SITES), len(SCHEMES)), dtype=bool)
        allowed[3] = [True, False, True, False]  # reads bf16 alone
        allowed[2] = [True, False, True, True]  # and what it reads is stored so
        boundaries = search_arrays(meter(), SCHEMES, allowed, baseline=BF16).boundaries
        assert [(met.first, met.second) for met in boundaries] == [(0, 1), (1, 2), (2, 4)]

    def test_nvidia_has_no_boundaries(self):
        schemes = (Scheme("bf16", "bf16", "bf16"), Scheme("fp8", "fp8_e4m3", "fp8_e4m3"))
        allowed = np.ones((len(SITES), 2), dtype=bool)
        arrays = search_arrays(meter("h100_sxm"), schemes, allowed, baseline=schemes[0], minimize="usd")
        assert arrays.boundaries == ()
        assert (arrays.cost[:, 1] < arrays.cost[:, 0]).all()


def test_the_summary_counts_the_typecasts():
    model = meter().model
    told = typecast_summary(model, SITES, mixed("03011"))
    casts = model.typecasts(SITES, mixed("03011"))
    assert told["count"] == len(casts) == 3
    assert told["seconds"] == math.fsum(cost.seconds for cost in casts.values())
    assert told["share"] == told["seconds"] / model.policy_seconds(SITES, mixed("03011"))
    assert typecast_summary(model, SITES, mixed("11111")) == {"count": 0, "seconds": 0, "share": 0}
