"""StreamGraph: a model as a step of one chunk, with state, and where its results lie in time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voice.graph import SiteGraph
from voice.streaming.analysis import analyse
from voice.streaming.building import MaskKey, build
from voice.streaming.timing import StreamingError, Timing


@dataclass(frozen=True, slots=True, eq=False)
class StreamGraph:
    """A step of a stream. `voice.streaming.streamer` says how the steps make an utterance."""

    graph: SiteGraph
    """Takes a chunk of each input that has a time axis, the other inputs as they are, and masks; keeps state. Sites
    have the names and the weights that they have in the graph of the whole utterance."""
    chunk_frames: int
    sample_rate_hz: int | None
    """Of the first part; None where it was not said."""
    inputs: Mapping[str, Timing]
    """Of the inputs that have a time axis."""
    parts: Mapping[str, Timing | None]
    """Of the results; None of those that are the same in every chunk."""
    mask_keys: Mapping[str, MaskKey]
    """Inputs that are masks."""

    @property
    def chunk_samples(self) -> int:
        """Samples of the first part that a chunk gives."""
        return self._first.samples(self.chunk_frames)

    @property
    def latency_samples(self) -> int:
        """Samples by which the first part is late: what the model looks ahead."""
        return self._first.delay

    @property
    def chunk_ms(self) -> float:
        """Milliseconds of a chunk; ValueError where the sample rate was not said."""
        if self.sample_rate_hz is None:
            raise ValueError("milliseconds need a sample rate: give sample_rate_hz to stream()")
        return 1000 * self.chunk_samples / self.sample_rate_hz

    @property
    def flush_chunks(self) -> int:
        """Chunks of zeros after the last frame that bring out all results, at most; `chunks` has the exact number."""
        return max(
            max(math.ceil((timing.length.most_beyond + timing.delay) / timing.samples(self.chunk_frames)), 0)
            for timing in self._timings
        )

    def chunks(self, frames: int) -> int:
        """Chunks that an utterance takes, those that flush it included."""
        needed = [
            math.ceil((timing.length(frames) + timing.delay) / timing.samples(self.chunk_frames))
            for timing in self._timings
        ]
        return max(*needed, math.ceil(frames / self.chunk_frames))

    def masks(self, index: int, frames: int | None = None) -> dict[str, Tensor]:
        """The masks of chunk `index`, from 0: 1 within the utterance, 0 outside.

        Args:
            index: of the chunk.
            frames: of the utterance; None while its end is not known, or lies behind this chunk's frames.

        What the model makes of silence must be finite: a mask multiplies.

        Returns:
            By the name of the input; shaped for a multiplication, as [1, 1, T] for values [batch, channels, T].
        """
        masks = {}
        for name, (_, timing) in self.mask_keys.items():
            begin, end = timing.held(index, self.chunk_frames, frames)
            mask = torch.zeros_like(self.graph.examples[name])
            mask.narrow(timing.axis, begin, end - begin).fill_(1)
            masks[name] = mask
        return masks

    @property
    def _timings(self) -> list[Timing]:
        return [timing for timing in self.parts.values() if timing is not None]

    @property
    def _first(self) -> Timing:
        timing = next(iter(self.parts.values()))
        assert timing is not None
        return timing


def stream(
    graph: SiteGraph,
    *,
    time_axes: Mapping[str, int],
    chunk: int | None = None,
    chunk_ms: float | None = None,
    sample_rate_hz: int | None = None,
) -> StreamGraph:
    """Turn the graph of a whole utterance into a step of one chunk.

    It may have convolutions, transposed ones, and whatever treats each sample alone or along other axes than time;
    what it pads, it pads with zeros. A slice in time is taken as counted from both ends, and a length in time as
    growing with the frames. What a step gives is, after its latency, what the graph gives of the whole utterance, its
    beginning and end included; `voice.streaming` says when to the bit.

    Args:
        graph: of a clip of any length, 2 frames or more.
        time_axes: axis of time of each input that has one. The shortest is counted in frames; the others must be whole
            multiples of it. Other inputs are given anew with every chunk, and must be the same.
        chunk: frames of a chunk; or
        chunk_ms: milliseconds of the first part, of which the nearest whole number of frames is taken, 1 at least;
            the result's `chunk_frames` and `chunk_ms` say what came of it.
        sample_rate_hz: of the first part; with `chunk_ms` it is needed.

    Raises:
        StreamingError: naming all nodes at once that cannot run chunk by chunk, or no whole samples come of a chunk.
        ValueError: arguments that do not fit the graph or each other.
    """
    if (chunk is None) == (chunk_ms is None):
        raise ValueError("give either chunk (frames) or chunk_ms")
    analysis = analyse(graph, time_axes)
    nodes = {node.name: node for node in graph.module.graph.nodes}
    (output,) = graph.module.graph.find_nodes(op="output")
    parts = {part: analysis.plans[node].timing for part, node in zip(graph.parts, output.args[0], strict=True)}
    first = next(iter(parts.values()))
    if first is None:
        raise StreamingError(f"{graph.parts[0]} does not change with time: time_axes {dict(time_axes)} do not reach it")
    if chunk is None:
        assert chunk_ms is not None
        if sample_rate_hz is None:
            raise ValueError("chunk_ms needs sample_rate_hz")
        chunk = max(round(chunk_ms * sample_rate_hz / 1000 / first.rate), 1)
    if chunk < 1:
        raise ValueError(f"a chunk must have 1 frame or more, got {chunk}")
    whole = math.lcm(*(plan.timing.rate.denominator for plan in analysis.plans.values() if plan.timing is not None))
    if chunk % whole:
        raise StreamingError(
            f"chunks of {chunk} frames give no whole number of samples: take a multiple of {whole} frames"
        )
    built = build(graph, analysis, chunk)
    timings = {name: analysis.plans[nodes[name]].timing for name in time_axes}
    inputs = {name: timing for name, timing in timings.items() if timing is not None}
    return StreamGraph(built.graph, chunk, sample_rate_hz, inputs, parts, built.masks)
