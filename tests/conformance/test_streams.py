"""Streams: chunk by chunk, and row by row, what is computed of the whole."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backends.tenstorrent.tolerance import BF16_SNR_DB, snr_db
from precision.policy import Policy
from tests.conformance.models import Model, decoder_step, hifigan, noise, speech
from tests.conformance.targets import Target, builders
from voice.decoder import DecoderVoice
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.graph import export_graph
from voice.hifigan import V2
from voice.mel import MelConfig
from voice.sites import discover
from voice.streaming import Streamable, streamable
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hifigan", "vocoder"])
@pytest.mark.parametrize("target", builders())
def test_what_is_streamed_is_what_is_computed_whole(target: Target, parts: Mapping[str, Streamable], name: str) -> None:
    part = parts[name]
    whole, step = part.graph(), part.step(4.0 if name == "hifigan" else 80.0)
    sites = discover(part.sites_of, lambda: part.module(*part.inputs.values()), 1.0).sites
    for scheme in (target.widest, *target.everyday):
        policy = Policy.uniform([site.name for site in sites], scheme)
        (offline,) = target.builder.build(whole, policy, sites).compute([part.inputs])
        streamed = list(target.builder.build(step.graph, policy, sites).compute(chunks_of(step, part.inputs)))
        assert len(streamed) > 2
        runs = [[run[name] for name in step.parts] for run in streamed]
        (sound,) = joined(step, frames_of(step, part.inputs), runs)
        assert sound.shape == offline["waveform"].shape
        assert snr_db(offline["waveform"], sound) >= target.agreement_db, scheme.name


def _rows(voice: DecoderVoice, prompt: Tensor, rows: Tensor) -> Iterator[dict[str, Tensor]]:
    """What the decoder's step reads, one row after another: none, the prompt, what is said but for the last row."""
    tokens = torch.cat([voice.module.none(), prompt, rows], dim=1)
    for place in range(tokens.shape[1] - 1):
        yield {"text": tokens[:1, place], "codes": tokens[1:, place], "position": torch.tensor([place])}


@pytest.mark.slow
@pytest.mark.parametrize("target", builders())
def test_the_decoder_says_row_by_row_what_it_says_whole(target: Target) -> None:
    voice = DecoderVoice.seeded()
    clip = speech(voice, 9)
    prompt, rows = clip.inputs
    step = decoder_step()
    whole = Model(export_graph(voice, clip), discover(voice.module, lambda: voice.render(clip), clip.seconds).sites)
    first = prompt.shape[1]
    for scheme in (target.widest, target.everyday[0]):
        policy = target.uniform(step.sites, scheme, streaming=True)
        (offline,) = target.builder.build(whole.graph, policy, whole.sites).compute([whole.graph.examples])
        steps = list(target.builder.build(step.graph, policy, step.sites).compute(_rows(voice, prompt, rows)))
        assert len(steps) == first + rows.shape[1]
        for part in voice.render(clip).logits:
            streamed = torch.cat([run[part] for run in steps[first:]])
            assert streamed.shape == offline[part].shape
            assert snr_db(offline[part], streamed) >= BF16_SNR_DB, (scheme.name, part)
        # The codec is late by the delay of its codebooks, and sums nothing over rows.
        sound = torch.cat([run["waveform"].flatten() for run in steps[first + 1 + voice.module.config.delay :]])
        assert snr_db(offline["waveform"][: len(sound)], sound) >= target.agreement_db, scheme.name
