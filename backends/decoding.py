"""Decoding: streams, first sound and speculation of an autoregressive speech decoder on a card.

Codebooks follow each other in the delay pattern, so that a frame of 80 ms is one pass of the transformer, and the first
sound comes with the pass after `delay` more.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from backends.decoder_pass import FRAME_SECONDS, DecoderCost, PassCost
from backends.devices import Case
from backends.serving import MEMORY_SHARE, PolicyCost, Serving
from voice.codec_decoder import CodecDecoder
from voice.decoder_config import DecoderConfig

MAX_STREAMS = 1 << 14
STATE_BYTES = 4
"""Of a value that the codec keeps from frame to frame: what lies between sites is float32."""

ASSUMPTIONS: tuple[str, ...] = (
    "every stream speaks all the time and needs one frame each 80 ms; streams of one pass are at the same frame, and"
    " passes of one batch after another share the card",
    "memory: all weights, the rows of every stream in pages of no loss, the codec's states and one pass's activations,"
    f" at most {MEMORY_SHARE} of the card",
    "the rows that a stream holds and looks at are the mean of a conversation, the same for all",
    "a stream that begins waits for no other: its prompt is read, and its first rows are written, one pass after"
    " another",
    "codes of the user's sound are given: the codec's encoder, and the way over the network, are not counted",
)


@dataclass(frozen=True, slots=True)
class Streams:
    """How many real-time streams a card carries, and at what."""

    streams: int
    batch: int
    """Streams of one pass."""
    passes: int
    """Passes that the card runs a frame, one batch after another."""
    pass_cost: PassCost
    """Of one of them."""
    limited_by: Literal["time", "memory"]
    weight_bytes: float
    stream_bytes: float
    """Of a stream: its keys and values, and what the codec keeps."""

    @property
    def utilization(self) -> float:
        """Share of its time that the card is busy."""
        return self.passes * self.pass_cost.seconds / FRAME_SECONDS


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a card; each a stated assumption."""

    context: int = 1500
    """Rows of 80 ms that a stream holds and looks at, the mean: 1500 are two minutes."""
    utilization: float = 0.7
    """Largest share of its time that the card may be busy, in (0, 1]."""
    batch: int | None = None
    """Streams of one pass, where a server has a fixed number; None takes the largest that fits."""
    held: int | None = None
    """Rows of memory that a stream reserves; None for `context`."""
    passes_a_row: int = 1
    """Passes that one frame takes: 1 in the delay pattern; 1 + codebooks where the tokens of a frame lie in a line,
    each of them a row of its own."""

    def __post_init__(self) -> None:
        """Refuse what no card can be asked."""
        whole = (self.context, self.batch or 1, self.held or 1, self.passes_a_row)
        if min(whole) < 1 or not 0 < self.utilization <= 1:
            raise ValueError(
                f"context, batch, held and passes_a_row >= 1 and 0 < utilization <= 1 must hold, got {self}"
            )


def streams_of(cost: DecoderCost, load: Load | None = None) -> Streams:
    """Count the streams that keep their deadline, a frame each 80 ms, and fit in memory; 0 where one alone does not."""
    load = load or Load()
    context = load.context * load.passes_a_row
    budget = load.utilization * FRAME_SECONDS / load.passes_a_row
    stream_bytes = (load.held or load.context) * load.passes_a_row * cost.row_bytes + state_bytes(cost.config)
    room = MEMORY_SHARE * cost.device.memory_gb.as_gain(cost.case) * 1e9 - cost.weight_bytes

    def seconds(streams: int) -> float:
        took = cost.pass_cost(streams, context)
        return took.transformer + took.codec / load.passes_a_row

    if load.batch is None:
        by_time = _largest(lambda count: seconds(count) <= budget)
        by_memory = _largest(lambda count: count * stream_bytes + cost.live_bytes(count) <= room)
        streams = batch = min(by_time, by_memory)
        passes = min(1, streams)
    else:
        batch = load.batch
        by_time = batch * math.floor(budget / seconds(batch) + 1e-9)
        by_memory = max(0, math.floor((room - cost.live_bytes(batch)) / stream_bytes))
        streams = min(by_time, by_memory)
        passes = math.ceil(streams / batch)
    limited: Literal["time", "memory"] = "memory" if by_memory < by_time else "time"
    found = cost.pass_cost(max(1, batch), context)
    return Streams(streams, batch, passes * load.passes_a_row, found, limited, cost.weight_bytes, stream_bytes)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest count that fits, 0 to MAX_STREAMS, of what fits up to some count and not beyond."""
    low, high = 0, 1
    while high <= MAX_STREAMS and fits(high):
        low, high = high, 2 * high
    high = min(high, MAX_STREAMS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@cache
def state_bytes(config: DecoderConfig) -> int:
    """Bytes that the codec keeps of a stream between frames."""
    with torch.device("meta"):
        states = CodecDecoder(config.codec).states()
    return STATE_BYTES * sum(math.prod(shape) for shape in states.values())


@dataclass(frozen=True, slots=True)
class FirstSound:
    """Seconds from the end of what the user says to the first sound, by parts."""

    frame: float
    """The last frame of the user's sound is there when it has been said; 0 where text asks."""
    prefill: float
    """The prompt, read at once and alone."""
    passes: float
    """`delay` + 1 rows of the transformer, in passes with other streams."""
    codec: float
    """Of the same passes."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.frame + self.prefill + self.passes + self.codec


def first_sound(cost: DecoderCost, prompt: int, streams: int, context: int, *, speech: bool = True) -> FirstSound:
    """Time to the first sound of a stream that begins.

    Args:
        cost: the decoder on its card.
        prompt: rows of the prompt, 1 and up.
        streams: that each pass of the first rows serves, this one among them.
        context: rows that each of them looks at.
        speech: whether the prompt ends in the user's own sound, a frame of which has to be waited for.
    """
    read = cost.pass_cost(1, prompt, rows=prompt, answers=1).transformer
    step, rows = cost.pass_cost(streams, context), cost.config.delay + 1
    return FirstSound(FRAME_SECONDS if speech else 0.0, read, rows * step.transformer, rows * step.codec)


def served(costs: Mapping[Case, DecoderCost], label: str, load: Load | None = None) -> Serving:
    """Streams at both ends of the ranges and in the middle, as `backends.money.compare` takes them.

    Args:
        costs: the same decoder, policy and card in the three cases.
        label: of the policy.
        load: what is asked of the card.
    """
    load = load or Load()
    found = {case: as_policy_cost(cost, streams_of(cost, load)) for case, cost in costs.items()}
    device = costs["middle"].device
    return Serving(device, label, found["low"], found["middle"], found["high"], FRAME_SECONDS, load.utilization, False)


def as_policy_cost(cost: DecoderCost, found: Streams) -> PolicyCost:
    """Streams of a decoder as those of a model that renders clips are told."""
    batch = max(1, found.batch)
    return PolicyCost(
        seconds_per_audio_second=found.pass_cost.seconds / (batch * FRAME_SECONDS),
        streams_per_card=found.streams,
        batch=found.batch,
        utilization=found.utilization,
        weight_bytes=found.weight_bytes,
        activation_bytes=cost.live_bytes(batch) / (batch * FRAME_SECONDS),
        # The parts of a pass are told by what they do: see PassCost.
        compute_share=math.nan,
        memory_share=math.nan,
        overhead_share=math.nan,
        fits=found.streams > 0,
        limited_by=found.limited_by,
        evidence=found.pass_cost.evidence,
    )
