"""Streamer: the loop that makes an utterance of chunks, on the CPU; what a card's host does, in the same order."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from voice.site_call import SiteCall
from voice.streaming.step import StreamGraph
from voice.streaming.timing import Timing, shape_with


class Streamer:
    """A stream under way.

    With T = rate * chunk_frames samples of a value in a chunk:

    1. States begin as zeros. Chunk n, counted from 0, takes the frames n * chunk_frames to (n + 1) * chunk_frames - 1
       of each input that has a time axis, at that input's rate; other inputs whole, every time.
    2. The last chunk with frames in it is filled up with zeros, and chunks of zeros follow it until there are
       `step.chunks(frames)` in all: at most `step.flush_chunks` of them.
    3. With each go `step.masks(n, frames)`; `frames` is None until the last frame is there, and from that chunk on the
       length of the utterance. In the middle of a stream all of them are ones, and need not be sent again.
    4. New states replace the old ones.
    5. Of what chunk n gives of a part, sample i is sample n * T - delay + i of the utterance: those before 0 and those
       from `length(frames)` on are cut off, which is `part.held(n, chunk_frames, frames)`. A part that does not change
       with time is what the last chunk gives.
    """

    def __init__(self, step: StreamGraph, handler: Callable[[SiteCall], Tensor] = SiteCall.compute) -> None:
        """Begin an utterance; `handler` computes the calls of sites, as in `SiteGraph.run`."""
        self._step = step
        self._handler = handler
        self._states: dict[str, Tensor] | None = None
        self._index = 0
        self._over = False

    def push(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Take a whole chunk, and give what is ready of each part, perhaps nothing, along its time axis.

        Raises:
            ValueError: an input is missing or is no whole chunk long; the utterance is over.
        """
        if self._frames(inputs) != self._step.chunk_frames:
            raise ValueError(f"a chunk has {self._step.chunk_frames} frames; end an utterance with finish()")
        return self._run(inputs, None)

    def finish(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Take the last frames, one chunk at most and 1 at least, and give the rest of each part.

        Raises:
            ValueError: as `push`.
        """
        count, chunk = self._frames(inputs), self._step.chunk_frames
        if not 1 <= count <= chunk:
            raise ValueError(f"the last chunk must have 1 to {chunk} frames, got {count}")
        frames = self._index * chunk + count
        filled = {name: _filled(x, self._step.inputs.get(name), chunk) for name, x in inputs.items()}
        empty = {name: torch.zeros_like(x) if name in self._step.inputs else x for name, x in filled.items()}
        results = [self._run(filled, frames)]
        results += [self._run(empty, frames) for _ in range(self._step.chunks(frames) - self._index)]
        self._over = True
        return _joined(self._step, results)

    def _frames(self, inputs: Mapping[str, Tensor]) -> int:
        if self._over:
            raise ValueError("the utterance is over: begin another Streamer")
        return frames_of(self._step, inputs)

    def _run(self, inputs: Mapping[str, Tensor], frames: int | None) -> tuple[Tensor, ...]:
        step, graph = self._step, self._step.graph
        outputs = graph.run({**inputs, **step.masks(self._index, frames)}, self._handler, self._states)
        self._states = dict(zip(graph.states, outputs[len(graph.parts) :], strict=True))
        ready = _said(step, outputs, self._index, frames)
        self._index += 1
        return ready


def run_stream(
    step: StreamGraph, inputs: Mapping[str, Tensor], handler: Callable[[SiteCall], Tensor] = SiteCall.compute
) -> tuple[Tensor, ...]:
    """Stream a whole utterance, and give each part whole.

    Args:
        step: of chunks.
        inputs: by name, masks left out; those with a time axis of the whole utterance, of any length.
        handler: computes the calls of sites.

    Raises:
        ValueError: inputs are missing, empty, or not as long as each other.
    """
    chunk = step.chunk_frames
    streamer = Streamer(step, handler)
    frames = frames_of(step, inputs)
    *whole, last = range(0, max(frames, 1), chunk)
    results = [streamer.push(_cut(step, inputs, begin, begin + chunk)) for begin in whole]
    return _joined(step, [*results, streamer.finish(_cut(step, inputs, last, frames))])


def chunks_of(step: StreamGraph, inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Inputs of each run that makes a whole utterance, as a Streamer has them: masks, and the chunks that flush it.

    Args:
        step: of chunks.
        inputs: as of `run_stream`.

    Raises:
        ValueError: as `run_stream`, as the first is asked for.
    """
    frames, chunk = frames_of(step, inputs), step.chunk_frames
    if frames < 1:
        raise ValueError("an utterance must have 1 frame or more, got 0")
    for index in range(step.chunks(frames)):
        begin = min(index * chunk, frames)
        taken = _cut(step, inputs, begin, min(begin + chunk, frames))
        filled = {name: _filled(x, step.inputs.get(name), chunk) for name, x in taken.items()}
        yield filled | step.masks(index, frames if begin + chunk >= frames else None)


def joined(step: StreamGraph, frames: int, runs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """The parts of an utterance of so many frames, whole, of what the runs of `chunks_of` give: `parts` in order."""
    return _joined(step, [_said(step, outputs, index, frames) for index, outputs in enumerate(runs)])


def frames_of(step: StreamGraph, inputs: Mapping[str, Tensor]) -> int:
    """Frames of an utterance, or of a piece of it.

    Raises:
        ValueError: inputs are missing, or not as long as each other.
    """
    missing = [name for name in step.inputs if name not in inputs]
    if missing:
        raise ValueError(f"inputs are missing: {', '.join(missing)}")
    counts = {name: inputs[name].shape[t.axis] / t.rate for name, t in step.inputs.items()}
    (frames, *others) = set(counts.values())
    if others or frames.denominator != 1:
        raise ValueError(
            "inputs are not as long as each other: "
            + ", ".join(f"{name} has {float(count)} frames" for name, count in counts.items())
        )
    return int(frames)


def _said(step: StreamGraph, outputs: Sequence[Tensor], index: int, frames: int | None) -> tuple[Tensor, ...]:
    """What a run gives of each part that belongs to the utterance."""
    said = []
    for value, timing in zip(outputs, step.parts.values(), strict=False):
        begin, end = (0, 0) if timing is None else timing.held(index, step.chunk_frames, frames)
        said.append(value if timing is None else value.narrow(timing.axis, begin, end - begin))
    return tuple(said)


def _cut(step: StreamGraph, inputs: Mapping[str, Tensor], begin: int, end: int) -> dict[str, Tensor]:
    taken = dict(inputs)
    for name, timing in step.inputs.items():
        taken[name] = inputs[name].narrow(timing.axis, int(begin * timing.rate), int((end - begin) * timing.rate))
    return taken


def _filled(x: Tensor, timing: Timing | None, chunk: int) -> Tensor:
    if timing is None:
        return x
    missing = timing.samples(chunk) - x.shape[timing.axis]
    return torch.cat([x, x.new_zeros(shape_with(x, timing.axis, missing))], timing.axis)


def _joined(step: StreamGraph, results: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(
        pieces[-1] if timing is None else torch.cat(pieces, timing.axis)
        for timing, pieces in zip(step.parts.values(), zip(*results, strict=True), strict=True)
    )
