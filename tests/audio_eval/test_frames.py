import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from audio_eval.cepstra import mcd_db
from audio_eval.clip import Clip, UndefinedScore
from audio_eval.frames import fricative_db, pause_excess_db, worst_lsd_db
from audio_eval.spectra import lsd_db

RATE = 22050
METRICS = [worst_lsd_db, fricative_db, pause_excess_db]
LOST = 4.0
"""dB of worst_lsd_db: twice what bf16 does to a vocoder, half of what a lost frame does."""


@pytest.mark.parametrize("metric", METRICS)
def test_undefined(metric, clean):
    with pytest.raises(UndefinedScore, match="NaN or Inf"):
        metric(reference=clean, degraded=clean * np.nan, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="silent"):
        metric(reference=clean * 0, degraded=clean, sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match=r"shorter than one analysis window|too short to find pauses"):
        metric(reference=clean[:100], degraded=clean[:100], sample_rate_hz=RATE)


def silence_from(sound, at, length):
    lost = sound.copy()
    lost[at : at + length] = 0.0
    return lost


def repeat_before(sound, at, length):
    lost = sound.copy()
    lost[at : at + length] = sound[at - length : at]
    return lost


def vowels(rate, seconds):
    """Places amid the syllables of the fixture's speech."""
    syllable = 0.4
    starts = np.arange(0.0, seconds - syllable, syllable)
    return [round((start + offset) * rate) for start in starts for offset in (0.06, 0.09, 0.121)]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 48000])
def test_lost_frames_stand_out_at_every_rate(rate, speech):
    sound = speech(rate, seconds=2.0)
    reference = Clip(sound, rate)

    def worst(degraded):
        return worst_lsd_db(reference=reference, degraded=degraded, sample_rate_hz=rate)

    for at in vowels(rate, 2.0):
        assert worst(silence_from(sound, at, round(0.02 * rate))) > 1.5 * LOST
        assert worst(silence_from(sound, at, round(0.01 * rate))) > LOST
        # From 0.8 s on the pitch is near 100 Hz: there 10 ms are one period, and repeating it is hardly heard.
        assert worst(repeat_before(sound, at, round(0.01 * rate))) > (LOST if at < 0.8 * rate else 0.6 * LOST)


def harmless(sound, rate):
    rng = np.random.default_rng(5)
    changes = {
        "16 bits": np.round(sound * 32768) / 32768,
        "fp16": sound.astype(np.float16).astype(np.float64),
        "0.1 dB": sound * 10 ** (0.1 / 20),
        "dither": sound + 10 ** (-90 / 20) * rng.standard_normal(len(sound)),
    }
    for quality in ("HQ", "VHQ"):
        there = soxr.resample(sound, rate, 48000, quality=quality)
        changes[f"soxr {quality}"] = soxr.resample(there, 48000, rate, quality=quality)
    return changes


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000])
def test_harmless_changes_cost_next_to_nothing(rate, speech):
    sound = speech(rate, seconds=2.0)
    for name, changed in harmless(sound, rate).items():
        scores = [metric(reference=sound, degraded=changed, sample_rate_hz=rate) for metric in METRICS]
        assert scores[0] < 0.25 * LOST, name
        assert scores[1] <= 0.1001, name
        assert scores[2] <= 0.1001, name


def test_a_lost_frame_does_not_fade_in_a_long_clip(speech):
    short = speech(RATE, seconds=1.0)
    long = np.concatenate([short] * 8)
    at = round(0.09 * RATE)

    def scores(metric):
        return [
            metric(reference=sound, degraded=silence_from(sound, at, 441), sample_rate_hz=RATE)
            for sound in (short, long)
        ]

    assert scores(worst_lsd_db)[1] == pytest.approx(scores(worst_lsd_db)[0], rel=0.01)
    assert scores(lsd_db)[1] < 0.2 * scores(lsd_db)[0]


def test_a_long_bad_stretch_is_not_excused_by_its_own_length(speech):
    sound = speech(RATE, seconds=2.0)
    rng = np.random.default_rng(2)
    muffled = sound.copy()
    bad = slice(round(0.85 * RATE), round(1.15 * RATE))
    muffled[bad] = signal.sosfilt(signal.butter(6, 800, fs=RATE, output="sos"), sound[bad])
    noisy = sound.copy()
    noisy[bad] += np.std(sound[bad]) * rng.standard_normal(bad.stop - bad.start)
    for degraded in (muffled, noisy):
        assert worst_lsd_db(reference=sound, degraded=degraded, sample_rate_hz=RATE) > LOST


def test_even_damage_is_left_to_the_mean(clean, hiss):
    # A weak hiss in all frames: the spectra differ, no stretch stands out.
    noisy = clean + 3e-4 * hiss
    assert lsd_db(reference=clean, degraded=noisy, sample_rate_hz=RATE) > 3.0
    assert worst_lsd_db(reference=clean, degraded=noisy, sample_rate_hz=RATE) < 0.25 * LOST


def test_a_click_in_a_pause_counts_by_its_loudness(clean):
    pause = np.argmin(np.convolve(clean**2, np.ones(441), "same"))
    scores = []
    for height in (0.001, 0.03, 0.3):
        clicked = clean.copy()
        clicked[pause] += height
        scores.append(worst_lsd_db(reference=clean, degraded=clicked, sample_rate_hz=RATE))
    assert scores == sorted(scores)
    assert scores[0] < 0.25 * LOST
    assert scores[2] > LOST


@pytest.fixture(scope="module")
def parts():
    """Vowels, soft fricatives 35 dB under them and the noise of pauses, apart, in turns of 0.2 s; by sample rate."""

    def make(rate, fricative_db=-35.0):
        rng = np.random.default_rng(1)
        time = np.arange(2 * rate) / rate
        turn = (time / 0.2).astype(int) % 3
        buzz = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 8))
        hiss = signal.sosfilt(signal.butter(8, 3300, "highpass", fs=rate, output="sos"), rng.standard_normal(len(time)))
        return {
            "vowels": np.where(turn == 0, 0.3 * buzz / np.std(buzz), 0.0),
            "fricatives": np.where(turn == 1, 0.3 * 10 ** (fricative_db / 20) * hiss / np.std(hiss), 0.0),
            "pauses": 1e-4 * rng.standard_normal(len(time)),
        }

    return make


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
@pytest.mark.parametrize("loss_db", [0.5, 1.0, 3.0, 10.0])
def test_fricative_loss_is_measured_in_its_own_db(rate, loss_db, parts):
    of = parts(rate)
    reference = of["vowels"] + of["fricatives"] + of["pauses"]
    collapsed = of["vowels"] + of["fricatives"] * 10 ** (-loss_db / 20) + of["pauses"]
    found = fricative_db(reference=reference, degraded=collapsed, sample_rate_hz=rate)
    assert found == pytest.approx(loss_db, rel=0.1)
    assert lsd_db(reference=reference, degraded=collapsed, sample_rate_hz=rate) < 0.5 * loss_db


@pytest.mark.parametrize("fricative_level_db", [-70.0, -np.inf])
def test_only_soft_fricatives_count(fricative_level_db, parts):
    # Pause noise is no fricative, and a clip without any has nothing to lose.
    of = parts(RATE, fricative_level_db)
    reference = of["vowels"] + of["fricatives"] + of["pauses"]
    changed = of["vowels"] + 2.0 * (of["fricatives"] + of["pauses"])
    assert fricative_db(reference=reference, degraded=changed, sample_rate_hz=RATE) < 1.0


def test_a_fricative_that_vanishes_is_finite(parts):
    of = parts(RATE)
    reference = of["vowels"] + of["fricatives"]
    found = fricative_db(reference=reference, degraded=of["vowels"], sample_rate_hz=RATE)
    assert 30.0 < found < 50.0


def test_pause_excess_is_the_rise_of_the_floor(hiss):
    pauses = np.where(np.arange(len(hiss)) % 11025 < 4410, 1e-3, 0.1)
    reference = pauses * hiss
    more = np.random.default_rng(1).standard_normal(len(hiss))
    louder = reference + 1e-3 * more
    assert pause_excess_db(reference=reference, degraded=louder, sample_rate_hz=RATE) == pytest.approx(3, abs=1)
    quieter = np.where(pauses < 0.01, reference / 2, reference)
    assert pause_excess_db(reference=reference, degraded=quieter, sample_rate_hz=RATE) == 0.0
    digital = np.where(pauses < 0.01, 0.0, reference)
    excess = pause_excess_db(reference=digital, degraded=louder, sample_rate_hz=RATE)
    assert excess == pytest.approx(23.0, abs=0.5)


@given(level_dbfs=st.floats(-75.0, -30.0))
def test_hiss_in_digital_silence_counts_from_80_dbfs(level_dbfs, hiss):
    speaking = np.arange(len(hiss)) % 11025 >= 4410
    reference = np.where(speaking, 0.1 * hiss, 0.0)
    dithered = reference + 10 ** (-90 / 20) * hiss
    assert pause_excess_db(reference=reference, degraded=dithered, sample_rate_hz=RATE) == 0.0
    noisy = reference + 10 ** (level_dbfs / 20) * hiss
    found = pause_excess_db(reference=reference, degraded=noisy, sample_rate_hz=RATE)
    assert found == pytest.approx(level_dbfs + 80.0, abs=0.5)


def test_a_soft_clip_keeps_its_pauses(hiss):
    # All 50 dB softer: the hiss lies at -90 dBFS and is as near to the speech as before.
    speaking = np.arange(len(hiss)) % 11025 >= 4410
    soft = 10 ** (-50 / 20) * np.where(speaking, 0.1 * hiss, 0.0)
    noisy = soft + 10 ** (-90 / 20) * np.random.default_rng(1).standard_normal(len(hiss))
    assert pause_excess_db(reference=soft, degraded=noisy, sample_rate_hz=RATE) > 30.0


def test_without_pauses_hiss_is_masked(hiss):
    noise = 0.1 * hiss
    hissing = noise + 10 ** (-60 / 20) * np.random.default_rng(1).standard_normal(len(hiss))
    assert pause_excess_db(reference=noise, degraded=hissing, sample_rate_hz=RATE) < 0.05


KINDS = {
    "speech": lambda n, rng: np.sin(np.arange(n) * 0.1) * np.sin(np.arange(n) * 3e-4) + 1e-3 * rng.standard_normal(n),
    "noise": lambda n, rng: 0.1 * rng.standard_normal(n),
    "zeros": lambda n, _: np.zeros(n),
    "constant": lambda n, _: np.full(n, 0.5),
    "impulse": lambda n, _: (np.arange(n) == n // 2) * 0.9,
    "last sample": lambda n, _: (np.arange(n) == n - 1) * 2e-5,
    "huge": lambda n, rng: 9e5 * rng.uniform(-1, 1, n),
    "tiny": lambda n, rng: 1e-200 * rng.standard_normal(n),
}


@given(
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    length=st.sampled_from([1, 2, 100, 400, 2500, 9001]),
    rate=st.sampled_from([1, 100, 4000, 8000, 22050, 96000]),
)
def test_hostile_pairs_get_a_finite_score_or_a_clear_error(kinds, length, rate):
    rng = np.random.default_rng(0)
    reference, degraded = (KINDS[kind](length, rng) for kind in kinds)
    for metric in (*METRICS, mcd_db):
        try:
            score = metric(reference=reference, degraded=degraded, sample_rate_hz=rate)
        except UndefinedScore:
            continue
        assert np.isfinite(score)
        assert score >= 0.0
