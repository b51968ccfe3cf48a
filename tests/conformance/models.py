"""Models: the three that are lowered whole, and the decoder's step, as graphs with their sites."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from backends.base import Arithmetic
from backends.emulation.preparation import Preparation
from precision.policy import Policy
from precision.site import Site
from voice.decoder import DecoderVoice
from voice.decoder_step import Step
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import SiteGraph, export_graph, graph_of
from voice.hifigan import V2, Generator, HifiganConfig, HifiganVoice
from voice.model import Clip, Voice
from voice.sites import discover


@dataclass(frozen=True)
class Model:
    graph: SiteGraph
    sites: tuple[Site, ...]

    @property
    def streaming(self) -> bool:
        """Whether it is a step with state."""
        return bool(self.graph.states)

    def emulated(self, policy: Policy, arithmetic: Arithmetic) -> dict[str, Tensor]:
        """The graph's parts with its sites under the policy, and nothing rounded between them."""
        return emulated(self.graph, policy, arithmetic)


def emulated(graph: SiteGraph, policy: Policy, arithmetic: Arithmetic) -> dict[str, Tensor]:
    """Parts of one run from state zero."""
    handler = partial(Preparation(arithmetic).compute, schemes=dict(policy.schemes), calibration=None)
    return dict(zip(graph.parts, graph.run(handler=handler), strict=False))


def hifigan(config: HifiganConfig = V2) -> HifiganVoice:
    """Of seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HifiganVoice(config, Generator(config).eval().requires_grad_(False))


def noise(voice: HifiganVoice, frames: int) -> Clip:
    """A mel of noise."""
    mel = torch.randn(1, voice.config.mel.mels, frames, generator=torch.Generator().manual_seed(frames))
    return Clip("noise", (mel,), frames * voice.config.mel.hop / voice.sample_rate_hz)


def speech(voice: DecoderVoice, rows: int) -> Clip:
    """A prompt of text, and rows that the model itself wrote behind it."""
    prompt, written = voice.clips(1)[0].inputs
    return Clip("prompt", (prompt, written[:, :rows]), rows / 12.5)


def _whole(voice: Voice, clip: Clip) -> Model:
    return Model(export_graph(voice, clip), discover(voice.module, lambda: voice.render(clip), clip.seconds).sites)


def _embedded() -> Model:
    voice = EmbeddedVoice.load()
    return _whole(voice, voice.excerpt(bundled_clips()[0], 0.0, 0.4))


def _hifigan() -> Model:
    voice = hifigan()
    return _whole(voice, noise(voice, 12))


def _decoder() -> Model:
    voice = DecoderVoice.seeded()
    return _whole(voice, speech(voice, 9))


def decoder_step() -> Model:
    """One row of 80 ms with the memory of those before."""
    decoder = DecoderVoice.seeded().module
    step = Step(decoder)
    given, states = step.examples(), step.states()
    sites = discover(decoder, lambda: step(*given.values(), *states.values()), 0.08).sites
    return Model(graph_of(step, given, states, parts=step.parts, sites_of=decoder), sites)


MODELS: Mapping[str, Callable[[], Model]] = {
    "embedded": _embedded,
    "hifigan_v2": _hifigan,
    "decoder": _decoder,
    "decoder_step": decoder_step,
}
