"""Candidate: a policy that was tried, and what was found of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from precision.gates import Gate, Verdict
from precision.policy import Policy

Split = Literal["search", "held_back"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that was tried: what was predicted, what was measured, and the verdicts."""

    digest: str
    """Digest of the policy."""
    policy: Mapping[str, str]
    """Site name -> scheme name."""
    split: Split
    """The clips it was heard on."""
    predicted: Mapping[str, float]
    """Metric -> damage the search expected."""
    scores: Mapping[str, Mapping[str, float]]
    """Clip -> metric -> value, in the metric's unit."""
    gates: tuple[Verdict, ...]
    kept: bool
    """Whether every gate that was asked was kept."""
    seconds_cost: float
    """Modelled seconds of the card per second of audio."""
    elapsed_seconds: float
    """Wall time the evaluation took."""
    arithmetic: str = ""
    """Name of the arithmetic it was rendered in; empty in the logs of studies that had only one."""

    @classmethod
    def of(
        cls,
        policy: Policy,
        split: Split,
        *,
        predicted: Mapping[str, float],
        scores: Mapping[str, Mapping[str, float]],
        gates: Sequence[Verdict],
        seconds_cost: float,
        elapsed_seconds: float,
        arithmetic: str = "",
    ) -> "Candidate":
        """Make a candidate of a policy; it is kept when every one of `gates` is."""
        names = {site: scheme.name for site, scheme in policy.schemes}
        kept = all(verdict.kept for verdict in gates)
        return cls(
            digest=policy.digest,
            policy=names,
            split=split,
            predicted=predicted,
            scores=scores,
            gates=tuple(gates),
            kept=kept,
            seconds_cost=seconds_cost,
            elapsed_seconds=elapsed_seconds,
            arithmetic=arithmetic,
        )

    def to_dict(self) -> dict[str, Any]:
        """The line of the log; NaN and infinities become the texts nan, inf and -inf, which JSON can hold."""
        return {
            "kind": "candidate",
            "digest": self.digest,
            "policy": dict(self.policy),
            "split": self.split,
            "predicted": numbers(self.predicted),
            "scores": {clip: numbers(scores) for clip, scores in self.scores.items()},
            "gates": [verdict_line(verdict) for verdict in self.gates],
            "kept": self.kept,
            "seconds_cost": _number(self.seconds_cost),
            "elapsed_seconds": _number(self.elapsed_seconds),
            "arithmetic": self.arithmetic,
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> "Candidate":
        """Read a line of the log; KeyError where it lacks a part."""
        return cls(
            digest=line["digest"],
            policy=dict(line["policy"]),
            split=line["split"],
            predicted=floats(line["predicted"]),
            scores={clip: floats(scores) for clip, scores in line["scores"].items()},
            gates=tuple(_verdict(entry) for entry in line["gates"]),
            kept=line["kept"],
            seconds_cost=float(line["seconds_cost"]),
            elapsed_seconds=float(line["elapsed_seconds"]),
            arithmetic=line.get("arithmetic", ""),
        )


def _number(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else repr(value)


def numbers(values: Mapping[str, float]) -> dict[str, float | str]:
    """Numbers as JSON can hold them: NaN and infinities become the texts nan, inf and -inf."""
    return {name: _number(value) for name, value in values.items()}


def floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers back from `numbers`."""
    return {name: float(value) for name, value in values.items()}


def verdict_line(verdict: Verdict) -> dict[str, Any]:
    """A gate and what was found of it, as every file has it; NaN and infinities are texts, as in `numbers`."""
    gate = verdict.gate
    return {
        "metric": gate.metric,
        "over": gate.over,
        "side": "min" if gate.min is not None else "max",
        "threshold": gate.threshold,
        "value": _number(verdict.value),
        "margin": _number(verdict.margin),
        "kept": verdict.kept,
    }


def _verdict(line: Mapping[str, Any]) -> Verdict:
    side = {line["side"]: float(line["threshold"])}
    return Verdict(Gate(line["metric"], line["over"], min=side.get("min"), max=side.get("max")), float(line["value"]))
