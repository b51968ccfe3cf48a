"""Whole models, sounding as the emulation does, whole and row by row."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from backends.tolerance import BF16_SNR_DB, snr_db
from tests.conformance.models import MODELS, Model, decoder_clip, measured, near_db
from tests.conformance.targets import Target, targets
from voice.decoder import DecoderVoice


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", targets())
def test_a_built_model_computes_what_is_emulated(target: Target, model: Callable[[str], Model], which: str) -> None:
    held = model(which)
    exact = dict(zip(held.graph.parts, held.graph.run(), strict=False))
    schemes = (target.everyday[0], *target.narrow, target.widest)
    policies = {scheme.name: target.uniform(held.sites, scheme, held.streaming) for scheme in schemes}
    below = {}
    for name, policy in {**policies, "of all": target.mixed(held.sites, held.streaming)}.items():
        built = target.builder.build(held.graph, policy, held.sites, measured(held.graph))
        (parts,) = built.compute([held.graph.examples])
        wanted = held.emulated(policy, target.backend.exact or target.backend.arithmetic)
        assert parts.keys() == wanted.keys()
        for part, emulation in wanted.items():
            own, apart = snr_db(exact[part], emulation), snr_db(emulation, parts[part])
            if apart < near_db(own):
                below[name, part] = (own, apart)
    assert below == {}


def _rows(voice: DecoderVoice, prompt: Tensor, rows: Tensor) -> Iterator[dict[str, Tensor]]:
    """What the decoder's step reads, one row after another: none, the prompt, what is said but for the last row."""
    tokens = torch.cat([voice.module.none(), prompt, rows], dim=1)
    for place in range(tokens.shape[1] - 1):
        yield {"text": tokens[:1, place], "codes": tokens[1:, place], "position": torch.tensor([place])}


@pytest.mark.slow
@pytest.mark.parametrize("target", targets())
def test_the_decoder_says_row_by_row_what_it_says_whole(target: Target, model: Callable[[str], Model]) -> None:
    voice, whole, step = DecoderVoice.seeded(), model("decoder"), model("decoder_step")
    clip = decoder_clip(voice)
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
