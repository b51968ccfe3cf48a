"""Whole models: every site built as the policy says, and sounding as the emulation does, whole and row by row."""

import math
from collections import Counter
from collections.abc import Callable, Iterator

import onnx
import pytest
import torch
from torch import Tensor

from backends.hopper.built import HopperBuilt
from backends.tolerance import BF16_SNR_DB, snr_db
from precision.policy import Policy
from tests.conformance.conftest import Asked
from tests.conformance.models import MODELS, Model, decoder_clip, measured, near_db
from tests.conformance.targets import Target, asked, targets
from voice.decoder import DecoderVoice
from voice.graph import site_nodes


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", asked())
def test_every_site_is_built_as_a_mixed_policy_says(target: Target, asked_of: Asked, which: str) -> None:
    built, policy = asked_of(target)[which]
    realized = built.realized()
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}
    assert realized.keys() == set(policy)


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", [target for target in targets() if target.id.startswith("hopper")])
def test_an_onnx_model_is_valid_and_quantizes_what_the_policy_says_and_nothing_else(
    target: Target, asked_of: Asked, which: str
) -> None:
    built, policy = asked_of(target)[which]
    assert isinstance(built, HopperBuilt)
    model = built.model
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    wanted: Counter[tuple[str, str]] = Counter()
    for call in site_nodes(built.lowered.graph):
        scheme = policy[call.site]
        scaled = (2 if call.is_product else 1) if scheme.activation.startswith("fp8") else 0
        stored = 1 if scheme.weight.startswith("fp8") and not call.is_product else 0
        wanted["QuantizeLinear", call.site] += scaled
        wanted["DequantizeLinear", call.site] += scaled + stored
    found = Counter(
        (node.op_type, _site_of(node.name, policy))
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    )
    assert found == +wanted
    assert sum(found.values()) > 20


def _site_of(name: str, policy: Policy) -> str:
    """The site whose island a node belongs to; all of the name where it belongs to none."""
    call = name.removeprefix("site/").rpartition("/")[0]
    return next((site for site in (call, call.rpartition("#")[0]) if site in policy), name)


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
