"""Timing: which samples of a whole utterance a chunk of a stream holds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor


class StreamingError(ValueError):
    """A graph that cannot run chunk by chunk; names every node that stands in the way."""


@dataclass(frozen=True, slots=True)
class Length:
    """Samples of a value by the frames of the utterance: `rate` times the frames, and an offset that has a period."""

    rate: Fraction
    """Samples a frame; below 1 after strided convolutions."""
    offsets: tuple[Fraction, ...]
    """Added where frames mod the count of offsets is their position; a convolution without padding has one below 0."""

    @classmethod
    def of(cls, rate: Fraction, period: int, samples: Callable[[int], int]) -> "Length":
        """Make it of a function of the frames, of which a whole period and the rate are known."""
        offsets = tuple(samples(frames) - rate * frames for frames in range(period, 2 * period))
        for shorter in range(1, period):
            if period % shorter == 0 and offsets == offsets[:shorter] * (period // shorter):
                return cls(rate, offsets[:shorter])
        return cls(rate, offsets)

    def __call__(self, frames: int) -> int:
        """Samples of an utterance of so many frames; 0 where it is too short for one."""
        return max(self._samples(frames), 0)

    def then(self, rate: Fraction, samples: Callable[[int], int]) -> "Length":
        """What an operation makes of it that has `rate` times as many samples, give or take some."""
        period = math.lcm(len(self.offsets), (self.rate * rate).denominator)
        return Length.of(self.rate * rate, period, lambda frames: samples(self._samples(frames)))

    @property
    def most_missing(self) -> int:
        """Samples by which it may fall short of the rate times the frames, rounded up."""
        return math.ceil(max(-offset for offset in self.offsets))

    @property
    def most_beyond(self) -> int:
        """Samples by which it may go beyond the rate times the frames, rounded up; below 0 where it never does."""
        return math.ceil(max(self.offsets))

    def _samples(self, frames: int) -> int:
        return int(self.rate * frames + self.offsets[frames % len(self.offsets)])


@dataclass(frozen=True, slots=True)
class Timing:
    """Where in time the samples lie that a value has in a step.

    In chunk n, of T = rate * chunk samples, a value holds the samples n * T - delay to (n + 1) * T - delay - 1 of those
    that it has when the whole utterance runs at once; those before 0 and from `length` on mean nothing.
    """

    axis: int
    delay: int
    """Samples at its own rate, 0 or more."""
    length: Length

    @property
    def rate(self) -> Fraction:
        """Samples a frame."""
        return self.length.rate

    def samples(self, chunk: int) -> int:
        """Samples in a chunk of so many frames, of which a whole number must come."""
        return int(self.rate * chunk)

    def facts(self) -> dict[str, Any]:
        """Plain data: `axis`, `delay`, and `rate` and `offsets` of the length as texts of fractions."""
        offsets = [str(offset) for offset in self.length.offsets]
        return {"axis": self.axis, "delay": self.delay, "rate": str(self.rate), "offsets": offsets}

    def held(self, index: int, chunk: int, frames: int | None) -> tuple[int, int]:
        """The part of chunk `index` that belongs to the utterance, as first sample and the one after the last.

        `frames` None is an utterance whose end is not known: nothing is cut at the end.
        """
        samples = self.samples(chunk)
        first = index * samples - self.delay
        begin = min(max(-first, 0), samples)
        if frames is None:
            return begin, samples
        return begin, max(min(self.length(frames) - first, samples), begin)


def shape_with(value: Tensor, axis: int, samples: int) -> tuple[int, ...]:
    """Shape of a value with so many samples in time."""
    return (*value.shape[:axis], samples, *value.shape[axis + 1 :])
