import librosa
import numpy as np
import pytest
import soxr

from audio_eval import frames, spectra
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
    spectra.top_rise_db,
    frames.worst_lsd_db,
    frames.fricative_db,
    frames.pause_excess_db,
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


def test_lsd_of_a_gain_is_the_gain_in_every_band():
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


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000, 96000])
def test_mel_bands_hold_bins_at_every_rate(rate, speech):
    sound = speech(rate, seconds=0.5)
    assert spectra.log_mel_l1(reference=sound, degraded=sound, sample_rate_hz=rate) == 0.0


@pytest.fixture(scope="module")
def noises():
    """Noise and a damaged copy: no bin lies near the floor, which the oracles do not have."""
    rng = np.random.default_rng(0)
    reference = 0.1 * rng.standard_normal(RATE)
    return reference, 0.9 * reference + 0.02 * rng.standard_normal(RATE)


def test_golden_multi_resolution_losses(noises):
    # auraloss 0.4.0: MultiResolutionSTFTLoss(fft_sizes=win_lengths=[512, 1024, 2048], hop_sizes=[128, 256, 512],
    # w_sc=1, w_log_mag=0, and the other way round) of (degraded, reference) in float64.
    reference, degraded = noises
    found = [
        distance(reference=reference, degraded=degraded, sample_rate_hz=RATE)
        for distance in (spectra.spectral_convergence, spectra.log_magnitude)
    ]
    assert found[0] == pytest.approx(0.17007602769872446, rel=1e-6)
    assert found[1] == pytest.approx(0.21917727184321645, rel=2e-4)


def test_lsd_and_log_mel_are_those_of_librosa(clean, hiss):
    degraded = clean + 1e-3 * hiss

    def levels(audio):
        magnitude = np.abs(librosa.stft(audio, n_fft=1024, hop_length=256, pad_mode="reflect"))
        frequency = librosa.fft_frequencies(sr=RATE, n_fft=1024)
        return magnitude, magnitude[frequency < 0.92 * RATE / 2]

    (whole, first), (_, second) = levels(clean), levels(degraded)
    floor = np.max(whole) * 1e-4
    decibels = 20 * np.log10(np.maximum(first, floor) / np.maximum(second, floor))
    expected = np.mean(np.sqrt(np.mean(decibels**2, axis=0)))
    found = spectra.lsd_db(reference=clean, degraded=degraded, sample_rate_hz=RATE)
    assert found == pytest.approx(expected, rel=1e-5)

    mels = [
        librosa.feature.melspectrogram(
            y=audio, sr=RATE, n_fft=2048, hop_length=512, power=1.0, n_mels=80, fmax=0.92 * RATE / 2, pad_mode="reflect"
        )
        for audio in (clean, degraded)
    ]
    logs = [np.log(np.maximum(mel, 1e-4 * np.max(mels[0]))) for mel in mels]
    found = spectra.log_mel_l1(reference=clean, degraded=degraded, sample_rate_hz=RATE)
    assert found == pytest.approx(np.mean(np.abs(logs[0] - logs[1])), rel=1e-5)


@pytest.mark.parametrize("quality", ["HQ", "VHQ"])
@pytest.mark.parametrize(("rate", "through"), [(16000, 44100), (22050, 48000), (24000, 48000)])
def test_what_resamplers_leave_out_costs_nothing(quality, rate, through):
    # Noise up to Nyquist: the last 7 % of it are gone after the round trip.
    sound = 0.1 * np.random.default_rng(0).standard_normal(2 * rate)
    back = soxr.resample(soxr.resample(sound, rate, through, quality=quality), through, rate, quality=quality)
    for distance, least in ((spectra.lsd_db, 0.03), (spectra.lsd_mid_db, 0.03), (spectra.log_mel_l1, 0.002)):
        assert distance(reference=sound, degraded=back, sample_rate_hz=rate) < least
    assert spectra.log_magnitude(reference=sound, degraded=back, sample_rate_hz=rate) > 0.05


def test_what_is_added_under_nyquist_counts_and_what_is_taken_there_does_not(clean):
    whistle = 0.01 * np.sin(0.96 * np.pi * np.arange(len(clean)))
    rise = spectra.top_rise_db(reference=clean, degraded=clean + whistle, sample_rate_hz=RATE)
    assert rise > 5.0
    assert spectra.lsd_high_db(reference=clean, degraded=clean + whistle, sample_rate_hz=RATE) < 0.2 * rise
    kept = soxr.resample(soxr.resample(clean, RATE, 48000, quality="HQ"), 48000, RATE, quality="HQ")[: len(clean)]
    assert spectra.top_rise_db(reference=clean, degraded=kept, sample_rate_hz=RATE) < 0.05
