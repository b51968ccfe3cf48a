import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from audio_eval.cepstra import mcd_db
from audio_eval.clip import Clip, UndefinedScore

RATE = 22050


def equalize(sound, hz, width, gain_db):
    """A peaking equalizer (Bristow-Johnson, Audio EQ Cookbook)."""
    gain = 10 ** (gain_db / 40)
    angle = 2 * np.pi * hz / RATE
    alpha = np.sin(angle) / 2 / width
    middle = -2 * np.cos(angle)
    numerator = [1 + alpha * gain, middle, 1 - alpha * gain]
    return signal.lfilter(numerator, [1 + alpha / gain, middle, 1 - alpha / gain], sound)


@pytest.fixture(scope="module")
def noises():
    """Noise; the same, its envelope changed; the same and another noise. No band lies near the floor."""
    rng = np.random.default_rng(0)
    reference, other = 0.1 * rng.standard_normal(RATE), rng.standard_normal(RATE)
    equalized = equalize(equalize(reference, 700, 1.0, 6.0), 3000, 2.0, -8.0)
    return {"reference": reference, "equalized": equalized, "noisy": 0.9 * reference + 0.05 * other}


# mel-cepstral-distance 0.0.4: compare_mel_spectrograms(log10 of librosa 0.11 mel powers, s=0, D=24, aligning="pad"),
# which has Kubichek's sum over 80 bands without its mean and factor: times 10 * sqrt(2) / 80.
@pytest.mark.parametrize(("degraded", "golden"), [("equalized", 3.2626883685078916), ("noisy", 1.3474105975474857)])
def test_golden_kubichek(degraded, golden, noises):
    found = mcd_db(reference=noises["reference"], degraded=noises[degraded], sample_rate_hz=RATE)
    assert found == pytest.approx(golden, rel=1e-6)


# pysptk 1.0.1, order 24, alpha 0.455, the same frames: sp2mc of the power spectrum, and mcep (eps=1e-8, etype=1).
@pytest.mark.parametrize(
    ("degraded", "warped", "fitted", "within"),
    [("equalized", 3.1893, 3.1771, 0.04), ("noisy", 1.5788, 1.1834, 0.16)],
)
def test_the_scale_is_that_of_sptk(degraded, warped, fitted, within, noises):
    found = mcd_db(reference=noises["reference"], degraded=noises[degraded], sample_rate_hz=RATE)
    assert found == pytest.approx(warped, rel=within)
    assert found == pytest.approx(fitted, rel=within)


@pytest.mark.parametrize("order", [1, 5, 24, 25])
def test_a_ripple_on_the_mel_axis_is_its_own_coefficient(order):
    # Levels that go as a cosine over the bands differ in one coefficient; beyond the last there is no difference.
    rng = np.random.default_rng(3)
    reference = rng.standard_normal(RATE)
    mel = librosa.hz_to_mel(np.fft.rfftfreq(RATE, 1 / RATE)) / librosa.hz_to_mel(0.92 * RATE / 2)
    # The centres of 80 bands are the 1st to the 80th of 81 equal steps.
    place = (mel * 81 - 0.5) / 80
    degraded = np.fft.irfft(np.fft.rfft(reference) * np.exp(0.1 * np.cos(np.pi * order * place)), RATE)
    expected = 10 / np.log(10) * np.sqrt(2) * 0.1 if order <= 24 else 0.0
    # The triangles smooth the finest ripple by a tenth, and c25 leaks into c24 by as much.
    found = mcd_db(reference=reference, degraded=degraded, sample_rate_hz=RATE)
    assert found == pytest.approx(expected, rel=0.1, abs=0.07)


@given(gain=st.floats(0.2, 100.0))
def test_gain_is_no_distortion(gain, noises):
    sound = noises["reference"]
    assert mcd_db(reference=sound, degraded=gain * sound, sample_rate_hz=RATE) < 1e-4


def test_zero_for_identical_clips_and_growing_with_noise(clean, hiss):
    reference = Clip(clean, RATE)
    levels = (0.0, 1e-4, 1e-3, 1e-2)
    scores = [mcd_db(reference=reference, degraded=clean + level * hiss, sample_rate_hz=RATE) for level in levels]
    assert scores[0] == 0.0
    assert scores == sorted(scores)
    assert scores[3] > 4 * scores[1]
    assert mcd_db(reference=clean, degraded=clean + 1e-2 * hiss, sample_rate_hz=RATE) == scores[3]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 96000])
def test_equal_damage_scores_alike_at_every_rate(rate):
    # A tilt of 12 dB over the band; how mel bends it depends a little on where the band ends.
    sound = np.random.default_rng(0).standard_normal(rate)
    share = np.clip(np.fft.rfftfreq(rate, 1 / rate) / (0.92 * rate / 2), 0, 1)
    tilted = np.fft.irfft(np.fft.rfft(sound) * 10 ** (6 * np.cos(np.pi * share) / 20), rate)
    assert mcd_db(reference=sound, degraded=tilted, sample_rate_hz=rate) == pytest.approx(3.6, rel=0.1)


def test_undefined(clean):
    with pytest.raises(UndefinedScore, match="shorter than one analysis window of 1024"):
        mcd_db(reference=clean[:1000], degraded=clean[:1000], sample_rate_hz=RATE)
    with pytest.raises(UndefinedScore, match="NaN or Inf"):
        mcd_db(reference=clean, degraded=clean * np.nan, sample_rate_hz=RATE)
