"""Streams: chunk by chunk what is computed of the whole."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pytest

from backends.tolerance import snr_db
from tests.conformance.models import Model, hifigan, measured, near_db, noise
from tests.conformance.targets import Target, targets
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.hifigan import V2
from voice.mel import MelConfig
from voice.sites import discover
from voice.streaming import Streamable, StreamGraph, streamable
from voice.streaming.streamer import chunks_of, frames_of, joined

SMALL = replace(V2, channels=32, rates=(4, 4), kernels=(8, 8), mel=MelConfig(16000, 16, 64, 16, 64))
FRAMES = 11


@pytest.fixture(scope="module")
def parts() -> Mapping[str, Streamable]:
    """What is streamed, on a short utterance."""
    voice, embedded = hifigan(SMALL), EmbeddedVoice.load()
    vocoder = streamable(embedded, embedded.excerpt(bundled_clips()[0], 0.0, 0.3))
    least = min(x.shape[2] for x in vocoder.inputs.values())
    short = {name: x[:, :, : x.shape[2] // least * FRAMES] for name, x in vocoder.inputs.items()}
    return {"hifigan": streamable(voice, noise(voice, FRAMES)), "vocoder": replace(vocoder, inputs=short)}


@pytest.fixture(scope="module")
def traced(parts: Mapping[str, Streamable]) -> Callable[[str], tuple[Model, StreamGraph]]:
    """The whole of a part and its step, traced once for all targets."""

    @cache
    def make(name: str) -> tuple[Model, StreamGraph]:
        part = parts[name]
        sites = discover(part.sites_of, lambda: part.module(*part.inputs.values()), 1.0).sites
        return Model(part.graph(), sites), part.step(4.0 if name == "hifigan" else 80.0)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hifigan", "vocoder"])
@pytest.mark.parametrize("target", targets())
def test_what_is_streamed_is_what_is_computed_whole(
    target: Target, traced: Callable[[str], tuple[Model, StreamGraph]], name: str
) -> None:
    held, step = traced(name)
    whole, sites = held.graph, held.sites
    (exact,) = whole.run()
    for scheme in (target.widest, *target.everyday, *target.narrow):
        policy = target.uniform(sites, scheme, streaming=True)
        (offline,) = target.builder.build(whole, policy, sites, measured(whole)).compute([whole.examples])
        built = target.builder.build(step.graph, policy, sites, measured(whole))
        streamed = list(built.compute(chunks_of(step, whole.examples)))
        assert len(streamed) > 2
        runs = [[run[name] for name in step.parts] for run in streamed]
        (sound,) = joined(step, frames_of(step, whole.examples), runs)
        assert sound.shape == offline["waveform"].shape
        least = math.inf if target.layer_db is None else near_db(snr_db(exact, offline["waveform"]))
        assert snr_db(offline["waveform"], sound) >= least, scheme.name
