from pathlib import Path

import numpy as np
import pystoi
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_eval.clip import Clip, UndefinedScore
from audio_eval.stoi import estoi, stoi

RATE = 22050
PAIR = Path(__file__).parents[2].parent / "shared" / "voices" / "pesq_pair"


def by_pystoi(clean, noisy, rate, extended):
    np.random.seed(0)
    return pystoi.stoi(clean.astype(np.float64), noisy.astype(np.float64), rate, extended=extended)


@pytest.mark.parametrize("rate", [8000, 10000, 16000, 22050, 24000, 48000])
@pytest.mark.parametrize(("function", "extended"), [(stoi, False), (estoi, True)])
def test_equals_pystoi_to_the_last_bit(function, extended, rate, speech):
    clean = speech(rate)
    noisy = (clean + 2e-2 * np.random.default_rng(5).standard_normal(len(clean))).astype(np.float32)
    # Silence in the middle is left out by the reference's level; silence in the degraded clip is not.
    clean[rate // 2 : 3 * rate // 4] *= 1e-4
    noisy[rate : 5 * rate // 4] = 0.0
    expected = by_pystoi(clean, noisy, rate, extended)
    assert 0.1 < expected < 0.95
    assert function(reference=clean, degraded=noisy, sample_rate_hz=rate) == expected


@pytest.mark.skipif(not PAIR.is_dir(), reason="no ../shared/voices/pesq_pair beside the checkout")
def test_values_of_a_real_pair():
    # Source: pystoi 0.4.1 on the pair of the pesq package.
    clean, noisy = (soundfile.read(PAIR / name)[0] for name in ("speech.wav", "speech_bab_0dB.wav"))
    assert stoi(reference=clean, degraded=noisy, sample_rate_hz=16000) == pytest.approx(0.6739177895331301, abs=1e-12)
    assert estoi(reference=clean, degraded=noisy, sample_rate_hz=16000) == pytest.approx(0.39044999103355366, abs=1e-12)


@pytest.mark.parametrize("function", [stoi, estoi])
def test_identity_is_one_and_noise_lowers(function, clean, hiss):
    levels = (0.0, 1e-3, 1e-2, 0.1)
    scores = [function(reference=clean, degraded=clean + x * hiss, sample_rate_hz=RATE) for x in levels]
    assert scores[0] == pytest.approx(1.0, abs=1e-12)
    assert scores == sorted(scores, reverse=True)


@settings(max_examples=20)
@given(gain=st.floats(1e-3, 10.0))
def test_gain_is_not_heard(gain, clean, hiss):
    noisy = clean + 1e-2 * hiss
    for function in (stoi, estoi):
        before = function(reference=clean, degraded=noisy, sample_rate_hz=RATE)
        assert function(reference=clean, degraded=gain * noisy, sample_rate_hz=RATE) == pytest.approx(before, abs=1e-9)


def test_a_reference_is_computed_once_and_scores_repeat(clean, hiss):
    reference = Clip(clean, RATE)
    for level in (1e-2, 1e-1, 1e-2):
        noisy = clean + level * hiss
        for function in (stoi, estoi):
            fresh = function(reference=clean, degraded=noisy, sample_rate_hz=RATE)
            assert function(reference=reference, degraded=noisy, sample_rate_hz=RATE) == fresh
    parts = reference.once("stoi", lambda: None), reference.once("estoi", lambda: None)
    assert None not in parts


def test_the_global_generator_is_left_alone(clean, hiss):
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    estoi(reference=clean, degraded=clean + 1e-2 * hiss, sample_rate_hz=RATE)
    assert np.array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("function", [stoi, estoi])
def test_refusals_have_text(function, clean):
    short = clean[4000:6000]
    with pytest.raises(UndefinedScore, match=r"at least 0\.4 s of speech, got 0\.091 s"):
        function(reference=short, degraded=short, sample_rate_hz=RATE)
    pause = np.concatenate([clean[2000:6000], np.zeros(RATE)])
    with pytest.raises(UndefinedScore, match=r"31 frames of speech, 0\.4 s, and found \d+ within 40 dB"):
        function(reference=pause, degraded=pause, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="one length"):
        function(reference=clean, degraded=clean[1:], sample_rate_hz=RATE)
    assert function(reference=clean, degraded=clean * 0, sample_rate_hz=RATE) == pytest.approx(0.0, abs=0.02)


def test_the_fewest_frames_are_those_that_pystoi_scores(clean):
    frames = 31
    while True:
        samples = clean[: round((frames + 1) * 128 * RATE / 10000)]
        try:
            score = stoi(reference=samples, degraded=samples, sample_rate_hz=RATE)
        except UndefinedScore:
            with pytest.warns(RuntimeWarning, match="Not enough STFT frames"):
                assert by_pystoi(samples, samples, RATE, extended=False) == 1e-5
            frames += 1
            continue
        assert score == by_pystoi(samples, samples, RATE, extended=False) == pytest.approx(1.0)
        break
    assert frames > 31
