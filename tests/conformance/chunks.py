"""Chunks: what a stream's step is given one after another, and the utterance made of what it gives."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from voice.streaming import StreamGraph


def chunks(step: StreamGraph, inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Inputs of each run, as `voice.streaming.Streamer` numbers them."""
    frames = _frames(step, inputs)
    for index in range(step.chunks(frames)):
        given = dict(inputs)
        for name, timing in step.inputs.items():
            length = timing.samples(step.chunk_frames)
            filled = torch.cat([inputs[name], torch.zeros_like(inputs[name])], timing.axis)
            while filled.shape[timing.axis] < (index + 1) * length:
                filled = torch.cat([filled, torch.zeros_like(filled)], timing.axis)
            given[name] = filled.narrow(timing.axis, index * length, length)
        ended = (index + 1) * step.chunk_frames >= frames
        yield given | step.masks(index, frames if ended else None)


def joined(step: StreamGraph, inputs: Mapping[str, Tensor], runs: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The first part, whole."""
    frames = _frames(step, inputs)
    part, timing = next(iter(step.parts.items()))
    assert timing is not None
    pieces = []
    for index, run in enumerate(runs):
        ended = (index + 1) * step.chunk_frames >= frames
        begin, end = timing.held(index, step.chunk_frames, frames if ended else None)
        pieces.append(run[part].narrow(timing.axis, begin, end - begin))
    return torch.cat(pieces, timing.axis)


def _frames(step: StreamGraph, inputs: Mapping[str, Tensor]) -> int:
    name, timing = next(iter(step.inputs.items()))
    return int(inputs[name].shape[timing.axis] / timing.rate)
