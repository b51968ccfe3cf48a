"""Models: the three that are lowered whole, and the decoder's step, as graphs with their sites."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from backends.base import Arithmetic, Measured
from backends.emulation.preparation import Preparation
from calibrate.observing import observing
from precision.policy import Policy
from precision.site import Site
from voice.decoder import DecoderVoice
from voice.decoder_step import Step
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import SiteGraph, export_graph, graph_of
from voice.hifigan import V2, Generator, HifiganConfig, HifiganVoice
from voice.model import Clip, Voice
from voice.sites import discover

TWICE_DB = 6.0
"""How far below a format's own error the distance of two computations in it may lie.

Own error: of the emulation, against fp32. The emulation rounds operands and results of sites; a built model rounds
what it stores between them as well, to no less than what it stores sites' results in. As long as it is no worse than
the emulation, both lie within that error of fp32, and so within twice of it of each other: 6 dB. Seen were at most 3.2.
Sums in another order move values over the edge of a rounding here and there, which is as large an error, and every
layer makes more of them, so that a deep model comes out with another sample of the format's error.
"""
FP32_DB = 100.0
"""SNR of two computations of a model in fp32 by different libraries: 2**-24 (144 dB), times the root of the number of
terms of a sum (33 dB for 2048), less 11 dB for all that is computed one after another. Seen were 112.8 and more."""


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


@cache
def measured(graph: SiteGraph) -> Measured:
    """Static scales, from one run of a graph on its own inputs."""
    with observing(lambda handler: nullcontext()) as observer:
        graph.run(handler=observer.handle)
    return Measured(calibration=observer.calibration())


def emulated(graph: SiteGraph, policy: Policy, arithmetic: Arithmetic) -> dict[str, Tensor]:
    """Parts of one run from state zero."""
    calibration = measured(graph).calibration
    handler = partial(Preparation(arithmetic).compute, schemes=dict(policy.schemes), calibration=calibration)
    return dict(zip(graph.parts, graph.run(handler=handler), strict=False))


def near_db(own_db: float) -> float:
    """SNR, at least, of two computations of a model, one of which has this against fp32."""
    return min(own_db - TWICE_DB, FP32_DB)


def hifigan(config: HifiganConfig = V2) -> HifiganVoice:
    """Of seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HifiganVoice(config, Generator(config).eval().requires_grad_(False))


def noise(voice: HifiganVoice, frames: int) -> Clip:
    """A mel of noise."""
    mel = torch.randn(1, voice.config.mel.mels, frames, generator=torch.Generator().manual_seed(frames))
    return Clip("noise", (mel,), frames * voice.config.mel.hop / voice.sample_rate_hz)


def decoder_clip(voice: DecoderVoice) -> Clip:
    """A prompt of text, and nine rows that the model itself wrote behind it."""
    prompt, written = voice.clips(1)[0].inputs
    return Clip("prompt", (prompt, written[:, :9]), 9 / 12.5)


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
    return _whole(voice, decoder_clip(voice))


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
