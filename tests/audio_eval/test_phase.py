import cmath
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import hilbert, resample_poly

from audio_eval import phase
from audio_eval.clip import Clip, UndefinedScore

RATE = 22050
DERIVATIVES = [phase.group_delay_rad, phase.instantaneous_frequency_rad]
WORST = phase.worst_instantaneous_frequency_rad


def measure(distance, reference, degraded, rate=RATE):
    return distance(reference=reference, degraded=degraded, sample_rate_hz=rate)


def anti_wrapped(angle):
    """The anti-wrapping function of Ai and Ling, arXiv 2211.15974."""
    return abs(angle - 2 * math.pi * round(angle / (2 * math.pi)))


def test_every_definition_written_out_bin_by_bin(speech):
    clean = speech(8000, seconds=0.4)
    degraded = clean + 3e-3 * np.random.default_rng(5).standard_normal(len(clean))

    def angles_and_magnitudes(samples, n_fft):
        padded = np.pad(samples, n_fft // 2, mode="reflect")
        window = [0.5 - 0.5 * math.cos(2 * math.pi * n / n_fft) for n in range(n_fft)]
        frames = [np.fft.rfft(padded[at : at + n_fft] * window) for at in range(0, len(samples) + 1, n_fft // 4)]
        return [[cmath.phase(z) for z in frame] for frame in frames], np.abs(frames)

    clip_angles, clip_magnitudes = angles_and_magnitudes(clean, 1024)
    error = np.array(clip_angles) - np.array(angles_and_magnitudes(degraded, 1024)[0])
    expected = {}
    for name, steps, neighbours in (
        ("group_delay_rad", np.diff(error, axis=1), clip_magnitudes[:, 1:] * clip_magnitudes[:, :-1]),
        ("instantaneous_frequency_rad", np.diff(error, axis=0), clip_magnitudes[1:] * clip_magnitudes[:-1]),
        ("absolute_phase_rad", error, np.square(clip_magnitudes)),
    ):
        weights = np.sqrt(neighbours)
        total = sum(anti_wrapped(step) * weight for step, weight in zip(steps.flat, weights.flat, strict=True))
        expected[name] = total / np.sum(weights)

    clip_angles, clip_magnitudes = angles_and_magnitudes(clean, 512)
    steps = np.diff(np.array(clip_angles) - np.array(angles_and_magnitudes(degraded, 512)[0]), axis=0)
    powers = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairwise(clip_magnitudes)]
    where_it_sits = sum(power**2 for power in powers) / sum(powers)
    expected["worst_instantaneous_frequency_rad"] = max(
        sum(anti_wrapped(step) * a * b for step, a, b in zip(row, before, after, strict=True))
        / max(power, where_it_sits / 2)
        for row, before, after, power in zip(steps, clip_magnitudes, clip_magnitudes[1:], powers, strict=False)
    )
    for name, value in expected.items():
        assert measure(getattr(phase, name), clean, degraded, 8000) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("distance", [*DERIVATIVES, phase.absolute_phase_rad, WORST])
def test_zero_for_identical_growing_with_noise_and_large_for_strangers(distance, clean, hiss):
    scores = [measure(distance, clean, clean + level * hiss) for level in (0, 1e-4, 1e-3, 1e-2)]
    assert scores[0] == pytest.approx(0.0, abs=1e-6)
    assert scores == sorted(scores)
    other = np.random.default_rng(3).standard_normal(len(hiss))
    # Neighbouring bins and frames overlap, so that even strangers agree a little in their derivatives.
    expected = {phase.absolute_phase_rad: np.pi / 2, WORST: 1.2}.get(distance, 1.1)
    assert measure(distance, hiss, other) == pytest.approx(expected, rel=0.1)


def test_a_constant_rotation_shows_in_absolute_phase_alone(clean):
    turned = np.real(hilbert(clean) * np.exp(0.7j))
    assert measure(phase.absolute_phase_rad, clean, turned) == pytest.approx(0.7, abs=0.03)
    for derivative in DERIVATIVES:
        assert measure(derivative, clean, turned) < 0.03
    assert measure(WORST, clean, turned) < 0.1  # a rotation is none at the clip's ends


def test_a_delay_is_a_slope_over_bins(hiss):
    score = measure(phase.group_delay_rad, hiss, np.roll(hiss, 8))
    assert score == pytest.approx(2 * np.pi * 8 / phase.PHASE_FFT, rel=0.3)


@pytest.mark.parametrize(
    ("distance", "rate", "hop"),
    [
        (phase.instantaneous_frequency_rad, 22050, 256),
        (WORST, 16000, 128),
        (WORST, 22050, 128),
        (WORST, 48000, 256),
    ],
)
def test_a_detuned_tone_is_a_slope_over_frames(distance, rate, hop):
    time = np.arange(rate) / rate
    steady, detuned = (np.sin(2 * np.pi * hertz * time) for hertz in (1000.0, 1005.0))
    assert measure(distance, steady, detuned, rate) == pytest.approx(2 * np.pi * 5 * hop / rate, rel=0.06)


def test_gain_does_not_matter_and_silence_is_no_perfect_score(clean):
    for derivative in (*DERIVATIVES, WORST):
        assert measure(derivative, clean, clean * 1e-3) < 1e-4
        with pytest.raises(UndefinedScore, match="degraded clip is silent"):
            measure(derivative, clean, clean * 0)
        half = np.where(np.arange(len(clean)) < len(clean) // 2, clean, 0.0)
        assert measure(derivative, clean, half) > 1.0


def blend(before, after, at, over):
    """`before` up to a sample, `after` from there, faded into each other over as many."""
    rise = np.clip((np.arange(len(before)) - at) / over + 0.5, 0.0, 1.0)
    rise = 0.5 - 0.5 * np.cos(np.pi * rise)
    return before * (1.0 - rise) + after * rise


def slipped(samples, at, seconds):
    """All that follows comes later, by parts of a sample: every harmonic k is turned by k times one phase."""
    size = 2 * len(samples)
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * seconds * RATE)
    return blend(samples, np.fft.irfft(np.fft.rfft(samples, size) * turn, size)[: len(samples)], at, 0.003 * RATE)


def repeated(samples, at):
    size = RATE // 100
    return np.concatenate([samples[:at], samples[at - size : -size]])


def repeated_in_place(samples, at):
    size = RATE // 100
    return np.concatenate([samples[:at], samples[at - size : at], samples[at + size :]])


def dropped(samples, at):
    size = RATE // 100
    return np.concatenate([samples[:at], samples[at + size :], np.zeros(size)])


def silenced(samples, at):
    gone = blend(samples, 0 * samples, at, 0.001 * RATE)
    return blend(gone, samples, at + 0.02 * RATE, 0.001 * RATE)


VOWELS = [round(RATE * second) for second in (0.1, 0.15, 0.47, 0.92, 1.3, 1.72)]


@pytest.mark.parametrize("at", VOWELS)
def test_one_moment_of_a_clip_stands_out(at, clean):
    assert measure(WORST, clean, slipped(clean, at, 0.5 / (2 * np.pi * 120.0))) > 0.25
    for defect in (repeated, dropped, silenced):
        assert measure(WORST, clean, defect(clean, at)) > 0.35
    # The mean over the clip has little of it.
    assert measure(phase.instantaneous_frequency_rad, clean, silenced(clean, at)) < 0.1


def test_ten_milliseconds_repeated_in_place_unless_they_are_a_period(clean):
    period_is_ten_milliseconds = VOWELS[3]
    scores = {at: measure(WORST, clean, repeated_in_place(clean, at)) for at in VOWELS}
    assert scores.pop(period_is_ten_milliseconds) < 0.2
    assert min(scores.values()) > 0.35


def test_harmless_changes_stay_far_below(clean, hiss):
    there = resample_poly(resample_poly(clean, 320, 147), 147, 320)[: len(clean)]
    for changed in (
        np.round(clean * 32767) / 32767,
        clean.astype(np.float16).astype(np.float64),
        clean + 10 ** (-90 / 20) * hiss,
        clean * 10 ** (-0.1 / 20),
        there,
    ):
        assert measure(WORST, clean, changed) < 0.02


def test_a_longer_slip_scores_higher_up_to_half_a_turn(clean):
    scores = [measure(WORST, clean, slipped(clean, VOWELS[2], phi / (2 * np.pi * 120.0))) for phi in (0.1, 0.3, 0.6)]
    assert scores == sorted(scores)
    assert scores[0] > 0.02


def test_soft_frames_do_not_decide(clean):
    soft = np.where(np.arange(len(clean)) < RATE, clean, 0.01 * clean)
    at = VOWELS[-2]
    assert measure(WORST, clean, slipped(clean, at, 0.001)) > 0.5
    assert measure(WORST, soft, slipped(soft, at, 0.001)) < 0.01
    # Pauses do not make soft frames loud.
    padded = [np.concatenate([samples, np.zeros(10 * RATE)]) for samples in (soft, slipped(soft, at, 0.001))]
    assert measure(WORST, *padded) < 0.01


def test_the_reference_is_analysed_once(clean, hiss):
    reference = Clip(clean, RATE)
    fresh = [measure(WORST, clean, clean + level * hiss) for level in (1e-3, 2e-3)]
    assert [measure(WORST, reference, clean + level * hiss) for level in (1e-3, 2e-3)] == fresh
    assert phase._steps(reference) is phase._steps(reference)
    assert phase._unit(reference, 512) is phase._unit(reference, 512)
