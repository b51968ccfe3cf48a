"""The report in a browser: what one hears, touches, tabs to and reads on a phone, without a network or a fault."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from scipy.stats import binom

from precision_search.report import write_report
from tests.precision_search.report_browser import (
    ARGUMENTS,
    CHROMIUM,
    CONTRASTS,
    DESK,
    EAVESDROP,
    NAME,
    PHONE,
    act,
    mark_of_front,
    opened,
    play,
    score,
    told_by,
    trial,
)
from tests.precision_search.report_study import write_study

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_study(tmp_path_factory.mktemp("browser") / "tts_blackhole"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield found
        found.close()


class TestPage:
    @pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_is_legible_and_asks_nothing_of_the_network(self, browser, report, viewport, scheme):
        with opened(browser, report, viewport=viewport, color_scheme=scheme) as watched:
            page = watched.page
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            found = page.evaluate(CONTRASTS)
            assert len(found) > 200
            assert [told for told in found if told[0] < 4.5] == []
            assert watched.requests == [report.as_uri()]

    def test_forced_colours_print_and_no_motion_break_nothing(self, browser, report):
        with opened(browser, report, forced_colors="active", reduced_motion="reduce") as watched:
            page = watched.page
            assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
            assert page.locator("#abx-test button").first.evaluate("b => getComputedStyle(b).borderTopWidth") != "0px"
            page.emulate_media(media="print", color_scheme="dark", forced_colors="none")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not page.locator("audio").first.is_visible()
            assert page.locator("#verdict").is_visible()
            assert page.pdf().startswith(b"%PDF")

    def test_what_a_screen_reader_needs(self, browser, report):
        with opened(browser, report) as watched:
            page = watched.page
            levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => +h.tagName[1])")
            assert levels[0] == 1
            assert levels.count(1) == 1
            assert max(np.diff(levels)) <= 1
            alts = page.evaluate("[...document.images].map((image) => image.alt)")
            assert len(alts) == 8
            assert all(" dB" in alt or " kHz" in alt or " rad" in alt for alt in alts)
            for role in ("button", "slider", "checkbox", "combobox", "progressbar", "textbox"):
                for control in page.get_by_role(role, include_hidden=True).all():
                    snapshot = control.evaluate(NAME)
                    assert snapshot.strip(), control.evaluate("element => element.outerHTML")
            lost = page.evaluate(
                "[...document.querySelectorAll('[aria-labelledby],[aria-describedby],[for]')].filter((element) =>"
                "['aria-labelledby', 'aria-describedby', 'for'].some((key) => element.getAttribute(key) &&"
                "!document.getElementById(element.getAttribute(key)))).map((element) => element.outerHTML)"
            )
            assert lost == []
            assert page.locator("#abx-said").get_attribute("role") == "status"

    def test_pictures_are_decoded_when_they_are_seen(self, browser, report):
        with opened(browser, report) as watched:
            image = watched.page.locator("#clip-0 img").first
            assert image.get_attribute("loading") == "lazy"
            image.scroll_into_view_if_needed()
            watched.page.wait_for_function("() => document.querySelector('#clip-0 img').naturalWidth > 100")

    def test_without_scripts_it_says_so_and_the_players_remain(self, browser, report):
        with opened(browser, report, java_script_enabled=False) as watched:
            assert watched.page.get_by_text("The blind test needs JavaScript").is_visible()
            assert not watched.page.locator("#abx-test").is_visible()
            assert watched.page.locator("audio").first.is_visible()


class TestPlayers:
    def test_a_player_plays_and_stops_the_other(self, browser, report):
        with opened(browser, report) as watched:
            page = watched.page
            reference, candidate = page.locator("#clip-0 audio").all()
            assert reference.evaluate("player => player.play().then(() => player.paused)") is False
            page.wait_for_function("() => document.querySelector('#clip-0 audio').currentTime > 0.1")
            candidate.evaluate("player => player.play()")
            assert reference.evaluate("player => player.paused")
            assert reference.evaluate("player => player.duration") == pytest.approx(1.5, abs=0.01)


class TestTooltip:
    def test_a_mark_tells_what_it_is_on_hover_and_escape_hides_it(self, browser, report):
        with opened(browser, report) as watched:
            page, mark = watched.page, mark_of_front(watched.page)
            assert told_by(page) is None
            mark.hover(force=True)
            assert told_by(page) == mark.get_attribute("data-told")
            page.keyboard.press("Escape")
            assert told_by(page) is None
            page.locator("#front h2").hover()
            mark.hover(force=True)
            assert told_by(page) == mark.get_attribute("data-told")
            page.locator("#front h2").hover()
            page.wait_for_function("() => document.getElementById('tooltip').hidden")

    def test_the_tab_key_goes_from_mark_to_mark(self, browser, report):
        with opened(browser, report) as watched:
            page = watched.page
            mark_of_front(page).focus()
            first = told_by(page)
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            assert told_by(page) == focused.get_attribute("data-told") != first
            assert focused.get_attribute("aria-label")
            assert page.locator("svg[role=img] .mark").count() == 0

    def test_a_finger_beside_a_mark_is_near_enough_and_the_text_stays_on_the_phone(self, browser, report):
        with opened(browser, report, viewport=PHONE, has_touch=True, is_mobile=True) as watched:
            page, mark = watched.page, mark_of_front(watched.page)
            mark.scroll_into_view_if_needed()
            box = mark.bounding_box()
            page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] - 6)
            assert told_by(page) is not None
            shown = page.locator("#tooltip").bounding_box()
            assert shown["x"] >= 0
            assert shown["x"] + shown["width"] <= PHONE["width"]
            assert shown["y"] >= 0
            assert shown["y"] + shown["height"] <= PHONE["height"]


class TestBlindTest:
    def test_right_and_wrong_answers_are_counted_across_clips_and_reloads(self, browser, report):
        with opened(browser, report, EAVESDROP) as watched:
            page = watched.page
            for right in (True, True, False, True):
                trial(page, right)
            page.locator("#abx-clip").select_option("bruno")
            for right in (True, True):
                trial(page, right)
            expected = {"trials": "6", "right": "5"}
            assert expected.items() <= score(page).items()
            assert float(score(page)["p"]) == pytest.approx(binom.sf(4, 6, 0.5), rel=1e-12)
            assert "5 of 6 right (83 %), p = 0.109" in page.locator("#abx-score").inner_text()
            page.reload()
            assert expected.items() <= score(page).items()
            text = page.locator("#abx-text").input_value()
            assert "anna: 3 of 4 right" in text
            assert "bruno: 2 of 2 right" in text
            act(page, "reset")
            assert expected.items() <= score(page).items(), "a press by accident forgets nothing"
            act(page, "reset")
            assert {"trials": "0", "right": "0", "p": "1"}.items() <= score(page).items()

    def test_the_p_value_of_many_trials_is_the_binomial(self, browser, report):
        with opened(browser, report) as watched:
            for right, trials in ((12, 16), (60, 100), (1530, 3000), (3000, 3000)):
                watched.page.evaluate(
                    "([right, trials]) => sessionStorage.setItem('abx ' + document.getElementById('abx-test')"
                    ".dataset.study, JSON.stringify({anna: {right, trials}}))",
                    [right, trials],
                )
                watched.page.reload()
                assert score(watched.page)["trials"] == str(trials)
                found = float(score(watched.page)["p"])
                assert found == pytest.approx(binom.sf(right - 1, trials, 0.5), rel=1e-9, abs=1e-300)

    def test_nothing_on_the_page_tells_what_x_is(self, browser, report):
        seen, sums = set(), set()
        for bits in range(4):
            fixed = (
                f"let left = [{bits & 1}, {bits >> 1}]; crypto.getRandomValues = (to) => to.fill(left.shift() ?? 0);"
            )
            with opened(browser, report, EAVESDROP + fixed) as watched:
                played, pages = [], []
                for side in "xba":
                    played.append(play(watched.page, side))
                    shown = watched.page.evaluate("document.documentElement.outerHTML")
                    pages.append(re.sub(r'(<progress[^>]*) value="[^"]*"', r"\1", shown))  # which moves with time
                sums.add(tuple(sound["sum"] for sound in played))
                levels = [sound["level"] for sound in played]
                assert max(levels) == pytest.approx(min(levels), rel=1e-4)
                seen.add(tuple(pages))
        assert len(sums) == 4, "the two bits must be all that is drawn"
        assert len(seen) == 1

    def test_a_switch_goes_on_where_the_other_was_and_the_same_button_begins_again(self, browser, report):
        with opened(browser, report, EAVESDROP) as watched:
            page = watched.page
            assert play(page, "a")["offset"] == 0
            page.wait_for_function("() => document.getElementById('abx-position').value > 0.1")
            after = play(page, "b")
            assert after["offset"] > 0.1
            assert after["loop"]
            assert page.locator('[data-act="play-b"]').get_attribute("aria-pressed") == "true"
            assert play(page, "b")["offset"] == 0
            act(page, "stop")
            assert page.locator('#abx-test [aria-pressed="true"]').count() == 0

    def test_a_part_is_heard_from_its_start_and_without_a_loop_only_once(self, browser, report):
        with opened(browser, report, EAVESDROP) as watched:
            page = watched.page
            page.locator("#abx-loop").uncheck()
            for slider, seconds in (("from", "0.8"), ("to", "1.0"), ("from", "0.99")):
                page.locator(f"#abx-{slider}").fill(seconds)
            assert page.locator("#abx-from").input_value() == "0.9", "a part lasts a tenth of a second at least"
            heard = play(page, "a")
            assert heard["offset"] == 0.9
            assert not heard["loop"]
            page.wait_for_function("() => !document.querySelector('#abx-test [aria-pressed=true]')")

    def test_keys_work_in_the_test_alone_and_an_unheard_x_has_no_answer(self, browser, report):
        with opened(browser, report, EAVESDROP) as watched:
            page, said = watched.page, watched.page.locator("#abx-said")
            page.keyboard.press("x")
            assert page.evaluate("window.heard.length") == 0
            page.locator('[data-act="stop"]').focus()
            page.keyboard.press("1")
            assert said.inner_text() == "Listen to X first."
            page.keyboard.press("x")
            page.wait_for_function("() => window.heard.length === 1")
            page.keyboard.press("1")
            assert said.inner_text().startswith(("\u2713 Right: X was A", "\u2717 Wrong: X was B"))
            page.keyboard.press("2")
            assert score(page)["trials"] == "1", "a trial is answered once"
            page.keyboard.press("n")
            assert said.inner_text().startswith("Trial 2")

    def test_a_score_outlives_a_storage_that_is_forbidden(self, browser, report):
        forbidden = "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('no'); }});"
        with opened(browser, report, EAVESDROP + forbidden) as watched:
            trial(watched.page, right=True)
            trial(watched.page, right=True)
            assert score(watched.page)["right"] == "2"
            assert math.isclose(float(score(watched.page)["p"]), 0.25)
