"""What a report says of a small study, section by section."""

import json
from pathlib import Path

import pytest

from precision_search.report import write_report
from tests.precision_search.report_study import METRICS, SITES, Reader, changed, money, page_of, text_of, write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "tts_blackhole")


@pytest.fixture(scope="module")
def page(folder) -> str:
    return page_of(folder)


def test_what_no_site_computes_is_told_with_a_warning_where_it_is_much(folder, page, tmp_path):
    assert "under 99%" not in page
    assert "outside of all sites" not in page

    def lose(summary):
        summary |= {"covered_mac_share": 0.5, "outside": [{"module": "odd.fft", "mac_share": 0.5}]}

    text = Reader.of(write_report(changed(folder, tmp_path / "half", "summary.json", lose)).read_text()).text
    assert "The sites are 50.00% of the MACs, under 99%" in text
    assert "outside of all sites: odd.fft 50" in text


class TestContents:
    def test_the_verdict_comes_first_with_shares_and_price(self, page):
        text = Reader.of(page).text
        verdict = text[text.index("Verdict") : text.index("Gates")]
        assert "✓ Kept : all of the 5 gates hold." in verdict
        assert "LoFi share of MACs 97.3 %" in verdict
        assert "bfp8_b share of weights 91.0 %" in verdict
        assert "FP8" not in verdict
        assert "on l40s" in verdict
        assert "1 gate could not be judged" in verdict

    @pytest.mark.parametrize(
        ("found", "told"),
        [
            (
                {"count": 5, "seconds": 2.5e-06, "share": 0.0496},
                "each behind a typecast: 5. Typecasts are 5.0 % of the policy's time",
            ),
            ({"count": 0, "seconds": 0.0, "share": 0.0}, "the policy has no typecasts"),
        ],
    )
    def test_typecasts_are_told_where_they_were_counted(self, folder, page, tmp_path, found, told):
        study = changed(folder, tmp_path / "s", "summary.json", lambda summary: summary.update(typecasts=found))
        assert told in Reader.of(write_report(study).read_text(encoding="utf-8")).text
        assert told not in Reader.of(page).text

    def test_on_hopper_the_share_of_fp8_is_told(self, folder, tmp_path):
        study = changed(
            folder, tmp_path / "hopper", "summary.json", lambda s: s.update(backend="hopper", fp8_mac_share=0.5)
        )
        text = Reader.of(write_report(study).read_text(encoding="utf-8")).text
        assert "FP8 share of MACs 50.0 %" in text
        assert "LoFi share of MACs" not in text

    def test_a_broken_gate_is_named_where_the_eye_falls_first(self, folder, tmp_path):
        def broken(summary):
            summary["verdict"] = "broken"
            summary["gates"][0] |= {"value": 2.75, "margin": -0.25, "kept": False}

        page = write_report(changed(folder, tmp_path / "broken", "summary.json", broken)).read_text(encoding="utf-8")
        text = Reader.of(page).text
        assert "✗ Broken : 1 of 5 gates does not hold." in text
        assert "lsd_db (mean) is 2.75, must be ≤ 2.5" in text
        assert "110.0 % of the allowance used, broken" in text

    def test_a_verdict_that_its_gates_deny_is_doubted(self, folder, tmp_path):
        study = changed(folder, tmp_path / "s", "summary.json", lambda s: s["gates"][0].update(kept=False))
        assert "do not rely on it" in write_report(study).read_text(encoding="utf-8")

    def test_yardsticks_stand_beside_the_gates_and_a_model_without_sound_has_no_players(self, folder, tmp_path):
        def told(summary):
            summary["comparison"] = {"family": "understanding", "forced": "the same tokens", "judged": ["tokens"]}
            summary["statistics"] = {"lsd_db": {"mean": 1.25, "worst": 2.0, "tail": 1.9, "resolvable_change": "nan"}}
            summary["unforced"] = {"clips": 2, "same_length": 1, "length_change": 0.01, "kept": False, "gates": []}
            summary["sound"] = False

        page = write_report(changed(folder, tmp_path / "s", "summary.json", told)).read_text(encoding="utf-8")
        text = Reader.of(page).text
        assert "Own bf16" in text
        assert "judged by tokens, with the same on both sides: the same tokens" in text
        assert "1.25" in text
        assert "The last check, with nothing forced on the model, is broken" in text
        assert 'id="listening"' not in page
        assert "Listening" not in text

    def test_a_study_from_before_the_yardsticks_has_the_baseline_beside(self, folder, tmp_path):
        def old(summary):
            for gate in summary["gates"]:
                gate["bf16_value"] = gate.pop("beside")["baseline"]

        text = Reader.of(write_report(changed(folder, tmp_path / "s", "summary.json", old)).read_text("utf-8")).text
        assert "Baseline" in text
        assert "Own bf16" not in text

    def test_gates_that_could_not_be_judged_give_their_reason(self, page):
        assert "needs the natural recording" in Reader.of(page).text

    def test_chosen_and_refused_cells_of_the_heat_map(self, page):
        reader = Reader.of(page)
        cells = [cell for cell in reader.all("td") if cell.get("class")]
        assert sum("chosen" in cell["class"].split() for cell in cells) == len(SITES) * len(METRICS)
        refused = [cell for cell in cells if cell["class"] == "refused"]
        assert len(refused) == len(METRICS)
        assert all("no such convolution" in cell["title"] for cell in refused)
        assert f"{SITES[0].name} (lofi_bfp4)" in reader.text

    def test_the_order_of_predictions_is_told(self, page):
        text = Reader.of(page).text
        assert text.count("Spearman rank correlation: 1 on the search's clips (8 candidates)") == len(METRICS)
        assert "too few or equal values on clips held back (1 candidate)" in text

    def test_marks_of_candidates_tell_digest_and_shares_and_differ_in_shape(self, page):
        reader = Reader.of(page)
        assert "share of MACs:" in reader.text
        marks = [attributes for _, attributes in reader.tags if attributes.get("class") == "mark"]
        assert all(mark["data-told"] and mark["tabindex"] in ("0", "-1") for mark in marks)
        told = [mark["data-told"] for mark in marks if {"predicted", "MACs:"} & set(mark["data-told"].split())]
        assert len(told) == 9 * (1 + len(METRICS))

    def test_cost_with_its_range_assumptions_and_sources(self, page, folder):
        text = Reader.of(page).text
        cost = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cost"]
        assert f"{cost['candidate']['serving']['low']['streams_per_card']:,}" in text
        assert all(" ".join(sentence.split()) in text for sentence in cost["assumptions"])
        assert all(" ".join(entry["source"].split()) in text for entry in cost["sources"])

    def test_the_policy_gives_reasons(self, page):
        text = Reader.of(page).text
        assert "protected: makes the phase" in text
        assert "breaks lsd_db" in text
        assert "fidelity_rounding" in text

    def test_players_hold_the_samples_at_16_bits(self, page):
        players = Reader.of(page).all("audio")
        assert [player["aria-label"] for player in players] == [
            f"{clip}, {side}" for clip in ("anna", "bruno") for side in ("reference", "candidate")
        ]
        assert all(player["src"].startswith("data:audio/wav;base64,") for player in players)
        assert len(Reader.of(page).all("img")) == 4 * 2


class TestCost:
    def test_the_first_screen_has_the_ratio_with_its_range_and_what_it_rests_on(self, page, folder):
        cost = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cost"]
        text = Reader.of(page).text
        first = text[text.index("Verdict") : text.index("Gates")]
        assert f"{cost['ratio']:.3g} \u00d7 l40s's , {cost['low']:.3g} to {cost['high']:.3g}" in first
        hour = cost["ratio_per_hour"]
        told = f"{hour['middle']:.3g} ({hour['low']:.3g} to {hour['high']:.3g})"
        assert f"Cost of a stream, card bought {cost['ratio']:.3g} \u00d7" in first
        assert f"Cost of its hour, electricity included {hour['middle']:.3g} \u00d7 l40s's , {hour['low']:.3g}" in first
        assert f"An hour of a stream, electricity included, costs {told} times what it costs there" in text
        assert "0 % measured, 25.0 % calibrated, 75.0 % roofline" in first

    def test_what_is_rented_is_called_so(self, folder, tmp_path):
        study = changed(folder, tmp_path / "s", "summary.json", lambda s: s["cost"].update(basis="rented"))
        text = text_of(study)
        for said in (
            "Cost of its hour, rented",
            "Dollars an hour, rented",
            "Dollars per million characters, card rented",
        ):
            assert said in text
        assert "0.414 (0.27 to 0.49) times to buy and 0.667 (0.43 to 1) times an hour, rented" in text
        assert "electricity included" not in text

    def test_an_end_at_which_no_stream_is_carried_is_not_said_to_turn_nothing(self, folder, tmp_path):
        def lost(summary):
            for row in summary["cost"]["sensitivity"]:
                row["ratio_low"], row["ratio_high"] = (0.3, 0.5) if row["assumption"] == "PUE" else (None, 0.3)

        text = text_of(changed(folder, tmp_path / "s", "summary.json", lost))
        assert "p150a: share of the peak that products reach a card carries no stream. Of the others: None" in text

    def test_fleets_deadlines_break_even_and_prices_of_the_recipe(self, page):
        text = Reader.of(page).text
        for said in (
            "Cards for 550 streams at once",
            "27 (20 to 40)",
            "$91,300 ($82,000 to $100,000)",
            "80 ms 240 (80) 82.5 to 136 160 (80) 83.5 0.4 (0.2 to 0.9)",
            "p150a: overhead of a launch nowhere it costs less throughout",
            "Dollars per million characters, card bought $0.02 ($0.01 to $0.03)",
            "p150a: price usd $1,234 2026-11 a quote",
            "of the baseline's 60.0 % measured, 40.0 % calibrated, 0 % roofline",
        ):
            assert said in text
        assert "is older than" not in text

    def test_a_study_of_older_code_says_what_it_lacks(self, folder, tmp_path):
        def old(summary):
            for key in money():
                del summary["cost"][key]

        text = text_of(changed(folder, tmp_path / "s", "summary.json", old))
        assert (
            "The study is older than what its seconds rest on, the steps from the baseline, fleets, break-even" in text
        )
        assert "Evidence of its seconds" not in text
        assert "From the baseline to the policy" not in text

    @pytest.mark.parametrize("odd", [None, 3, "text", [], {}, [None, {}], {"candidate": 3, "baseline": [1]}])
    def test_blocks_that_are_something_else_do_not_break_the_page(self, folder, tmp_path, odd):
        study = changed(folder, tmp_path / "s", "summary.json", lambda s: s["cost"].update(dict.fromkeys(money(), odd)))
        assert "Cost against l40s" in text_of(study)


class TestProvenance:
    def test_versions_digests_seed_and_sources_are_told(self, page):
        text = Reader.of(page).text
        provenance = text[text.rindex("Provenance") :]
        for said in (
            "seed 0",
            "recipe digest 0123456789abcdef",
            "torch 2.13",
            "time of the search 7 min",
            "damage.json",
        ):
            assert said in provenance
        assert "Neither the log nor the folder holds the recipe" in provenance

    def test_the_recipe_is_given_as_it_was_run(self, folder, tmp_path):
        study = changed(folder, tmp_path / "s", "summary.json", lambda summary: None)
        (study / "recipe.yaml").write_text("version: 1\nname: <tts>\n", encoding="utf-8")
        text = text_of(study)
        assert "version: 1 name: <tts>" in text
        assert "precision-search run FILE" in text
