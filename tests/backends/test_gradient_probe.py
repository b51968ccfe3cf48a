from dataclasses import dataclass, field

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from audio_eval.spectra import lsd_db, lsd_low_db
from backends.emulation.gradient_probe import CLIPS, VIEWS, GradientProbe
from backends.emulation.preparation import Preparation
from backends.emulation.replay import DamageProbe
from backends.tenstorrent.numerics import TensixArithmetic
from precision.policy import Scheme
from voice.model import AdaptableVoice, Clip, Rendering

SCHEMES = (
    Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
    Scheme("bfp8", "bfp8_b", "bf16", fidelity="hifi2"),
    Scheme("bfp4", "bfp4_b", "bf16", fidelity="lofi"),
)
SITES = ("up", "first", "second", "mix", "mix#qk", "mix#pv", "last")


class Mix(nn.Linear):
    def forward(self, x):
        x = super().forward(x)
        return F.scaled_dot_product_attention(x, x, x)


class Net(nn.Module):
    """An upsampler to 16 kHz from 1 kHz, with a residual, attention on the way and a layer that nobody hears."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.up = Mix(8, 8), nn.ConvTranspose1d(8, 16, 32, stride=16, padding=8)
        self.first, self.second = nn.Conv1d(16, 16, 5, padding=2), nn.Conv1d(16, 16, 5, padding=2)
        self.last, self.unheard = nn.Conv1d(16, 1, 7, padding=3), nn.Linear(8, 1)

    def forward(self, x):
        self.unheard(x)
        x = self.up((x + self.mix(x)).mT)
        x = F.leaky_relu(x, 0.1, inplace=True)
        x = x + self.second(F.leaky_relu(self.first(x), 0.1))
        return torch.tanh(self.last(x))[0, 0]


@dataclass
class NetVoice:
    module: nn.Module = field(default_factory=lambda: Net().eval().requires_grad_(False))
    name: str = "net"
    family: str = "vocoder"
    sample_rate_hz: int = 16000
    protected: dict = field(default_factory=dict)

    def render(self, clip):
        with torch.inference_mode():
            return Rendering(self.sound(clip))

    def sound(self, clip):
        return self.module(*clip.inputs)

    def excerpt(self, clip, place, seconds):
        return clip

    def unforced(self, clip):
        return None

    def reseeded(self, clip, seed):
        return None


def clip_of(seed):
    envelope = torch.rand(1, 600, 8, generator=torch.Generator().manual_seed(seed)).cumsum(1).sin()
    return Clip(f"clip{seed}", (envelope,), seconds=0.6)


@pytest.fixture(scope="module")
def voice():
    return NetVoice()


@pytest.fixture(scope="module")
def probe(voice):
    return GradientProbe(voice, [clip_of(seed) for seed in range(CLIPS)], Preparation(TensixArithmetic()), None)


OPTIONS = [(site, scheme) for site in SITES for scheme in SCHEMES]


def test_what_is_foretold_is_what_a_rendering_finds(voice, probe):
    assert isinstance(voice, AdaptableVoice)
    clips = [clip_of(seed) for seed in range(CLIPS)]
    renders = DamageProbe(voice, clips, Preparation(TensixArithmetic()))

    def measured(metric, site, scheme):
        found = [
            metric(
                reference=renders.reference(clip).sound.numpy(),
                degraded=renders.render(site, scheme, clip).sound.numpy(),
                sample_rate_hz=16000,
            )
            for clip in clips
        ]
        return sum(found) / len(found)

    foretold = probe.foretell(OPTIONS)
    assert all(len(found) == VIEWS for found in foretold)
    for view, metric in ((0, lsd_db), (1, lsd_low_db)):
        true = [measured(metric, *option) for option in OPTIONS]
        assert spearmanr([found[view] for found in foretold], true).statistic > 0.9
    # Nepers against dB, and a root mean square over all frames against the mean of each frame's: 8.7, or about.
    small = [
        value / found[1]
        for found, value, (_, scheme) in zip(foretold, true, OPTIONS, strict=True)
        if scheme.name != "bfp4"  # whose errors are too large for a first order
    ]
    assert all(5.0 < ratio < 16.0 for ratio in small)


def test_an_option_is_foretold_alike_whatever_else_is_asked_and_whenever(voice, probe):
    together = probe.foretell(OPTIONS)
    assert [probe.foretell([option])[0] for option in OPTIONS] == together
    again = GradientProbe(voice, [clip_of(seed) for seed in range(5)], Preparation(TensixArithmetic()), None)
    assert again.foretell(OPTIONS) == together
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in voice.module.parameters())


def test_what_nobody_hears_is_foretold_as_nothing(probe):
    assert probe.foretell([("unheard", SCHEMES[2]), ("no such site", SCHEMES[2])]) == [(0.0,) * VIEWS] * 2
    assert probe.foretell([("up", SCHEMES[2])])[0][3] == 0  # there is no band above 8 kHz at 16 kHz
