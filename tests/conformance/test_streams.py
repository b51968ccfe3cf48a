"""Streams: chunk by chunk, and row by row, what is computed of the whole."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from backends.tolerance import BF16_SNR_DB, snr_db
from tests.conformance.models import Model, decoder_step, hifigan, measured, near_db, noise, speech
from tests.conformance.targets import Target, targets
from voice.decoder import DecoderVoice
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import export_graph
from voice.hifigan import V2
from voice.mel import MelConfig
from voice.model import Clip
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


def _rows(voice: DecoderVoice, prompt: Tensor, rows: Tensor) -> Iterator[dict[str, Tensor]]:
    """What the decoder's step reads, one row after another: none, the prompt, what is said but for the last row."""
    tokens = torch.cat([voice.module.none(), prompt, rows], dim=1)
    for place in range(tokens.shape[1] - 1):
        yield {"text": tokens[:1, place], "codes": tokens[1:, place], "position": torch.tensor([place])}


@pytest.fixture(scope="module")
def decoder() -> tuple[DecoderVoice, Clip, Model, Model]:
    """A voice, what it says, and as graphs that whole and its step."""
    voice = DecoderVoice.seeded()
    clip = speech(voice, 9)
    sites = discover(voice.module, lambda: voice.render(clip), clip.seconds).sites
    return voice, clip, Model(export_graph(voice, clip), sites), decoder_step()


@pytest.mark.slow
@pytest.mark.parametrize("target", targets())
def test_the_decoder_says_row_by_row_what_it_says_whole(
    target: Target, decoder: tuple[DecoderVoice, Clip, Model, Model]
) -> None:
    voice, clip, whole, step = decoder
    prompt, rows = clip.inputs
    first = prompt.shape[1]
    exact = dict(zip(whole.graph.parts, whole.graph.run(), strict=False))
    for scheme in (target.widest, target.everyday[0], *target.narrow):
        policy = target.uniform(step.sites, scheme, streaming=True)
        scales = measured(whole.graph)
        (offline,) = target.builder.build(whole.graph, policy, whole.sites, scales).compute([whole.graph.examples])
        steps = list(target.builder.build(step.graph, policy, step.sites, scales).compute(_rows(voice, prompt, rows)))
        assert len(steps) == first + rows.shape[1]
        for part in voice.render(clip).logits:
            streamed = torch.cat([run[part] for run in steps[first:]])
            assert streamed.shape == offline[part].shape
            least = BF16_SNR_DB if target.layer_db is None else near_db(snr_db(exact[part], offline[part]))
            assert snr_db(offline[part], streamed) >= least, (scheme.name, part)
        # The codec is late by the delay of its codebooks, and sums nothing over rows.
        sound = torch.cat([run["waveform"].flatten() for run in steps[first + 1 + voice.module.config.delay :]])
        least = math.inf if target.layer_db is None else near_db(snr_db(exact["waveform"], offline["waveform"]))
        assert snr_db(offline["waveform"][: len(sound)], sound) >= least, scheme.name
