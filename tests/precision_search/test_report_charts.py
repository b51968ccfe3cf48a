"""Charts of a report: inline, small, of the page's colours, and told on hover."""

import re
import subprocess
import sys

import pytest

from precision_search.report.allowance import PERFECT, used
from precision_search.report.chart import BAD, GOOD, INK, blank, drawing, svg
from precision_search.report.gates import GateRow
from precision_search.report.margins import margins
from precision_search.report.scatter import Mark, Scatter, Span
from precision_search.report.tornado import tornado
from precision_search.report.waterfall import waterfall
from tests.precision_search.report_study import EVIL, Reader, changed, money, page_of, write_study


def drawn(told: dict[str, str], title: str = "A chart", axis: str = "x") -> str:
    with drawing():
        figure = blank(200)
        axes = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        axes.set_xlabel(axis)
        for number, name in enumerate(told):
            axes.barh([number], [number + 0.123456], color=BAD if number else GOOD, hatch="//", gid=name, edgecolor=INK)
            axes.patches[-1].set_gid(name)
    return svg(figure, title=title, told=told, described="What it says.")


def marks_of(page: str) -> list[dict[str, str | None]]:
    return [attributes for _, attributes in Reader.of(page).tags if attributes.get("class") == "mark"]


class TestSvg:
    def test_it_is_an_image_with_a_name_that_text_and_marks_can_be_read_in(self):
        found = drawn({"a": "first", "b": "second"})
        reader = Reader.of(found)
        root = reader.all("svg")[0]
        ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
        assert found.startswith("<svg ")
        assert root["role"] == "img"
        assert {root["aria-labelledby"], root["aria-describedby"]} <= set(ids)
        assert [mark["data-told"] for mark in marks_of(found)] == ["first", "second"]
        assert all(mark["tabindex"] == "0" for mark in marks_of(found))
        assert "<title>first</title>" in found
        assert "What it says." in reader.text

    def test_nothing_of_matplotlib_is_left_but_shapes(self):
        found = drawn({"a": "first"})
        for text in ("<?xml", "<!DOCTYPE", "metadata", "font-family", "matplotlib", "<style", "xmlns"):
            assert text not in found
        assert not re.search(r"\d\.\d{3}", found)

    def test_colours_are_the_page_s(self):
        found = drawn({"a": "first", "b": "second"})
        assert "currentColor" in found
        assert "var(--chart-good" in found
        assert not re.search(r"#(0[1-6]){3}", found)

    def test_two_charts_share_no_id_and_refer_to_their_own(self):
        charts = [drawn({"a": "first"}, title) for title in ("One", "Two")]
        ids = [{attributes["id"] for _, attributes in Reader.of(chart).tags if "id" in attributes} for chart in charts]
        assert not ids[0] & ids[1]
        for chart, own in zip(charts, ids, strict=True):
            assert set(re.findall(r"url\(#([^)]*)\)", chart)) | set(re.findall(r'href="#([^"]*)"', chart)) <= own

    def test_what_is_told_and_named_is_escaped(self):
        found = drawn({"a": EVIL}, EVIL, EVIL)
        reader = Reader.of(found)
        assert not reader.all("script")
        assert marks_of(found)[0]["data-told"] == EVIL
        assert reader.text.count("alert('x')") == 3

    def test_a_dollar_is_no_formula(self):
        assert "$a_b$" in Reader.of(drawn({"a": "x"}, axis="$a_b$")).text

    def test_a_user_s_settings_change_nothing(self):
        import matplotlib

        before = drawn({"a": "first"})
        with matplotlib.rc_context(
            {"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red", "text.usetex": True}
        ):
            assert drawn({"a": "first"}) == before

    def test_another_process_writes_the_same_bytes(self):
        here = Scatter(
            Span.of("x", [1.0, 2.0]), Span.of("y", [1.0, 99.0]), [Mark(1.0, 2.0, True, True, "t")], title="T"
        )
        code = (
            "from precision_search.report.scatter import *\n"
            "x, y = Span.of('x', [1.0, 2.0]), Span.of('y', [1.0, 99.0])\n"
            "print(Scatter(x, y, [Mark(1.0, 2.0, True, True, 't')], title='T').to_svg(), end='')"
        )
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert there == here.to_svg()


class TestAllowance:
    def test_it_is_nothing_where_perfect_and_all_at_the_threshold(self):
        for metric, best in PERFECT.items():
            assert used(metric, "min", best - 0.5, best) == 0.0
            assert used(metric, "min", best - 0.5, best - 0.5) == pytest.approx(1.0)
        assert used("lsd_db", "max", 2.0, 3.0) == 1.5

    def test_where_nothing_is_allowed_all_that_differs_is_beyond(self):
        assert used("length_samples", "max", 0.0, 0.0) == 0.0
        assert used("length_samples", "max", 0.0, 1.0) == float("inf")
        assert used("lsd_db", "max", 1.0, float("nan")) == float("inf")

    def test_what_is_not_known_is_not_told(self):
        assert used("my_own_score", "min", 3.0, 4.0) is None
        assert used("estoi", "min", 1.5, 1.0) is None
        assert used("lsd_db", "", 1.0, 0.5) is None


def gate(metric: str, side: str, threshold: float, value: float, beside: float | None = None) -> GateRow:
    kept = value >= threshold if side == "min" else value <= threshold
    yardsticks = {} if beside is None else {"bf16": beside}
    return GateRow(metric, "mean", side, threshold, value, abs(value - threshold), kept, yardsticks)


class TestMargins:
    def test_the_tightest_gate_is_first_with_its_yardstick(self):
        found = margins([gate("lsd_db", "max", 2.0, 0.5), gate("estoi", "min", 0.9, 0.92, 0.99)])
        told = [mark["data-told"] for mark in marks_of("".join(found))]
        assert told[0].startswith("estoi (mean): 0.92, must be \u2265 0.9; 80.0 % of the allowance used, kept")
        assert told[0].endswith("its own bf16: 0.99")
        assert told[1].startswith("lsd_db (mean): 0.5")

    def test_a_broken_gate_is_hatched_and_a_hopeless_one_drawn_at_the_edge(self):
        kept, broken, hopeless = (
            "".join(margins([gate("lsd_db", "max", 2.0, value)])) for value in (1.0, 2.2, float("nan"))
        )
        assert "pattern" not in kept
        assert "pattern" in broken
        assert "more than all of the allowance" in hopeless

    def test_a_gate_whose_best_value_nobody_knows_is_named(self):
        assert "No best value is known of my_score (mean)" in "".join(margins([gate("my_score", "min", 1.0, 2.0)]))


class TestMoney:
    def test_every_step_of_the_waterfall_is_a_mark_and_a_row(self):
        found = "".join(waterfall(money()))
        told = [mark["data-told"] for mark in marks_of(found)]
        assert len(told) == 6
        assert told[2].startswith(
            "Tenstorrent Blackhole p150a, bf16: $0.12 a stream ($0.084 to $0.228), 1.2 times the step"
        )
        assert "0.1 times the start" in told[-1]
        assert len(Reader.of(found).all("tr")) == 6
        assert "pattern" in found  # the one step that makes a stream dearer

    def test_steps_far_apart_and_without_a_price_are_drawn(self):
        steps = [{"step": str(usd), "usd_per_stream": {"middle": usd}} for usd in (1000.0, 0.5, 0.001, None, "nan")]
        assert len(marks_of("".join(waterfall({"waterfall": steps})))) == 4

    @pytest.mark.parametrize("block", [None, [], [3], [{"step": "x"}], {"a": 1}, "text"])
    def test_no_steps_and_no_sensitivities_are_no_picture(self, block):
        assert waterfall({"waterfall": block}) == ()
        assert not marks_of("".join(tornado({"ratio": 1.0, "sensitivity": block})))

    def test_the_tornado_says_what_can_turn_the_verdict(self):
        found = "".join(tornado(money()))
        assert "Only p150a: share of the peak that products reach can turn the verdict alone." in Reader.of(found).text
        told = marks_of(found)[0]["data-told"]
        assert told == "l40s: price by the hour\nat 0.79 USD/h: ratio 0.8\nat 3.5 USD/h: ratio 0.2"

    def test_many_assumptions_are_cut_and_the_table_has_all(self):
        entry = money()["sensitivity"][0]
        found = "".join(tornado({"sensitivity": [entry | {"assumption": f"a{index}"} for index in range(15)]}))
        assert len(marks_of(found)) == 10
        assert "5 assumptions more move it less" in found
        assert len(Reader.of(found).all("tr")) == 16


class TestHeat:
    def test_every_cell_that_was_offered_tells_its_site(self, tmp_path):
        def lose(damage):
            damage["sites"][0]["options"] = damage["sites"][0]["options"][:2]

        study = changed(write_study(tmp_path / "whole", seconds=0.2), tmp_path / "s", "damage.json", lose)
        page = page_of(study)
        cells = marks_of(page[page.index('<section id="damage"') : page.index('<section id="prediction"')])
        assert all(mark["tabindex"] == "-1" for mark in cells)
        told = [mark["data-told"] for mark in cells]
        assert len(cells) == 12 * 4 - 2
        assert sum("(chosen)" in text for text in told) == 11  # the first site's was one of the two
        assert "vocoder.stages.1.convs.0, hifi2_bfp8: lsd_db 0.12, 4.8 % of what is allowed" in told
