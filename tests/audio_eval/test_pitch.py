import librosa
import numpy as np
import pytest

from audio_eval import pitch
from audio_eval.clip import Clip, UndefinedScore

RATE = 22050


def test_agrees_with_librosa_yin_where_both_hear_a_voice(clean):
    ours = pitch.track(Clip(clean, RATE))
    hop = round(RATE * pitch.HOP_SECONDS)
    theirs = librosa.yin(
        clean, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=hop, center=False, trough_threshold=0.15
    )
    count = min(len(theirs), len(ours.f0_hz))
    cents = np.abs(1200 * np.log2(theirs[:count] / ours.f0_hz[:count]))[ours.voiced[:count]]
    assert ours.voiced.mean() > 0.3
    assert np.mean(cents < 20) > 0.95


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("hertz", [70.0, 131.3, 440.0])
def test_finds_the_pitch_of_a_buzz(rate, hertz):
    time = np.arange(rate // 2) / rate
    buzz = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8))
    found = pitch.track(Clip(buzz, rate))
    assert found.voiced.all()
    assert np.allclose(1200 * np.log2(found.f0_hz / hertz), 0.0, atol=6.0)


def test_a_shift_of_pitch_is_found_in_cents():
    time = np.arange(RATE) / RATE
    buzzes = [
        sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 8)) for hz in (150.0, 150.0 * 2 ** (30 / 1200))
    ]
    assert pitch.f0_cents(reference=buzzes[0], degraded=buzzes[1], sample_rate_hz=RATE) == pytest.approx(30.0, abs=1.0)


@pytest.mark.parametrize("distance", [pitch.f0_cents, pitch.voicing_error])
def test_identity_and_noise(distance, clean, hiss):
    scores = [
        distance(reference=clean, degraded=clean + level * hiss, sample_rate_hz=RATE) for level in (0, 1e-4, 1e-2, 3e-2)
    ]
    assert scores[0] == 0.0
    assert scores == sorted(scores)
    assert scores[-1] > 0.0


def test_no_voice_no_score(hiss, clean):
    with pytest.raises(UndefinedScore, match="no frame is voiced in both"):
        pitch.f0_cents(reference=hiss * 0.1, degraded=hiss * 0.1, sample_rate_hz=RATE)
    assert pitch.voicing_error(reference=clean, degraded=0.1 * hiss, sample_rate_hz=RATE) > 0.3
    with pytest.raises(UndefinedScore, match="too short to find a pitch"):
        pitch.f0_cents(reference=clean[2000:2500], degraded=clean[2000:2500], sample_rate_hz=RATE)
