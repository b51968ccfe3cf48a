import numpy as np
import pytest

from audio_eval import spectra
from audio_eval.clip import Clip, UndefinedScore

RATE = 22050
DISTANCES = [
    spectra.spectral_convergence,
    spectra.log_magnitude,
    spectra.lsd_db,
    spectra.lsd_low_db,
    spectra.lsd_mid_db,
    spectra.lsd_high_db,
    spectra.log_mel_l1,
    spectra.pause_excess_db,
]


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_for_identical_clips_and_growing_with_noise(distance, clean, hiss):
    levels = (0.0, 1e-4, 1e-3, 1e-2)
    scores = [distance(reference=clean, degraded=clean + level * hiss, sample_rate_hz=RATE) for level in levels]
    assert scores[0] == 0.0
    assert scores == sorted(scores)
    assert scores[-1] > scores[1]


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_clip_scores_as_its_array_and_float32_as_float64(distance, clean, hiss):
    noisy = clean + 1e-3 * hiss
    plain = distance(reference=clean, degraded=noisy, sample_rate_hz=RATE)
    reference = Clip(clean, RATE)
    for _ in range(2):
        assert distance(reference=reference, degraded=Clip(noisy, RATE), sample_rate_hz=RATE) == plain
    single = distance(reference=clean.astype(np.float32), degraded=noisy.astype(np.float32), sample_rate_hz=RATE)
    assert single == pytest.approx(plain, rel=1e-3)


def test_lsd_of_a_gain_is_the_gain_in_every_band(speech):
    # Without pauses no bin comes near the floor.
    sound = np.random.default_rng(0).standard_normal(RATE) * 0.1
    for distance in (spectra.lsd_db, spectra.lsd_low_db, spectra.lsd_mid_db, spectra.lsd_high_db):
        score = distance(reference=sound, degraded=sound / 2, sample_rate_hz=RATE)
        assert score == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_bands_hear_only_their_own_frequencies(clean):
    time = np.arange(len(clean)) / RATE
    tone = 0.01 * np.sin(2 * np.pi * 9500.0 * time)
    bands = [
        distance(reference=clean, degraded=clean + tone, sample_rate_hz=RATE)
        for distance in (spectra.lsd_low_db, spectra.lsd_mid_db, spectra.lsd_high_db)
    ]
    assert bands[2] > 3.0
    assert max(bands[:2]) < 0.5


def test_there_is_no_high_band_at_16_khz(speech):
    sound = speech(16000)
    with pytest.raises(UndefinedScore, match=r"no band above 8000 Hz at a sample rate of 16000"):
        spectra.lsd_high_db(reference=sound, degraded=sound, sample_rate_hz=16000)
    assert spectra.lsd_mid_db(reference=sound, degraded=sound, sample_rate_hz=16000) == 0.0


def test_the_floor_hides_what_is_80_db_down(clean, hiss):
    quiet = spectra.lsd_db(reference=clean, degraded=clean + 1e-9 * hiss, sample_rate_hz=RATE)
    assert quiet < 1e-3
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    far_below = tone + 1e-6 * hiss[:RATE]
    assert spectra.lsd_db(reference=tone, degraded=far_below, sample_rate_hz=RATE) < 0.05


def test_pause_excess_is_the_rise_of_the_floor(hiss):
    pauses = np.where(np.arange(len(hiss)) % 11025 < 4410, 1e-3, 0.1)
    reference = pauses * hiss
    more = np.random.default_rng(1).standard_normal(len(hiss))
    louder = reference + 1e-3 * more
    assert spectra.pause_excess_db(reference=reference, degraded=louder, sample_rate_hz=RATE) == pytest.approx(3, abs=1)
    quieter = np.where(pauses < 0.01, reference / 2, reference)
    assert spectra.pause_excess_db(reference=reference, degraded=quieter, sample_rate_hz=RATE) == 0.0
    digital = np.where(pauses < 0.01, 0.0, reference)
    excess = spectra.pause_excess_db(reference=digital, degraded=louder, sample_rate_hz=RATE)
    assert 20 < excess < 80


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000, 96000])
def test_mel_bands_hold_bins_at_every_rate(rate, speech):
    sound = speech(rate, seconds=0.5)
    assert spectra.log_mel_l1(reference=sound, degraded=sound, sample_rate_hz=rate) == 0.0
