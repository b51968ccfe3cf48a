"""Utterance: a clip as a stream says it, run after run, whichever kind of step it is said by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voice.graph import SiteGraph
from voice.streaming.step import StreamGraph
from voice.streaming.streamer import chunks_of, frames_of, joined

Join = Callable[[Sequence[Sequence[Tensor]]], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """One clip in runs of one graph, its states zeros before the first."""

    graph: SiteGraph
    """Of a run, with state."""
    runs: Sequence[Mapping[str, Tensor]]
    """Inputs of each run, all that `graph` takes."""
    inputs: Mapping[str, Tensor]
    """The same as whoever streams it has them: of chunks the whole utterance, its masks left out; of steps whose inputs
    are given one by one a first axis of runs."""
    join: Join
    """Outputs of each run, `graph.parts` in order, to those of the utterance: of chunks in time, and cut to its length;
    of steps along a first axis of runs."""
    seldom: frozenset[str]
    """Inputs that are mostly the same from one run to the next: masks, and what does not change with time."""
    facts: Mapping[str, Any]
    """What a host must know, as JSON can hold it: `chunk_ms`, `chunk_frames`, `chunk_samples` (of the first part in a
    run) and `latency_samples` (of it, which mean nothing); of chunks the timing of `inputs`, `masks` and `parts`, by
    name, as `Timing.facts` has it, and of steps none."""


def in_chunks(step: StreamGraph, inputs: Mapping[str, Tensor]) -> Utterance:
    """An utterance in chunks; its inputs are those of `run_stream`, whose ValueErrors it has."""
    frames = frames_of(step, inputs)
    graph = step.graph
    facts = {
        "chunk_ms": step.chunk_ms,
        "chunk_frames": step.chunk_frames,
        "chunk_samples": step.chunk_samples,
        "latency_samples": step.latency_samples,
        "inputs": {name: timing.facts() for name, timing in step.inputs.items()},
        "masks": {name: timing.facts() for name, (_, timing) in step.mask_keys.items()},
        "parts": {name: None if timing is None else timing.facts() for name, timing in step.parts.items()},
    }
    return Utterance(
        graph,
        list(chunks_of(step, inputs)),
        inputs,
        lambda runs: joined(step, frames, runs),
        frozenset(graph.inputs) - step.inputs.keys(),
        facts,
    )


def in_steps(
    graph: SiteGraph, inputs: Mapping[str, Tensor], *, chunk_ms: float, chunk_samples: int, latency_samples: int
) -> Utterance:
    """An utterance in steps whose inputs are given one by one, [runs, ...] each."""
    runs = [
        dict(zip(inputs, row, strict=True))
        for row in zip(*(values.unbind() for values in inputs.values()), strict=True)
    ]
    facts = {
        "chunk_ms": chunk_ms,
        "chunk_frames": 1,
        "chunk_samples": chunk_samples,
        "latency_samples": latency_samples,
        "inputs": {},
        "masks": {},
        "parts": {},
    }
    return Utterance(graph, runs, inputs, _stacked, frozenset(), facts)


def _stacked(runs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(parts) for parts in zip(*runs, strict=True))
