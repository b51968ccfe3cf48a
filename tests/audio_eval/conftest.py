"""Speech-like sound, made here: harmonics of a gliding pitch under formants, syllables, hiss between them."""

import numpy as np
import pytest


def make_speech(sample_rate_hz, seconds=2.0, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    f0 = 120.0 + 25.0 * np.sin(2 * np.pi * 0.7 * time + seed)
    angle = 2 * np.pi * np.cumsum(f0) / sample_rate_hz
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * f0
        formants = sum(np.exp(-(((frequency - centre) / 250.0) ** 2)) for centre in (600.0, 1500.0, 2700.0))
        voice += (0.05 + formants) / harmonic**0.5 * np.sin(harmonic * angle) * (frequency < sample_rate_hz / 2)
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0.0, None) ** 0.5
    fricatives = np.clip(-np.sin(2 * np.pi * 2.5 * time) - 0.7, 0.0, None)
    sound = voice * syllables + fricatives * rng.standard_normal(len(time))
    return 0.5 * sound / np.max(np.abs(sound)) + 3e-4 * rng.standard_normal(len(time))


@pytest.fixture(scope="session")
def speech():
    return make_speech


@pytest.fixture(scope="session")
def clean():
    return make_speech(22050)


@pytest.fixture(scope="session")
def hiss(clean):
    return np.random.default_rng(7).standard_normal(len(clean))
