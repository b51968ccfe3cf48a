"""What the report shows of two clips: levels, differences and phase errors that are known beforehand."""

import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from precision_search.report.abx import KEYS, abx
from precision_search.report.clip_scores import clip_scores, tightest
from precision_search.report.listening import listening
from precision_search.report.maps import DIFFERENCE, LEVEL, NO_PHASE, PHASE, SCALES, figures, to_png
from precision_search.report.results import read_results
from precision_search.report.spectrogram import COLUMNS, PHASE_FLOOR_DB, RANGE_DB, ROWS, Transform, maps
from tests.precision_search.report_study import Reader, write_study

RATE = 16000
TIME = np.arange(RATE) / RATE


def tone(hertz: float, turned: float = 0.0, size: float = 0.5) -> np.ndarray:
    return (size * np.sin(2 * np.pi * hertz * TIME + turned)).astype(np.float32)


@pytest.fixture(scope="module")
def heard(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("heard") / "tts_blackhole", seconds=0.5)


class TestMaps:
    def test_a_tone_is_at_its_frequency_and_at_the_peak(self):
        found = maps(tone(1000), tone(1000), RATE)
        assert found.reference[:, 20].argmax() == 32  # 64 bins of 15.625 Hz, two a row
        assert found.reference.max() == 0.0
        assert found.reference.min() == -RANGE_DB
        assert found.below_hz(0.5) == pytest.approx(1000, abs=32)

    @pytest.mark.parametrize("decibels", [-3.0, 1.5])
    def test_a_change_of_level_is_the_difference(self, decibels):
        quieter = tone(1000, size=0.5 * 10 ** (decibels / 20))
        found = maps(tone(1000), quieter, RATE)
        assert found.difference[32, 20] == pytest.approx(decibels, abs=1e-3)
        assert found.difference_db[1] == pytest.approx(abs(decibels), abs=1e-3)
        assert found.phase_rad[1] < 1e-3

    @pytest.mark.parametrize("turned", [0.4, -2.5, 4.0])
    def test_a_shift_of_phase_is_wrapped_and_no_difference_of_level(self, turned):
        found = maps(tone(1000), tone(1000, turned), RATE)
        assert found.phase[32, 20] == pytest.approx(math.remainder(turned, 2 * math.pi), abs=1e-3)
        assert found.difference[32, 20] == pytest.approx(0.0, abs=1e-3)

    def test_silence_has_no_phase_and_equal_clips_no_difference(self):
        half = tone(1000)
        half[RATE // 2 :] = 0.0
        found = maps(half, half, RATE)
        assert found.difference_db == (0.0, 0.0)
        assert found.phase_rad[1] < 1e-12
        assert not found.phased[:, -10:].any()
        assert found.phased[32, 5]
        assert 0 < found.phased_share < 0.5

    def test_phase_is_told_only_down_to_its_floor(self):
        weak = tone(3000, size=0.5 * 10 ** (-(PHASE_FLOOR_DB + 3) / 20))
        found = maps(tone(1000) + weak, tone(1000) + weak, RATE)
        assert found.phased[32].all()
        assert not found.phased[96].any()
        assert found.heard[96].all()

    @pytest.mark.parametrize("length", [1, 500, 5000])
    def test_silence_and_short_clips_are_drawn(self, length):
        found = maps(np.zeros(length, np.float32), np.zeros(length, np.float32), RATE)
        assert found.below_hz(0.5) == 0.0
        assert figures("silence", found).count("<img") == 4

    @pytest.mark.parametrize(("seconds", "rate"), [(5, 8000), (5, 22050), (5, 48000), (40, 16000)])
    def test_a_map_is_no_larger_than_a_phone_can_show(self, seconds, rate):
        noise = np.random.default_rng(0).standard_normal(seconds * rate).astype(np.float32)
        found = maps(noise, noise, rate)
        rows, columns = found.phase.shape
        assert rows <= ROWS
        assert columns <= COLUMNS
        assert found.transform.window in (1024, 2048)
        assert found.transform.hop <= found.transform.window // 2

    def test_the_transform_says_what_it_is(self):
        assert str(Transform.of(RATE, RATE)) == "Hann window of 1024 samples (64 ms), hop 128"


class TestPictures:
    def test_a_png_holds_the_colours_of_its_classes(self):
        colours = ("#000000", "#ff0000", "#336699")
        indices = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
        pixels = image.imread(io.BytesIO(to_png(indices, colours)), format="png")
        expected = [[to_rgb(colours[index]) for index in line] for line in indices]
        np.testing.assert_allclose(pixels[..., :3], expected, atol=1e-6)

    def test_levels_and_differences_stay_in_order_in_black_and_white(self):
        for scale in (LEVEL, DIFFERENCE):
            greys = [grey(colour) for colour in scale.colours]
            assert greys == sorted(greys)
            assert min(np.diff(greys)) > 0.02

    def test_a_phase_error_is_the_darker_the_larger_it_is_and_never_plain_grey(self):
        greys = [grey(colour) for colour in PHASE.colours]
        middle = len(greys) // 2
        assert greys[: middle + 1] == sorted(greys[: middle + 1])
        assert greys[middle:] == sorted(greys[middle:], reverse=True)
        assert NO_PHASE not in PHASE.colours

    def test_a_scale_tells_every_class_and_values_fall_into_them(self):
        for scale in SCALES:
            assert scale.to_html().count("<li>") == len(scale.colours) == len(scale.edges) + 1
        assert DIFFERENCE.classes(np.array([-9.0, -0.1, 0.1, 9.0])).tolist() == [0, 5, 5, 10]
        assert LEVEL.classes(np.array([-80.0, -70.0, -5.0])).tolist() == [0, 1, 7]

    def test_the_texts_tell_the_figures_of_the_clip(self):
        told = figures("anna", maps(tone(1000), tone(1000, 0.4, size=0.25), RATE))
        for said in (
            "median 6 dB",
            "95 % within 0.4 rad",
            "Spectrogram of the candidate of anna",
            "95 % under 1 kHz",
            "0 to 8 kHz",
        ):
            assert said in told


def grey(colour: str) -> float:
    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class TestSections:
    def test_every_clip_has_a_row_with_its_figures_and_its_tightest_gate(self, heard):
        reader = Reader.of(listening(read_results(heard)))
        links = [link["href"] for link in reader.all("a")]
        assert links == ["#clip-0", "#clip-1"]
        assert [article["id"] for article in reader.all("article")] == ["clip-0", "clip-1"]
        assert "Hann window of 1024 samples (46 ms), hop 128" in reader.text
        scores = read_results(heard).final.scores["anna"]
        tight = tightest(read_results(heard), "anna")
        assert [found.share for found in tight] == sorted((found.share for found in tight), reverse=True)
        lsd = next(found for found in tight if found.gate.metric == "lsd_db")
        assert lsd.share == pytest.approx(scores["lsd_db"] / 2.5)
        assert f"All {len(scores)} scores of anna" in reader.text

    def test_a_clip_that_nobody_scored_has_its_maps_alone(self, heard):
        assert clip_scores(read_results(heard), "carl") == ()

    def test_each_sound_is_in_the_page_once_and_the_blind_test_holds_none(self, heard):
        results = read_results(heard)
        assert listening(results).count("data:audio/wav") == 4
        assert "data:" not in abx(results)

    def test_the_blind_test_has_every_button_with_a_key_of_its_own(self, heard):
        buttons = Reader.of(abx(read_results(heard))).all("button")
        acts = [button["data-act"] for button in buttons]
        assert set(acts) >= {"play-a", "play-b", "play-x", "answer-a", "answer-b", "next", "reset"}
        assert len(acts) == len(set(acts))
        keys = [button["aria-keyshortcuts"] for button in buttons if "aria-keyshortcuts" in button]
        assert len(keys) == len(set(keys)) == len(KEYS)

    def test_without_pairs_there_is_nothing_to_compare(self, heard, tmp_path):
        alone = tmp_path / "alone"
        shutil.copytree(heard, alone, ignore=shutil.ignore_patterns("candidate"))
        assert "no pairs of samples" in abx(read_results(alone))
