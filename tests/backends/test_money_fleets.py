"""Fleets, deadlines, waterfall, tornado and break-even: money beyond a ratio."""

import json
import math
from dataclasses import replace

import pytest

from backends.assumptions import Situation, assumptions, with_figure
from backends.deadlines import CHUNKS_MS, deadlines
from backends.devices import Figure, load_devices
from backends.fleet import REPORTED_USD, Carried, equal_fleets, fleet, lightning_v2
from backends.money import CHARACTERS_PER_SECOND, Accounting, Range, compare, dollars, hourly_usd
from backends.sensitivity import Verdict, break_even, tornado
from backends.waterfall import waterfall
from backends.workload import ClipWorkload, Side, Terms
from precision.policy import Policy, Scheme
from precision.site import Site

DEVICES = load_devices()
BF16 = Scheme("bf16", "bf16", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
HIFI4 = Scheme("hifi4", "bf16", "bf16", fidelity="hifi4")
LOFI = Scheme("lofi", "bfp8_b", "bf16", fidelity="lofi")
# Wide enough that a card carries some hundreds of streams, so that whole streams show.
SITES = tuple(
    Site(f"layer{index}", "linear", (2048, 2048), k=2048, n=2048, rows_per_second=3000.0) for index in range(6)
)
NAMES = [site.name for site in SITES]
WORKLOAD = ClipWorkload(SITES)
TERMS = Terms()
OURS = Side(DEVICES["p150a"], Policy.uniform(NAMES, LOFI), "lofi")
THEIRS = Side(DEVICES["l40s"], Policy.uniform(NAMES, BF16), "bf16")
BOUGHT = Accounting()


def situation(**changes) -> Situation:
    return replace(Situation(OURS.device, THEIRS.device, BOUGHT, TERMS), **changes)


def verdict(**changes) -> Verdict:
    return Verdict(WORKLOAD, OURS.policy, THEIRS.policy, situation(**changes))


def swapped() -> Situation:
    return situation(candidate=THEIRS.device, baseline=OURS.device)


@pytest.fixture(scope="module")
def comparison():
    return compare(*(WORKLOAD.serve(side.device, side.policy, TERMS, side.label) for side in (OURS, THEIRS)))


def test_like_with_like_both_sides_are_rooflines():
    alike = replace(TERMS, measured=False)
    for side in (OURS, THEIRS):
        assert WORKLOAD.at(side.device, side.policy, alike).evidence == {"roofline": pytest.approx(1.0)}
    first, second = (WORKLOAD.serve(OURS.device, OURS.policy, terms) for terms in (TERMS, alike))
    assert first == second, "a card that nobody measured costs the same"
    measured, roofline = (WORKLOAD.serve(THEIRS.device, THEIRS.policy, terms).middle for terms in (TERMS, alike))
    assert measured.evidence.get("roofline", 0.0) == 0.0
    assert measured.streams_per_card != roofline.streams_per_card


class TestFleet:
    def test_by_hand(self):
        card = replace(
            DEVICES["l40s"],
            price_usd=Figure(1000.0, "quote", "2026", 900.0, 1200.0),
            power_w=Figure.of(500.0, "label", "2026"),
        )
        found = fleet(Carried(card, Range(40.0, 30.0, 7.0), "here"), 100, Accounting(years=2, pue=1.5, usd_per_kwh=0.1))
        assert found.cards == Range(3.0, 4.0, 15.0)
        assert found.usd == Range(2700.0, 4000.0, 18000.0)
        assert found.power_kw == pytest.approx(4 * 0.5 * 1.5)
        assert found.usd_per_hour.middle == pytest.approx(4 * (1000 / (2 * 8766) + 0.5 * 1.5 * 0.1))

    def test_both_carry_what_was_asked_and_no_card_is_idle(self, comparison):
        ours, theirs = (Carried.of(side.serving) for side in (comparison.candidate, comparison.baseline))
        for streams in (1, 550, 12_345):
            both = equal_fleets(ours, theirs, streams)
            for one in (both.candidate, both.baseline):
                for cards, each in zip(one.cards.cases(), one.carried.streams.cases(), strict=True):
                    assert cards * each >= streams > (cards - 1) * each

    def test_a_card_that_carries_nothing_makes_no_fleet(self):
        nothing = Carried(DEVICES["l40s"], Range(0.0, 0.0, 0.0), "here")
        data = json.loads(json.dumps(fleet(nothing).to_dict(), allow_nan=False))
        assert data["cards"]["middle"] is data["usd"]["middle"] is data["power_kw"] is None
        with pytest.raises(ValueError, match="at least one stream"):
            fleet(nothing, 0)

    def test_rented_cards_are_paid_by_the_hour_and_need_such_a_price(self):
        rent = Accounting(rent=True)
        cards = Carried(DEVICES["l40s"], Range(50.0, 50.0, 50.0), "here")
        rented = DEVICES["l40s"].cloud_usd_per_hour
        assert fleet(cards, 550, rent).usd_per_hour == Range(11 * rented.low, 11 * rented.value, 11 * rented.high)
        with pytest.raises(ValueError, match="no price by the hour of p150a"):
            hourly_usd(DEVICES["p150a"], rent)

    def test_lightning_v2_from_its_published_numbers(self):
        found = lightning_v2(DEVICES)
        assert (found.candidate.cards.middle, found.baseline.cards.middle) == (27, 11)
        assert found.candidate.carried.streams.middle == pytest.approx(20.4, abs=0.05)
        assert found.baseline.carried.streams.middle == 50
        low, high = REPORTED_USD["candidate"]
        assert found.candidate.usd.low == pytest.approx(low, rel=0.01)
        assert found.candidate.usd.high == pytest.approx(high, rel=0.03)
        assert found.baseline.usd.high == pytest.approx(REPORTED_USD["baseline"][0], rel=0.01)
        # The reports' 2.7 to 3.7 times, at their price of an L40S.
        assert found.baseline.usd.high / found.candidate.usd.high == pytest.approx(2.65, abs=0.01)
        assert 1 / found.ratio.low == pytest.approx(3.71, abs=0.01)
        # More cards draw more: the year's bill narrows the gap.
        assert found.candidate.power_kw > found.baseline.power_kw
        assert found.ratio.middle < found.ratio_per_hour.middle < 1


class TestHours:
    def test_a_million_characters_by_hand(self, comparison):
        side = comparison.candidate
        hour = hourly_usd(OURS.device, BOUGHT) / side.serving.middle.streams_per_card
        assert side.usd_per_stream_hour.middle == pytest.approx(hour)
        assert side.usd_per_1000_hours.middle == pytest.approx(1000 * hour)
        spoken = side.usd_per_million_characters()
        assert spoken.middle == pytest.approx(1e6 / 15.2 / 3600 * hour)
        assert spoken.low < spoken.middle < spoken.high
        slow = side.usd_per_million_characters(Figure.of(7.6, "another script", "2026"))
        assert slow.middle == pytest.approx(2 * spoken.middle)
        assert CHARACTERS_PER_SECOND.low < 1_308_678 / (23 * 3600 + 55 * 60 + 17) < CHARACTERS_PER_SECOND.high

    def test_rent_takes_the_place_of_purchase_and_power(self):
        served = WORKLOAD.serve(THEIRS.device, THEIRS.policy, TERMS)
        rented = dollars(served, Accounting(rent=True))
        assert rented.usd_per_stream_hour.middle * served.middle.streams_per_card == pytest.approx(1.3)
        assert rented.cloud_usd_per_1000_hours.middle == pytest.approx(1000 * rented.usd_per_stream_hour.middle)
        assert rented.usd_per_stream == dollars(served).usd_per_stream


class TestDeadlines:
    def test_the_first_sound_waits_for_the_chunk_and_for_its_batch(self):
        rows = list(deadlines(WORKLOAD, OURS, THEIRS, TERMS))
        assert [row.chunk_ms for row in rows] == list(CHUNKS_MS)
        for row in rows:
            for side, card in ((row.candidate, OURS), (row.baseline, THEIRS)):
                by_hand = WORKLOAD.at(card.device, card.policy, replace(TERMS, chunk_seconds=row.chunk_ms / 1e3))
                assert side.cost == by_hand
                took = by_hand.batch * by_hand.seconds_per_audio_second * row.chunk_ms
                assert 1e3 * side.first_sound_seconds == pytest.approx(row.chunk_ms + took)
                # Nobody waits longer than the card may be busy.
                assert side.first_sound_seconds <= side.worst_first_sound_seconds <= 1.7 * row.chunk_ms / 1e3 + 1e-9
            assert row.ratio.low <= row.ratio.middle <= row.ratio.high

    def test_no_stream_has_no_first_sound(self):
        slow = ClipWorkload((replace(SITES[0], rows_per_second=1e9),))
        sides = [Side(one.device, Policy.uniform([NAMES[0]], one.policy[NAMES[0]]), "") for one in (OURS, THEIRS)]
        (row,) = deadlines(slow, *sides, TERMS, chunks_ms=[80.0])
        data = row.to_dict()
        assert data["candidate"] == {"streams": 0, "batch": 1, "first_sound_ms": None, "worst_first_sound_ms": None}
        assert data["ratio"]["middle"] is None


class TestWaterfall:
    def test_it_begins_at_one_stream_a_launch_and_ends_at_the_comparison(self, comparison):
        steps = waterfall(WORKLOAD, OURS, THEIRS, HIFI4, TERMS)
        assert [step.change for step in steps] == ["baseline", "batching", "card", "format", "fidelity"]
        assert steps[0].price.serving.middle.batch == 1
        assert steps[1].price == comparison.baseline
        assert steps[-1].price == comparison.candidate
        rows = [step.to_dict(steps[0]) for step in steps]
        assert rows[0]["ratio"] == 1
        assert rows[1]["ratio"] < 1, "batching pays"
        assert rows[-1]["ratio"] / rows[1]["ratio"] == pytest.approx(comparison.ratio.middle, rel=1e-3)
        assert steps[2].scheme == "hifi4"

    def test_a_gpu_has_no_fidelity(self):
        ours = Side(DEVICES["h100_sxm"], Policy.uniform(NAMES, FP8), "fp8")
        steps = waterfall(WORKLOAD, ours, THEIRS, BF16, TERMS)
        assert [step.change for step in steps] == ["baseline", "batching", "card", "format"]
        assert {step.price.serving.device.name for step in steps[2:]} == {"h100_sxm"}


class TestSensitivity:
    def test_a_dearer_card_and_a_worse_one_raise_the_ratio(self):
        middle = verdict().ratio()
        for key, better in (("price_usd", 0.5), ("power_w", 0.5), ("gemm_efficiency", 1.2), ("overhead_us", 0.5)):
            value = OURS.device.figures()[key].value
            changed = with_figure(OURS.device, key, value * better)
            assert verdict(candidate=changed).ratio() < middle, key
        dear = with_figure(THEIRS.device, "price_usd", 20_000.0)
        assert verdict(baseline=dear).ratio() < middle

    def test_the_ratio_is_that_of_an_hour(self, comparison):
        assert verdict().ratio() == pytest.approx(comparison.ratio_per_hour.middle)
        years = Accounting(years=1e9, usd_per_kwh=0.08)
        watts = 300 / comparison.candidate.serving.middle.streams_per_card
        theirs = 350 / comparison.baseline.serving.middle.streams_per_card
        assert verdict(accounting=years).ratio() == pytest.approx(watts / theirs, rel=1e-3), "electricity alone"

    def test_cores_bring_their_rate(self):
        card = with_figure(OURS.device, "cores", 60.0)
        assert card.rates_tflops["lofi"].value == pytest.approx(OURS.device.rates_tflops["lofi"].value / 2)
        assert card.sram_gb_per_s.value == pytest.approx(OURS.device.sram_gb_per_s.value / 2)
        with pytest.raises(ValueError, match="l40s has no figure 'cores'"):
            with_figure(THEIRS.device, "cores", 60.0)

    def test_every_end_is_priced_alone_and_the_widest_comes_first(self):
        found = tornado(verdict())
        assert len({swing.assumption.name for swing in found}) == len(found) >= 12
        assert [swing.width for swing in found] == sorted((swing.width for swing in found), reverse=True)
        by_name = {swing.assumption.name: swing for swing in found}
        price = by_name["l40s: price"]
        assert price.low == pytest.approx(verdict(baseline=with_figure(THEIRS.device, "price_usd", 7500.0)).ratio())
        assert price.low > price.middle > price.high, "at the low price of the baseline the candidate looks worse"
        years = by_name["years that a card is paid for"]
        assert (years.assumption.figure.low, years.assumption.figure.high) == (3, 5)
        assert years.high == pytest.approx(verdict(accounting=Accounting(years=5)).ratio())
        for row in json.loads(json.dumps([swing.to_dict() for swing in found], allow_nan=False)):
            assert row["source"]
            assert row["date"]
            assert row["low"] <= row["middle"] <= row["high"]

    def test_what_was_measured_has_its_own_error_and_a_roofline_none(self):
        found = {swing.assumption.name: swing for swing in tornado(verdict())}
        times = found["l40s: time of launches, of what is foretold"]
        low, high = times.assumption.figure.low, times.assumption.figure.high
        assert 0.5 < low < 1 < high < 2
        # Streams go as one over the time, but for whole ones.
        assert times.low / times.middle == pytest.approx(1 / low, rel=0.02)
        assert times.high / times.middle == pytest.approx(1 / high, rel=0.02)
        assert "p150a: time of launches, of what is foretold" not in found, "its figures say it all"
        assert found["l40s: overhead of a launch"].width == 1, "no figure of a card that was measured"
        told = {one.what: one.told for one in break_even(Verdict(WORKLOAD, THEIRS.policy, OURS.policy, swapped()))}
        assert told["l40s: overhead of a launch"].endswith("moves nothing here")

    def test_ranges_hold_what_a_recipe_says(self):
        odd = situation(accounting=Accounting(years=10, pue=3.0), terms=Terms(chunk_seconds=0.01))
        figures = {one.name: one.figure for one in assumptions(odd)}
        assert figures["years that a card is paid for"].high == 10
        assert figures["PUE of the site"].value == figures["PUE of the site"].high == 3
        assert figures["chunk of audio"].low == pytest.approx(10)
        rented = assumptions(situation(accounting=Accounting(rent=True)), chunk_is_free=False)
        names = {one.name for one in rented}
        assert "l40s: price by the hour" in names
        assert not names & {"l40s: price", "PUE of the site", "chunk of audio", "price of electricity"}


class TestBreakEven:
    def test_there_both_cost_the_same(self):
        found = {one.what: one for one in break_even(verdict())}
        price = found["p150a: price of a card"].value
        assert verdict(candidate=with_figure(OURS.device, "price_usd", price)).ratio() == pytest.approx(1)
        free = Accounting(usd_per_kwh=0.0)
        _, theirs, *_ = break_even(verdict(accounting=free))
        card = with_figure(THEIRS.device, "price_usd", theirs.value)
        assert verdict(baseline=card, accounting=free).ratio() == pytest.approx(1)
        needed = found["p150a: streams of a card"].value
        carried, theirs = verdict().streams(situation())
        assert verdict().ratio() * carried / needed == pytest.approx(1)
        assert str(theirs) in found["p150a: streams of a card"].told
        assert found["p150a: time of launches, of what is foretold"].value * needed == pytest.approx(carried)
        for key, name in (
            ("gemm_efficiency", "p150a: share of the peak that products reach"),
            ("overhead_us", "p150a: overhead of a launch"),
        ):
            one = found[name]
            sides = [
                verdict(candidate=with_figure(OURS.device, key, one.value * near)).ratio() for near in (0.999, 1.001)
            ]
            assert min(sides) < 1 < max(sides)
            jumps = max(sides) > 1.05 * min(sides)  # streams are whole, and batches powers of two
            assert ("the ratio jumps over 1" if jumps else "both cost the same") in one.told

    def test_where_nothing_turns_it_says_so(self):
        # Power that no price makes good, and an efficiency that no card has.
        hungry = with_figure(OURS.device, "power_w", 1e6)
        found = {one.what: one for one in break_even(verdict(candidate=hungry))}
        assert found["p150a: price of a card"].value is None
        assert "at no price" in found["p150a: price of a card"].told
        efficiency = found["p150a: share of the peak that products reach"]
        assert efficiency.value is None
        assert "costs more throughout" in efficiency.told
        assert found["l40s: price of a card"].value > 1e5

    def test_rented_cards_turn_at_a_price_by_the_hour(self):
        ours = replace(OURS.device, cloud_usd_per_hour=Figure(0.5, "a quote", "2026-11-20", 0.4, 0.6))
        rented = {"candidate": ours, "accounting": Accounting(rent=True)}
        (first, *_) = break_even(verdict(**rented))
        assert first.unit == "USD/h"
        turned = with_figure(ours, "cloud_usd_per_hour", first.value)
        assert verdict(**(rented | {"candidate": turned})).ratio() == pytest.approx(1)

    def test_what_carries_nothing_is_told(self):
        slow = ClipWorkload((replace(SITES[0], rows_per_second=1e9),))
        found = Verdict(slow, OURS.policy, THEIRS.policy, situation())
        assert math.isnan(found.ratio())
        (one,) = break_even(found)
        assert one.value is None
        assert "p150a carries no stream" in one.told
