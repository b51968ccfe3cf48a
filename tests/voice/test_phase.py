"""Phase: which sites make angles, and that they are protected without being told."""

import math

import pytest
import torch
from torch import nn

from backends.hopper.backend import HopperBackend
from precision.policy import Scheme
from precision_search.protection import widest
from precision_search.survey import propose
from precision_search.wire import load_setting, read_recipe
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.hifigan import Generator, HifiganConfig
from voice.mel import MelConfig
from voice.phase import find_phases
from voice.sites import discover

FP32, BF16, FP16 = (Scheme(fmt, fmt, fmt) for fmt in ("fp32", "bf16", "fp16"))
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")


class Chain(nn.Module):
    """A function between two layers."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self._between = between

    def forward(self, x):
        return self.second(self._between(self, self.first(x)))


def found(between):
    module = Chain(between)
    return find_phases(module, lambda: module(torch.ones(1, 5, 4)))


@pytest.mark.parametrize(
    ("between", "kinds"),
    [
        (lambda m, x: torch.sin(torch.cumsum(x, 1)), {"first": "oscillator"}),
        (lambda m, x: torch.sin(2 * math.pi * (x.cumsum(1) % 1.0)), {"first": "oscillator"}),
        (lambda m, x: torch.cos(m.middle(x.cumsum(1))), {"first": "oscillator", "middle": "oscillator"}),
        (lambda m, x: torch.sin(m.middle(torch.ones_like(x).cumsum(1))), {"middle": "oscillator"}),
        (lambda m, x: torch.cos(x) + torch.sin(x), {"first": "direction"}),
        (lambda m, x: torch.polar(torch.ones_like(x), x).real, {"first": "direction"}),
        (lambda m, x: torch.exp(1j * x).real, {"first": "direction"}),
        (lambda m, x: torch.cos(m.middle(x)) * torch.sin(x), {}),
        (lambda m, x: x + torch.sin(2 * x).square() / 2, {}),  # Snake
        (lambda m, x: torch.sin((x > 0).long().cumsum(1).float()), {}),
        (lambda m, x: x.softmax(-1).cumsum(-1), {}),
        (lambda m, x: torch.sin(m.middle(torch.sin(x.cumsum(1)))), {"first": "oscillator"}),
    ],
)
def test_what_feeds_an_angle_is_found_and_nothing_else(between, kinds):
    assert {site: phase.kind for site, phase in found(between).items()} == kinds


def test_the_largest_angle_is_told():
    module = Chain(lambda m, x: torch.sin(torch.cumsum(x, 1)))
    with torch.no_grad():
        module.first.weight.zero_()
        module.first.bias.fill_(-3.0)
    (phase,) = find_phases(module, lambda: module(torch.ones(1, 5, 4))).values()
    assert phase.largest_rad == 15.0
    assert phase.why.endswith("an error grows with time (up to 15 rad)")


def test_voices_that_were_there_have_no_phase_in_their_sites():
    embedded = EmbeddedVoice.load()
    clip = embedded.excerpt(bundled_clips()[0], 0.0, 0.3)
    assert find_phases(embedded.module, lambda: embedded.render(clip)) == {}
    # Left to itself it makes its own F0, by a layer that it protects by name.
    free = find_phases(embedded.module, lambda: embedded.render(embedded.unforced(clip)))
    assert {site: phase.kind for site, phase in free.items()} == {"prosody.pitch.out": "oscillator"}
    mel = MelConfig(mels=8, fft=64, hop=16, window=64)
    generator = Generator(HifiganConfig(8, (4, 4), (8, 8), (3,), ((1,),), mel=mel))
    assert find_phases(generator, lambda: generator(torch.zeros(1, 8, 4))) == {}


@pytest.mark.parametrize("recipe", ["vocos_hopper", "vocos_blackhole"])
def test_a_predicted_phase_is_held_in_fp32_whatever_the_rules_allow(recipe):
    setting = load_setting(read_recipe(recipe, ("data.search=1", "data.held_back=2")))
    assert [scheme.name for scheme in setting.space["head.project"]] == ["fp32"]
    assert list(setting.protected) == ["head.project"]
    assert "sine and cosine are taken" in setting.protected["head.project"]
    assert len(setting.space["head"]) > 1
    assert len(setting.space["blocks.0.wide"]) > 1


def test_the_widest_scheme_that_the_card_can_run_is_taken():
    (site,) = _site()
    hopper = HopperBackend()
    assert widest(site, (BF16, FP8, FP32, FP16), hopper.refuses) == FP32
    assert widest(site, (BF16, FP8, FP16), hopper.refuses) == BF16
    assert widest(site, (BF16, FP32), lambda _, scheme: "no" if scheme == FP32 else None) == BF16


def _site():
    module = nn.Sequential(nn.Linear(16, 16))
    return discover(module, lambda: module(torch.ones(1, 16)), 1.0).sites


def test_init_writes_a_rule_of_its_own():
    (site,) = _site()
    rules = propose([site], (FP32, BF16), BF16, {}, lambda _site, _scheme: None, {site.name: (FP32, "an angle")})
    assert [(rule.match, rule.allow, rule.why) for rule in rules] == [(site.name, (FP32,), "protected: an angle")]
