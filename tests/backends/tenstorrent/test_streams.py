"""Streams on a card: what stays there from chunk to chunk, and an export's own cutting and joining beside ours."""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.emission import calls_of, emit
from backends.tenstorrent.exported import FOLDER
from backends.tenstorrent.lower import lower, stored_operands
from backends.tenstorrent.manifest import manifest
from backends.tenstorrent.program import CardStep, Program
from backends.tenstorrent.simulate import simulate
from precision.policy import Policy, Scheme
from tests.conformance.models import hifigan, noise
from voice.graph import graph_of, site_nodes
from voice.hifigan import V2
from voice.mel import MelConfig
from voice.streaming import StreamGraph, Utterance, chunks_of, in_chunks, joined, stream, streamable, utterance

TINY = replace(V2, channels=16, rates=(4, 4), kernels=(8, 8), mel=MelConfig(16000, 8, 64, 16, 64))
SCHEME = Scheme("lofi", "bfp8_b", "bf16", accumulate="fp32", fidelity="lofi")


def lowered(said: Utterance, seldom: frozenset[str]) -> Program:
    policy = Policy.uniform(list(dict.fromkeys(site.site for site in site_nodes(said.graph))), SCHEME)
    operands = stored_operands(said.graph, policy, {}, {}, None)
    return lower(said.graph, policy, CARDS["blackhole_p150"], operands, seldom=seldom)


@pytest.fixture(scope="module")
def said() -> Utterance:
    voice = hifigan(TINY)
    return utterance(voice, noise(voice, 11), 4.0)


@pytest.fixture(scope="module")
def program(said: Utterance) -> Program:
    return lowered(said, said.seldom)


def test_masks_stay_on_the_card_and_one_upload_is_left(said: Utterance, program: Program) -> None:
    calls = [call for call in calls_of(program) if call.startswith("runtime.")]
    assert calls.count("runtime.upload") == 1
    assert calls.count("runtime.hold") == len(said.seldom) > 10
    listed = [step["call"] for step in manifest(program)["steps"]]
    assert listed == list(calls_of(program))
    text = emit(program)
    compile(text, "model.py", "exec")
    held = re.findall(r'(\w+) = runtime\.hold\(\s*state, "(\w+)"', text)
    assert len(held) == len(said.seldom)
    assert all(name == key and f"ttnn.deallocate({name})" not in text for name, key in held)
    assert "ttnn.deallocate(mel_on_card)" in text


def test_what_is_held_is_computed_as_before(said: Utterance, program: Program) -> None:
    (wanted,), (found,) = (simulate(one, said.runs[0]).values() for one in (lowered(said, frozenset()), program))
    assert torch.equal(wanted, found)


def test_views_of_what_is_held_are_not_given_back(program: Program) -> None:
    steps = list(program.steps)
    at = next(index for index, step in enumerate(steps) if isinstance(step, CardStep) and step.options.get("kept"))
    kept = steps[at]
    assert isinstance(kept, CardStep)
    view = CardStep("reshape", (kept.result.name,), replace(kept.result, name="seen"), {"shape": kept.result.shape})
    again = CardStep("permute", ("seen",), replace(kept.result, name="turned"), {"order": (0, 1, 2, 3)})
    text = emit(replace(program, steps=(*steps[: at + 1], view, again, *steps[at + 1 :])))
    assert "seen = ttnn.reshape" in text
    assert "deallocate(seen)" not in text
    assert "deallocate(turned)" not in text


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The file as an export has it; of the runtime it needs the error alone."""
    monkeypatch.setitem(sys.modules, "runtime", SimpleNamespace(RuntimeFailure=ValueError))  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("chunks_of_an_export", FOLDER / "chunks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resampling() -> StreamGraph:
    """Down by two and up by three, without padding: rates and lengths that are fractions."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 5, stride=2), torch.nn.ConvTranspose1d(4, 3, 6, stride=3), torch.nn.Conv1d(3, 1, 4)
    ).requires_grad_(False)
    graph = graph_of(layers, {"x": torch.randn(1, 2, 40)}, parts=("waveform",))
    return stream(graph, time_axes={"x": 2}, chunk=4, sample_rate_hz=16000)


@pytest.fixture(scope="module")
def steps() -> dict[str, StreamGraph]:
    voice = hifigan(TINY)
    return {"hifigan": streamable(voice, noise(voice, 11)).step(4.0), "resampling": resampling()}


def test_rates_and_lengths_are_fractions(steps: dict[str, StreamGraph]) -> None:
    timing = steps["resampling"].parts["waveform"]
    assert timing is not None
    assert (str(timing.rate), len(timing.length.offsets)) == ("3/2", 2)


@pytest.mark.parametrize("frames", [1, 4, 7, 8, 15, 16, 30])
@pytest.mark.parametrize("name", ["hifigan", "resampling"])
def test_an_export_cuts_and_joins_as_a_stream_does(
    chunks: ModuleType, steps: dict[str, StreamGraph], name: str, frames: int
) -> None:
    step = steps[name]
    ((key, _),) = step.inputs.items()
    inputs = {key: torch.randn(*step.graph.examples[key].shape[:2], frames)}
    specs = [{"name": one, "shape": list(x.shape)} for one, x in step.graph.examples.items()]
    facts = json.loads(json.dumps(in_chunks(step, inputs).facts))
    cutting = chunks.Chunks(facts, specs)
    given = {one: x.numpy() for one, x in inputs.items()}
    made = list(cutting.cut(given))
    wanted = list(chunks_of(step, inputs))
    assert len(made) == len(wanted)
    for cut, run in zip(made, wanted, strict=True):
        assert cut.keys() == run.keys()
        for one, values in run.items():
            assert np.array_equal(cut[one], values.numpy()), one
    (part,) = step.parts
    outputs = [step.graph.run(run)[: len(step.parts)] for run in wanted]
    (whole,) = joined(step, frames, outputs)
    found = cutting.join(frames, [{part: run[0].numpy()} for run in outputs])
    assert np.array_equal(found[part], whole.numpy())


def test_utterances_that_are_none_are_told(chunks: ModuleType, said: Utterance) -> None:
    specs = [{"name": one, "shape": list(x.shape)} for one, x in said.graph.examples.items()]
    cutting = chunks.Chunks(said.facts, specs)
    with pytest.raises(ValueError, match=r"mel \(1, 8, any\) is missing; there are none"):
        next(cutting.cut({}))
    with pytest.raises(ValueError, match=r"mel must have shape \(1, 8, any\), got \(1, 9, 4\)"):
        next(cutting.cut({"mel": np.zeros((1, 9, 4), np.float32)}))
    with pytest.raises(ValueError, match="mel has 0 frames, and all must have the same whole number, 1 or more"):
        next(cutting.cut({"mel": np.zeros((1, 8, 0), np.float32)}))
