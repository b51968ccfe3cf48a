"""Deadlines: streams of a card where the audio of a launch may be no longer than so much, and the first sound then."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.money import Accounting, Range, rounded
from backends.serving import PolicyCost
from backends.workload import Side, Terms, Workload, compared

CHUNKS_MS: tuple[float, ...] = (80.0, 160.0, 320.0, 500.0)
"""Chunks of audio that are asked about; 80 ms is a frame of the speech codecs that stream."""
ASSUMPTIONS: tuple[str, ...] = (
    "the first sound of a stream that begins: all of its chunk is there, and the batch that holds it is computed; "
    "in the worst case every other batch of the card goes before; no way over a network",
)


@dataclass(frozen=True, slots=True)
class Deadline:
    """What a card carries at one length of the chunk, in the middle of the ranges."""

    chunk_seconds: float
    cost: PolicyCost

    @property
    def first_sound_seconds(self) -> float | None:
        """The chunk, and computing the batch that holds it; None where the card carries no stream."""
        if not self.cost.streams_per_card:
            return None
        return self.chunk_seconds * (1 + self.cost.batch * self.cost.seconds_per_audio_second)

    @property
    def worst_first_sound_seconds(self) -> float | None:
        """The chunk, and computing the chunks of all streams of the card, this one's last."""
        if not self.cost.streams_per_card:
            return None
        waiting = max(self.cost.streams_per_card, self.cost.batch)
        return self.chunk_seconds * (1 + waiting * self.cost.seconds_per_audio_second)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        first, worst = self.first_sound_seconds, self.worst_first_sound_seconds
        return {
            "streams": self.cost.streams_per_card,
            "batch": self.cost.batch,
            "first_sound_ms": None if first is None else rounded(1e3 * first),
            "worst_first_sound_ms": None if worst is None else rounded(1e3 * worst),
        }


@dataclass(frozen=True, slots=True)
class AtDeadline:
    """Both sides at one length of the chunk."""

    chunk_ms: float
    candidate: Deadline
    baseline: Deadline
    ratio: Range
    """Of the prices per stream."""

    def to_dict(self) -> dict[str, Any]:
        """A row of the block `deadlines` of a summary."""
        sides = {"candidate": self.candidate.to_dict(), "baseline": self.baseline.to_dict()}
        return {"chunk_ms": self.chunk_ms, **sides, "ratio": self.ratio.to_dict()}


def deadlines(
    workload: Workload,
    candidate: Side,
    baseline: Side,
    terms: Terms,
    accounting: Accounting | None = None,
    chunks_ms: Sequence[float] = CHUNKS_MS,
) -> Iterator[AtDeadline]:
    """Streams and first sound at each length of the chunk, shortest first; nothing for a model that fixes its own.

    Raises:
        ValueError: as `compared` has it.
    """
    if not workload.chunk_is_free:
        return
    for chunk_ms in sorted(set(chunks_ms)):
        asked = replace(terms, chunk_seconds=chunk_ms / 1e3)
        found = compared(workload, candidate, baseline, asked, accounting)
        yield AtDeadline(
            chunk_ms,
            Deadline(asked.chunk_seconds, found.candidate.serving.middle),
            Deadline(asked.chunk_seconds, found.baseline.serving.middle),
            found.ratio,
        )
