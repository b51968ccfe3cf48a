"""The suite's numbers are those of the packages, called directly on the same samples."""

import librosa
import numpy as np
import pesq
import pystoi
import pytest
import soxr

from audio_eval.suite import ReferenceClip


@pytest.fixture(scope="module", params=[16000, 22050, 24000, 48000])
def clips(request, speech):
    """Natural, reference and degraded clip, float32, and their rate."""
    rng = np.random.default_rng(request.param)
    natural = speech(request.param, seconds=2.5)
    made = natural + 2e-3 * rng.standard_normal(len(natural))
    worse = made + 2e-3 * rng.standard_normal(len(natural))
    return *(x.astype(np.float32) for x in (natural, made, worse)), request.param


def at_16k(samples, rate, shift=None):
    """Resampled, and with 0.1 s of silence around it and a start that many samples later."""
    resampled = samples if rate == 16000 else soxr.resample(samples, rate, 16000, quality="HQ")
    return resampled if shift is None else np.concatenate([np.zeros(1600 + shift), resampled, np.zeros(1600)])


def wide_band(reference, degraded, rate, shift):
    pair = (at_16k(x, rate, shift).astype(np.float32) for x in (reference, degraded))
    return pesq.pesq(16000, *pair, "wb")


def test_pesq(clips):
    natural, made, worse, rate = clips
    scores = ReferenceClip(made, rate, natural).score(worse, ("pesq_nb", "pesq_wb", "pesq_change"))
    assert scores["pesq_nb"] == pesq.pesq(16000, at_16k(made, rate), at_16k(worse, rate), "nb")
    starts = [wide_band(made, worse, rate, shift) for shift in (0, 64)]
    assert scores["pesq_wb"] == (starts[1] if starts[0] < 4.3 and starts[1] > starts[0] + 0.1 else starts[0])
    changes = [wide_band(natural, worse, rate, shift) - wide_band(natural, made, rate, shift) for shift in (0, 85, 170)]
    agree = abs(changes[0] - changes[1]) <= 0.05
    assert scores["pesq_change"] == np.median(changes[:2] if agree else changes)


def test_stoi(clips):
    _, made, worse, rate = clips
    scores = ReferenceClip(made, rate).score(worse, ("stoi", "estoi"))
    pair = made.astype(np.float64), worse.astype(np.float64)
    np.random.seed(0)
    assert scores == {name: pystoi.stoi(*pair, rate, extended=name == "estoi") for name in ("stoi", "estoi")}


def test_log_mel(clips):
    _, made, worse, rate = clips
    mels = [
        librosa.feature.melspectrogram(
            y=x, sr=rate, n_fft=2048, hop_length=512, n_mels=80, fmax=0.46 * rate, power=1.0, pad_mode="reflect"
        )
        for x in (made, worse)
    ]
    floor = 1e-4 * np.max(mels[0])
    logs = [np.log(np.maximum(mel, floor)) for mel in mels]
    found = ReferenceClip(made, rate).score(worse, ("log_mel_l1",))["log_mel_l1"]
    assert found == pytest.approx(np.mean(np.abs(logs[0] - logs[1])), rel=1e-5)


def test_log_spectral_distance(clips):
    _, made, worse, rate = clips
    magnitudes = [np.abs(librosa.stft(x, n_fft=1024, hop_length=256, pad_mode="reflect")) for x in (made, worse)]
    below = librosa.fft_frequencies(sr=rate, n_fft=1024) < 0.46 * rate
    floor = 1e-4 * np.max(magnitudes[0])
    levels = [20.0 * np.log10(np.maximum(magnitude, floor))[below] for magnitude in magnitudes]
    expected = np.mean(np.sqrt(np.mean(np.square(levels[0] - levels[1]), axis=0)))
    assert ReferenceClip(made, rate).score(worse, ("lsd_db",))["lsd_db"] == pytest.approx(expected, rel=1e-4)
