"""Findings: what judging clips found, as a person reads it in a terminal."""

import math
from collections.abc import Mapping
from typing import Any

from audio_eval.suite import METRICS
from precision_search.judging import Judged
from precision_search.table import gate_lines, number_text, unjudged_lines

CLIPS_SHOWN = 3
UNDEFINED_SHOWN = 12


def findings(judged: Judged, data: Mapping[str, Any]) -> str:
    """Verdict, gates, clips that broke most, and what so many clips can resolve; `data` as `found_data` gives it."""
    said = "every gate kept" if data["verdict"] == "kept" else "GATES BROKEN"
    count = "1 clip" if data["clips"] == 1 else f"{data['clips']} clips"
    head = f"{data['promise']}: {said} on {count}, {data['seconds']:.1f} s at {data['sample_rate_hz']} Hz"
    parts = [
        gate_lines(data["gates"]),
        unjudged_lines(data["unjudged"]) + _unreached(data),
        _broke_most(judged),
        _undefined(data),
        _resolution(data),
    ]
    return "\n".join([head, *(line for part in parts if part for line in ("", *(f"  {text}" for text in part)))])


def _unreached(data: Mapping[str, Any]) -> list[str]:
    metrics = dict.fromkeys(gate["metric"] for gate in data["unreached"])
    return [f"not reached: {', '.join(metrics)}: a gate before them broke"] if metrics else []


def _broke_most(judged: Judged) -> list[str]:
    """For every broken gate the clips whose scores are the worst."""
    lines: dict[str, None] = {}
    clips = judged.pairs.clips
    for verdict in judged.judgement.verdicts:
        if verdict.kept:
            continue
        sign = 1.0 if verdict.gate.min is not None else -1.0
        scores = [scores[verdict.gate.metric] for scores in judged.judgement.scores]
        # A clip without a score comes first.
        order = sorted(range(len(clips)), key=lambda i: -math.inf if math.isnan(scores[i]) else sign * scores[i])
        worst = ", ".join(f"{clips[i].name} {number_text(scores[i])}" for i in order[:CLIPS_SHOWN])
        lines[f"{verdict.gate.metric:33} {worst}"] = None
    return ["the clips that broke most:", *(f"  {line}" for line in lines)] if lines else []


def _undefined(data: Mapping[str, Any]) -> list[str]:
    """Clips without scores, a line for each reason."""
    told: dict[tuple[str, str], list[str]] = {}
    for left in data["undefined"]:
        reason = left["reason"].removeprefix(f"{left['metric']}: ")
        told.setdefault((left["clip"], reason), []).append(left["metric"])
    lines = [f"  {clip}: {reason} ({', '.join(metrics)})" for (clip, reason), metrics in sorted(told.items())]
    more = len(lines) - UNDEFINED_SHOWN
    lines = [*lines[:UNDEFINED_SHOWN], *([f"  and {more} more, which --json tells"] if more > 0 else [])]
    return ["no score, which breaks a gate:", *lines] if lines else []


def _resolution(data: Mapping[str, Any]) -> list[str]:
    """A line for every metric that differs from clip to clip."""
    if data["clips"] == 1:
        return ["one clip says nothing of others: no bounds, and nothing on what can be resolved"]
    varied = {name: found for name, found in data["statistics"].items() if found["resolvable_change"] != 0.0}
    if not varied:
        return []
    lines = [
        f"what {data['clips']} clips say: bounds of the mean (one-sided 95 %), and the least true change of it that"
        " they would show (power 80 %)",
        f"{'metric':33} {'unit':>10}"
        + "".join(f" {head:>10}" for head in ("mean", "tail", "worst", "above", "below", "resolves")),
    ]
    for name, found in varied.items():
        keys = ("mean", "tail", "worst", "lower_bound", "upper_bound", "resolvable_change")
        lines.append(f"{name:33} {METRICS[name].unit:>10}" + "".join(f" {number_text(found[key]):>10}" for key in keys))
    return lines
