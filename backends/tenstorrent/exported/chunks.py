"""Chunks: an utterance as the inputs of one run after another, and what they give as one utterance again.

With T = rate * chunk_frames samples of a value in a chunk, chunk n, from 0, takes the samples n T to (n + 1) T - 1 of
each input that has a time axis; after the last frame zeros, until all that is late has come out. Of what it gives,
sample i is sample n T - delay + i of the utterance. Masks are 1 where such a sample is one of the utterance, else 0.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from runtime import RuntimeFailure  # type: ignore[import-not-found]  # the file beside this one, here and in an export

Array = np.ndarray[Any, Any]
Join = Callable[[list[dict[str, Array]]], dict[str, Array]]


class Timing:
    """Where in time the samples lie that a value has in a chunk, as program.json says it."""

    def __init__(self, facts: Mapping[str, Any], chunk_frames: int) -> None:
        self.axis, self.delay = int(facts["axis"]), int(facts["delay"])
        self._rate, self._offsets = Fraction(facts["rate"]), [Fraction(offset) for offset in facts["offsets"]]
        self.samples = int(self._rate * chunk_frames)

    def length(self, frames: int) -> int:
        """Samples of an utterance of so many frames."""
        return max(int(self._rate * frames + self._offsets[frames % len(self._offsets)]), 0)

    def frames(self, samples: int) -> Fraction:
        """Frames that so many samples of an input are."""
        return samples / self._rate

    def held(self, index: int, length: int | None) -> slice:
        """The part of chunk `index` that belongs to an utterance of so many samples; None: its end is far."""
        first = index * self.samples - self.delay
        begin = min(max(-first, 0), self.samples)
        end = self.samples if length is None else min(length - first, self.samples)
        return slice(begin, max(end, begin))


class Chunks:
    """How utterances are cut and joined; `stream` and `inputs` as program.json has them."""

    def __init__(self, stream: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> None:
        self._frames = int(stream["chunk_frames"])
        self._inputs, self._masks, self._parts = (
            {name: Timing(facts, self._frames) for name, facts in stream[kind].items() if facts is not None}
            for kind in ("inputs", "masks", "parts")
        )
        self._fixed = [part for part, facts in stream["parts"].items() if facts is None]
        self._shapes = {spec["name"]: tuple(spec["shape"]) for spec in inputs}

    def frames(self, inputs: Mapping[str, Array]) -> int:
        """Frames of an utterance.

        Raises:
            RuntimeFailure: inputs are missing, empty, of another shape, or not as long as each other; all are named.
        """
        wrong, counts = [], {}
        for name, shape in self._shapes.items():
            if name in self._masks:
                continue
            timing = self._inputs.get(name)
            wanted = [*shape]
            if timing is not None:
                wanted[timing.axis] = "any"
            said = f"({', '.join(str(extent) for extent in wanted)})"
            given = inputs[name].shape if name in inputs else None
            if given is None:
                wrong.append(f"{name} {said} is missing; there are {', '.join(inputs) or 'none'}")
            elif len(given) != len(shape) or any(b not in ("any", a) for a, b in zip(given, wanted, strict=True)):
                wrong.append(f"{name} must have shape {said}, got {given}")
            elif timing is not None:
                counts[name] = timing.frames(given[timing.axis])
        lengths = set(counts.values())
        if not wrong and (len(lengths) > 1 or any(count.denominator > 1 or count < 1 for count in lengths)):
            wrong = [f"{name} has {float(count):g} frames" for name, count in counts.items()]
            wrong[-1] += ", and all must have the same whole number, 1 or more"
        if wrong:
            raise RuntimeFailure("the program was made for other inputs: " + "; ".join(wrong))
        return int(next(iter(lengths)))

    def cut(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Inputs of each run, masks and the chunks that flush it included; errors as those of `frames`."""
        frames = self.frames(inputs)
        for index in range(self.count(frames)):
            taken = {name: self._taken(name, inputs[name], index) for name in self._shapes if name not in self._masks}
            ended = (index + 1) * self._frames >= frames
            for name, timing in self._masks.items():
                mask = np.zeros(self._shapes[name], np.float32)
                whole = [slice(None)] * mask.ndim
                whole[timing.axis] = timing.held(index, timing.length(frames) if ended else None)
                mask[tuple(whole)] = 1
                taken[name] = mask
            yield taken

    def count(self, frames: int) -> int:
        """Chunks of an utterance."""
        timings = self._parts.values()
        needed = [math.ceil((timing.length(frames) + timing.delay) / timing.samples) for timing in timings]
        return max(*needed, math.ceil(frames / self._frames))

    def join(self, frames: int, runs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Parts of an utterance of what its chunks gave; of what does not change with time the last."""
        parts = {part: runs[-1][part] for part in self._fixed}
        for part, timing in self._parts.items():
            length, before = timing.length(frames), [slice(None)] * timing.axis
            pieces = [outputs[part][(*before, timing.held(index, length))] for index, outputs in enumerate(runs)]
            parts[part] = np.concatenate(pieces, axis=timing.axis)
        return parts

    def _taken(self, name: str, values: Array, index: int) -> Array:
        """What chunk `index` takes of an input, zeros behind its end."""
        timing = self._inputs.get(name)
        if timing is None:
            return values
        begin, end = (min(at * timing.samples, values.shape[timing.axis]) for at in (index, index + 1))
        there = values.take(range(begin, end), timing.axis)
        missing = [(0, 0)] * values.ndim
        missing[timing.axis] = (0, timing.samples - there.shape[timing.axis])
        return np.pad(there, missing)


def cut(manifest: Mapping[str, Any], inputs: Mapping[str, Array]) -> tuple[Iterator[dict[str, Array]], Join]:
    """Inputs of each run of an utterance, and how what they give is joined; errors are told at once."""
    stream = manifest.get("stream")
    if stream and stream["inputs"]:
        timed = Chunks(stream, manifest["inputs"])
        frames = timed.frames(inputs)
        return timed.cut(inputs), lambda runs: timed.join(frames, runs)
    stacked, chunks = split(inputs, {spec["name"]: tuple(spec["shape"]) for spec in manifest["inputs"]})
    join = np.stack if stacked else lambda parts: np.concatenate(parts, axis=-1)
    return chunks, lambda runs: {part: join([outputs[part] for outputs in runs]) for part in runs[0]}


def split(
    inputs: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[bool, Iterator[dict[str, Array]]]:
    """Whether chunks have an axis of their own, and the chunks; see `Session.stream`."""
    axes, counts, wrong = {}, {}, []
    for name, shape in shapes.items():
        if name not in inputs:
            wrong.append(f"input {name} {shape} is missing; there are {', '.join(inputs) or 'none'}")
            continue
        given = inputs[name].shape
        if given == shape:
            continue
        longer = [axis for axis, (a, b) in enumerate(zip(given, shape, strict=False)) if a != b]
        if given[1:] == shape:
            axes[name], counts[name] = -1, given[0]
        elif len(given) == len(shape) and len(longer) == 1 and given[longer[0]] % shape[longer[0]] == 0:
            axes[name], counts[name] = longer[0], given[longer[0]] // shape[longer[0]]
        else:
            wrong.append(f"{name} {given} is no whole number of chunks of {shape}; pad it with zeros")
    if wrong:
        raise RuntimeFailure("; ".join(wrong))
    if len(set(counts.values())) > 1 or len({axis == -1 for axis in axes.values()}) > 1:
        raise RuntimeFailure(f"inputs have different numbers of chunks: {counts}")
    count = next(iter(counts.values()), 1)

    def chunk(number: int, name: str) -> Array:
        if name not in axes:
            return inputs[name]
        length = 1 if axes[name] == -1 else shapes[name][axes[name]]
        cut: Array = inputs[name].take(range(number * length, (number + 1) * length), axis=max(axes[name], 0))
        return cut.reshape(shapes[name])

    return -1 in axes.values(), ({name: chunk(number, name) for name in shapes} for number in range(count))
