"""Vocos: its inverse STFT, its Voice, and the phase that it predicts."""

import numpy as np
import pytest
import torch
from torch import nn

from voice.embedded import bundled_clips
from voice.mel import MelConfig
from voice.phase import find_phases
from voice.sites import discover
from voice.vocos import SpectralHead, Vocos, VocosConfig, VocosVoice

SMALL = VocosConfig(
    channels=8, hidden=16, blocks=1, mel=MelConfig(sample_rate_hz=16000, mels=20, fft=64, hop=16, window=64)
)


class Spoken(nn.Module):
    """Gives log magnitude and phase of a sound's STFT in place of a prediction."""

    def __init__(self, samples, mel):
        super().__init__()
        edge = (mel.fft - mel.hop) // 2
        window = torch.hann_window(mel.fft)
        padded = nn.functional.pad(samples, (edge, edge))
        self.spectrum = torch.stft(padded, mel.fft, mel.hop, mel.fft, window, center=False, return_complex=True)

    def forward(self, _):
        angle = self.spectrum.angle() + 6 * torch.pi  # unwrapped: turns make no difference
        return torch.cat([self.spectrum.abs().clamp(min=1e-9).log(), angle], 1).transpose(1, 2)


def test_the_head_gives_back_a_sound_of_its_magnitude_and_phase():
    torch.manual_seed(0)
    samples = 0.1 * torch.randn(1, 16 * 40)
    head = SpectralHead(SMALL)
    head.project = Spoken(samples, SMALL.mel)
    inside = slice(SMALL.mel.fft, -SMALL.mel.fft)
    torch.testing.assert_close(head(torch.zeros(1, 40, 8))[:, inside], samples[:, inside], atol=2e-6, rtol=0)


def test_all_multiplications_are_sites_and_the_angle_is_found():
    torch.manual_seed(0)
    voice = VocosVoice(Vocos(SMALL))
    clip = voice.clip("noise", 0.1 * np.random.default_rng(0).standard_normal(1000), 16000)
    assert voice.render(clip).sound.shape == (1000 // 16 * 16,)
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert found.covered_share == 1.0
    phases = find_phases(voice.module, lambda: voice.render(clip))
    assert {site: phase.kind for site, phase in phases.items()} == {"head.project": "direction"}


def test_the_weights_that_the_package_brings_speak():
    voice = VocosVoice.load()
    clip = voice.excerpt(voice.bundled_clips()[0], 0.5, 1.0)
    assert clip.seconds == pytest.approx(1.0, abs=0.02)
    assert clip.natural is None
    sound = voice.render(clip).sound
    assert len(sound) == round(clip.seconds * 16000)
    assert 0.02 < sound.square().mean().sqrt() < 0.5
    natural = bundled_clips()[0].natural
    whole = voice.render(voice.clip("whole", natural, 16000)).sound
    level = np.sqrt(np.mean(natural**2))
    assert whole.square().mean().sqrt().item() == pytest.approx(level, rel=0.2)
    assert voice.unforced(clip) is None
    assert voice.reseeded(clip, 1) is None


def test_training_reaches_every_weight():
    voice = VocosVoice(Vocos(SMALL))
    clip = voice.excerpt(voice.clip("noise", 0.1 * np.random.default_rng(0).standard_normal(1000), 16000), 0.0, 0.02)
    voice.module.requires_grad_(True)
    voice.sound(clip).square().sum().backward()
    assert all(parameter.grad is not None for parameter in voice.module.parameters())


def test_a_recording_at_another_rate_is_refused():
    with pytest.raises(ValueError, match="resample it first"):
        VocosVoice(Vocos(SMALL)).clip("slow", np.zeros(1000), 8000)
