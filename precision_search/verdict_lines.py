"""Verdict lines: gates as every file has them, with what stands beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from audio_eval.judge import Unjudged
from precision.candidate import verdict_line
from precision.gates import Gate, Verdict


def gate_line(
    verdict: Verdict, fast: Mapping[Gate, Verdict], beside: Mapping[str, Sequence[Verdict]]
) -> dict[str, Any]:
    """A gate in the arithmetic that decides, its value in the search's, and what others do to the same clips."""
    line = verdict_line(verdict)
    line["fast_value"] = verdict_line(fast[verdict.gate])["value"] if verdict.gate in fast else None
    line["beside"] = {
        name: next((verdict_line(other)["value"] for other in others if other.gate == verdict.gate), None)
        for name, others in beside.items()
    }
    return line


def unjudged_lines(unjudged: Sequence[Unjudged]) -> list[dict[str, Any]]:
    """Gates that could not be judged, and why."""
    return [{"metric": left.gate.metric, "over": left.gate.over, "reason": left.reason} for left in unjudged]
