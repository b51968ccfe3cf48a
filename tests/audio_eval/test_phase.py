import numpy as np
import pytest
from scipy.signal import hilbert

from audio_eval import phase
from audio_eval.clip import UndefinedScore

RATE = 22050
DERIVATIVES = [phase.group_delay_rad, phase.instantaneous_frequency_rad]


@pytest.mark.parametrize("distance", [*DERIVATIVES, phase.absolute_phase_rad])
def test_zero_for_identical_growing_with_noise_and_large_for_strangers(distance, clean, hiss):
    scores = [
        distance(reference=clean, degraded=clean + level * hiss, sample_rate_hz=RATE) for level in (0, 1e-4, 1e-3, 1e-2)
    ]
    assert scores[0] == pytest.approx(0.0, abs=1e-6)
    assert scores == sorted(scores)
    other = np.random.default_rng(3).standard_normal(len(hiss))
    # Neighbouring bins and frames overlap, so that even strangers agree a little in their derivatives.
    expected = np.pi / 2 if distance is phase.absolute_phase_rad else 1.1
    assert distance(reference=hiss, degraded=other, sample_rate_hz=RATE) == pytest.approx(expected, rel=0.03)


def test_a_constant_rotation_shows_in_absolute_phase_alone(clean):
    turned = np.real(hilbert(clean) * np.exp(0.7j))
    assert phase.absolute_phase_rad(reference=clean, degraded=turned, sample_rate_hz=RATE) == pytest.approx(
        0.7, abs=0.03
    )
    for derivative in DERIVATIVES:
        assert derivative(reference=clean, degraded=turned, sample_rate_hz=RATE) < 0.03


def test_a_delay_is_a_slope_over_bins(hiss):
    score = phase.group_delay_rad(reference=hiss, degraded=np.roll(hiss, 8), sample_rate_hz=RATE)
    assert score == pytest.approx(2 * np.pi * 8 / phase.PHASE_FFT, rel=0.3)


def test_a_detuned_tone_is_a_slope_over_frames():
    time = np.arange(RATE) / RATE
    tones = [np.sin(2 * np.pi * hertz * time) for hertz in (1000.0, 1005.0)]
    score = phase.instantaneous_frequency_rad(reference=tones[0], degraded=tones[1], sample_rate_hz=RATE)
    assert score == pytest.approx(2 * np.pi * 5 * (phase.PHASE_FFT / 4) / RATE, rel=0.05)


def test_gain_does_not_matter_and_silence_is_no_perfect_score(clean):
    for derivative in DERIVATIVES:
        assert derivative(reference=clean, degraded=clean * 1e-3, sample_rate_hz=RATE) < 1e-4
        with pytest.raises(UndefinedScore, match="degraded clip is silent"):
            derivative(reference=clean, degraded=clean * 0, sample_rate_hz=RATE)
        half = np.where(np.arange(len(clean)) < len(clean) // 2, clean, 0.0)
        assert derivative(reference=clean, degraded=half, sample_rate_hz=RATE) > 1.0
