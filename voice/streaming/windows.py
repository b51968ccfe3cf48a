"""Windows: how many past samples a convolution needs beside a chunk, and by how much its result is late.

A transposed convolution takes past inputs, too, rather than adding up the tails of outputs: each output sample is then
one sum over all its products, rounded once, so that it is the same to the bit whatever the format it is stored in.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

from voice.site_call import ConvOptions
from voice.streaming.timing import Timing


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution of one chunk: of the samples kept and those that came, as one row."""

    timing: Timing
    """Of its result."""
    history: int
    """Samples of its input that are kept from chunk to chunk."""
    options: ConvOptions
    """Its geometry in a step."""
    skip: int = 0
    """Samples of the row in front of the first that it reads."""
    unread: int = 0
    """Samples of the row behind the last that it reads."""
    extra: int = 0
    """Samples of its result in front of the first that is wanted."""
    excess: int = 0
    """Samples of its result behind the last that is wanted."""


def convolution(timing: Timing, taps: int, options: ConvOptions) -> Window:
    """Plan a conv1d of a value that is zero outside of its utterance.

    Output j reads the inputs from stride * j - padding to `reach` samples further.
    """
    stride, padding = options.stride[0], options.padding[0]
    reach = options.dilation[0] * (taps - 1)
    length = timing.length.then(Fraction(1, stride), lambda samples: (samples + 2 * padding - reach - 1) // stride + 1)
    # The last output of a chunk may read no input that is yet to come.
    delay = max(-((stride + padding - reach - 1 - timing.delay) // stride), length.most_missing, 0)
    first = timing.delay - stride * delay - padding  # position of the first input read, counted from the chunk's first
    history = max(-first, 0)
    skip = max(first, 0)
    unread = -first + stride - reach - 1
    # A stride leaves out up to stride - 1 samples at the end by itself.
    return Window(
        Timing(timing.axis, delay, length),
        history,
        replace(options, padding=(0,)),
        skip=skip,
        unread=0 if unread < stride else unread,
    )


def transposed_convolution(timing: Timing, taps: int, options: ConvOptions) -> Window:
    """Plan a conv_transpose1d of a value that is zero outside of its utterance.

    Input i adds to the outputs from stride * i - padding to `reach` samples further.
    """
    stride, padding = options.stride[0], options.padding[0]
    reach = options.dilation[0] * (taps - 1)
    grown = reach + 1 - 2 * padding + (options.output_padding[0] if options.output_padding else 0)
    length = timing.length.then(Fraction(stride), lambda samples: stride * (samples - 1) + grown)
    delay = max(stride * timing.delay + padding, length.most_missing)
    # Back to the first input that is read, and, where taps are fewer than the stride, to one no later than the output.
    history = max((delay - padding + reach) // stride, -((padding - delay) // stride)) - timing.delay
    # The result of the row, nothing cut off, begins `extra` samples too early and ends `excess` too late.
    extra = padding - delay + stride * (timing.delay + history)
    excess = stride * (history - 1) + reach + 1 - extra
    cut = max(min(extra, excess), 0)
    return Window(
        Timing(timing.axis, delay, length),
        history,
        replace(options, padding=(cut,), output_padding=(max(-excess, 0),)),
        extra=extra - cut,
        excess=max(excess - cut, 0),
    )


def cropped(timing: Timing, before: int, behind: int) -> tuple[Timing, int]:
    """Plan samples taken away in front and at the end, or zeros added where below 0.

    Returns:
        The timing of the result, and the samples by which the input must wait for it.
    """
    length = timing.length.then(Fraction(1), lambda samples: samples - before - behind)
    delay = timing.delay + before
    wait = max(length.most_missing - delay, -delay, 0)
    return Timing(timing.axis, delay + wait, length), wait


def aligned(timings: list[Timing]) -> Timing:
    """The latest of the timings, for which the others wait; they may differ in nothing but their delays."""
    return max(timings, key=lambda timing: timing.delay)
