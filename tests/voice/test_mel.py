"""The mel front end against the same formula written in numpy."""

import librosa
import numpy as np
import pytest
import torch

from voice.mel import MelConfig, log_mel


def in_numpy(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    edge = (config.fft - config.hop) // 2
    padded = np.concatenate([samples[edge:0:-1], samples, samples[-2 : -edge - 2 : -1]])
    starts = range(0, len(padded) - config.fft + 1, config.hop)
    window = np.zeros(config.fft)
    first = (config.fft - config.window) // 2
    turns = np.arange(config.window) / config.window
    window[first : first + config.window] = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
    spectrum = np.stack([np.fft.rfft(padded[start : start + config.fft] * window) for start in starts], axis=1)
    filters = librosa.filters.mel(
        sr=config.sample_rate_hz,
        n_fft=config.fft,
        n_mels=config.mels,
        fmin=config.low_hz,
        fmax=config.high_hz,
        htk=False,
        norm="slaney",
    )
    return np.log(np.maximum(filters @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9), config.floor))


@pytest.mark.parametrize(
    "config",
    [MelConfig(), MelConfig(sample_rate_hz=16000), MelConfig(24000, 40, 512, 128, 400, 50.0, 12000.0)],
)
def test_against_numpy(config: MelConfig) -> None:
    rng = np.random.default_rng(0)
    samples = (rng.standard_normal(5000) * np.linspace(0, 0.3, 5000)).astype(np.float32)
    frames = log_mel(torch.from_numpy(samples)[None], config)
    assert frames.shape == (1, config.mels, 5000 // config.hop)
    np.testing.assert_allclose(frames[0].numpy(), in_numpy(samples.astype(np.float64), config), atol=2e-4)


def test_silence_is_the_floor_at_most() -> None:
    # 1e-9 under the root is not silence itself, yet every Slaney filter brings it below the floor.
    frames = log_mel(torch.zeros(1, 2048), MelConfig())
    torch.testing.assert_close(frames, torch.full_like(frames, float(np.log(1e-5))))


def test_a_batch_is_its_clips() -> None:
    samples = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    both = log_mel(samples, MelConfig())
    torch.testing.assert_close(both[1:], log_mel(samples[1:], MelConfig()))


def test_nan_stays_in_its_frames_and_too_short_audio_is_refused() -> None:
    samples = torch.zeros(1, 4096)
    samples[0, 100] = float("nan")
    frames = log_mel(samples, MelConfig())
    assert frames[0, :, 0].isnan().all()
    assert not frames[0, :, -1].isnan().any()
    for shape in ((1, 384), (2000,)):
        with pytest.raises(ValueError, match="batch"):
            log_mel(torch.zeros(shape), MelConfig())
