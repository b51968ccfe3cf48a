"""`precision-search cost`: what is priced, unheard."""

import json

import pytest

from precision_search.commands import CommandError, check
from precision_search.main import main
from precision_search.pricing import UNHEARD, price
from precision_search.setting import SetupError
from precision_search.wire import read_recipe

SEVEN_B = "blvoice_7b_hopper"


@pytest.fixture(scope="module")
def seven_b():
    return price(SEVEN_B, ())


class TestSevenB:
    def test_first_sound_frame_time_and_streams_stand_beside_what_is_reported(self, seven_b):
        text = seven_b.text
        assert UNHEARD in text
        assert "137 ms (62 first token + 41 reasoning + 34 first frame)" in text
        reported, ours = seven_b.data["reported"], seven_b.data["columns"]["cheapest"]
        assert (reported["first_ms"], reported["streams"]) == (137, 312)
        for case in ("low", "middle", "high"):
            parts = dict(ours["first_sound_ms"]["32"][case])
            assert parts.pop("all") == pytest.approx(sum(parts.values()))
            assert parts["frame"] == 80
            assert parts["passes"] + parts["codec"] == pytest.approx(8 * ours["pass_ms"]["32"][case])
            assert ours["frame_ms"][case] <= 0.7 * 80
        assert sum(ours["pass_parts_ms"].values()) == pytest.approx(ours["pass_ms"]["32"]["middle"])

    def test_the_cheapest_allowed_keeps_codec_and_heads_wide(self, seven_b):
        chosen = seven_b.data["cheapest_schemes"]
        wide = {name for name, scheme in chosen.items() if scheme == "bf16"}
        assert wide == {name for name in chosen if name.startswith("codec.") or "_head" in name}
        baseline, cheapest = (seven_b.data["columns"][key] for key in ("baseline", "cheapest"))
        assert cheapest["row_kib"] == baseline["row_kib"] / 2 == 32
        assert cheapest["streams"]["middle"] > baseline["streams"]["middle"]
        assert cheapest["ratio"]["middle"] < baseline["ratio"]["middle"]

    def test_each_change_is_said_and_what_312_streams_would_be(self, seven_b):
        changes, reported = seven_b.data["changes"], seven_b.data["reported"]
        assert changes[0]["streams"] == seven_b.data["columns"]["cheapest"]["streams"]
        assert changes[1]["streams"] == reported["streams_in_batches"]
        assert changes[1]["streams"]["high"] < 312 < changes[1]["streams"]["low"]
        assert all(change["what"] in seven_b.text for change in changes)
        assert reported["passes_a_frame"] == 10
        assert reported["busy_in_batches"]["middle"] == pytest.approx(10 * reported["pass_ms"]["middle"] / 80)
        held = reported["rows_in_memory"] * 312 * 32768
        assert 0.9 * 80e9 - seven_b.data["columns"]["cheapest"]["weight_gb"] * 1e9 == pytest.approx(held, rel=0.01)

    def test_speculation_is_said_by_acceptance(self, seven_b):
        found = seven_b.data["speculation"]
        assert found["expected_rows"] == pytest.approx((1 - 0.6**4) / 0.4)
        alone, *_, full = found["rows"]
        assert alone["with_ms"]["middle"] < alone["without_ms"]["middle"]
        assert alone["needed_acceptance"]["middle"] < full["needed_acceptance"]["middle"]

    def test_all_of_it_is_json_with_assumptions_and_sources(self, seven_b):
        data = json.loads(json.dumps(seven_b.data, allow_nan=False))
        assert data["heard"] is False
        assert all(source["source"] for source in data["sources"])
        assert any("CUDA graph" in line for line in data["assumptions"])

    def test_fleets_and_what_moves_the_ratio_are_told_of_a_decoder_too(self, seven_b):
        money, columns = seven_b.data["money"], seven_b.data["columns"]
        assert money["candidate"]["usd_per_stream"] == columns["cheapest"]["usd_per_stream"]
        assert money["waterfall"][-1]["usd_per_stream"] == columns["cheapest"]["usd_per_stream"]
        assert money["waterfall"][1]["usd_per_stream"] == columns["against"]["usd_per_stream"]
        assert [step["change"] for step in money["waterfall"]] == ["baseline", "batching", "card", "format"]
        assert money["deadlines"] == [], "its frame is its chunk"
        assert not any(row["assumption"] == "chunk of audio" for row in money["sensitivity"])
        cards = money["fleet"]["candidate"]["cards"]
        assert cards["middle"] == -(-550 // columns["cheapest"]["streams"]["middle"])
        assert "550 streams: cards" in seven_b.text

    def test_it_can_be_priced_alone(self):
        with pytest.raises(SetupError, match="on paper"):
            check(SEVEN_B, ())

    def test_no_search_reads_what_decoding_is_assumed_to_be(self):
        changed = read_recipe(SEVEN_B, ["decoding.context_rows=7"])
        assert changed.digest == read_recipe(SEVEN_B, ()).digest
        assert (changed.decoding.context_rows, changed.decoding.prompt_rows) == (7, 125)
        assert read_recipe("tts_hopper", ()).decoding.draft is None


class TestClips:
    def test_a_recipe_is_priced_at_its_baseline_and_at_its_cheapest(self, tiny, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(["cost", str(tiny.recipe), "--json"])
        assert exit_.value.code == 0
        data = json.loads(capsys.readouterr().out)
        assert data["kind"] == "clips"
        assert data["cheapest"]["ratio"] < data["baseline"]["ratio"]
        assert set(data["cheapest_schemes"].values()) <= {"lofi", "bold"}
        assert not (tiny.folder / "studies").exists()
        # What the card refuses is never the cheapest.
        found = price(str(tiny.recipe), ["schemes.bold.activation=bfp4_b"])
        assert set(found.data["cheapest_schemes"].values()) == {"lofi"}
        assert UNHEARD in found.text
        assert "lofi at 11 sites (100.0% of MACs); 11 choices are refused" in found.text

    def test_money_is_told_with_the_recipe_own_prices(self, tiny):
        quote = "{value: 700, source: a quote of the maker, date: 2026-11-20}"
        plain = price(str(tiny.recipe), ())
        found = price(str(tiny.recipe), [f"cost.prices.p150a={quote}", "cost.fleet_streams=1000"])
        data, before = (json.loads(json.dumps(one.data["cheapest"], allow_nan=False)) for one in (found, plain))
        assert price(str(tiny.recipe), ()).data == plain.data, "the same recipe, the same figures"
        assert data["ratio"] == pytest.approx(before["ratio"] * 700 / 1399, rel=1e-3)
        assert [(entry["device"], entry["figure"], entry["date"]) for entry in data["prices"]] == [
            ("p150a", "price_usd", "2026-11-20")
        ]
        assert data["fleet"]["streams"] == 1000
        assert data["ratio_by_roofline"]["middle"] == pytest.approx(
            before["ratio_by_roofline"]["middle"] / 1399 * 700, 1e-3
        )
        first, *_, last = data["waterfall"]
        assert (first["batch"], first["ratio"]) == (1, 1)
        assert last["usd_per_stream"] == data["candidate"]["usd_per_stream"]
        assert data["waterfall"][1]["usd_per_stream"] == data["baseline"]["usd_per_stream"]
        assert [row["chunk_ms"] for row in data["deadlines"]] == [80, 160, 320, 500]
        assert data["deadlines"][-1]["candidate"]["streams"] == data["streams"]["candidate"]
        middles = {row["ratio_middle"] for row in data["sensitivity"]}
        assert middles == {data["ratio_per_hour"]["middle"]}
        for line in (
            "1000 streams: cards",
            "a quote of the maker",
            "USD for a million characters",
            "with both sides by a roofline a stream costs",
            "both cost the same",
        ):
            assert line in found.text, line
        for row in data["sensitivity"][:5]:
            assert row["assumption"] in found.text

    def test_what_is_rented_needs_a_price_by_the_hour(self, tiny):
        with pytest.raises(
            SetupError, match=r"cost\.rent: no price by the hour of p150a is known; .* cost\.cloud_prices"
        ):
            price(str(tiny.recipe), ["cost.rent=true"])
        hourly = "cost.cloud_prices.p150a={value: 0.5, source: a quote, date: 2026-11}"
        data = price(str(tiny.recipe), ["cost.rent=true", hourly]).data["cheapest"]
        assert data["basis"] == "rented"
        streams = data["streams"]
        told = data["usd_per_stream_hour"]
        assert told["candidate"]["middle"] * streams["candidate"] == pytest.approx(0.5, rel=1e-3)
        assert told["baseline"]["middle"] * streams["baseline"] == pytest.approx(1.3, rel=1e-3)

    def test_limits_hold_here_too(self, tiny):
        with pytest.raises(CommandError, match=r"search\.within"):
            price(str(tiny.recipe), ["search.within.seconds=0.001"])


def test_a_decoder_that_speaks_is_priced_as_one_where_its_recipe_says_so():
    changes = ["data.search=1", "data.held_back=2", "decoding.context_rows=100", "decoding.prompt_rows=10"]
    with pytest.raises(CommandError, match=r"decoding\.draft: a draft has 1 to 4 layers .* got 5 layers of 64"):
        price("decoder_blackhole", [*changes, "decoding.draft={layers: 5, width: 64, acceptance: 0.5, drafted: 2}"])
    found = price("decoder_blackhole", changes)
    assert found.data["kind"] == "decoder"
    assert "million weights, " in found.text
    assert found.data["reported"] is None
    assert found.data["speculation"] is None
    assert found.data["columns"]["cheapest"]["streams"]["middle"] > 0
