"""Gates: every promise with its value and margin, the yardsticks' beside it, and a picture of the margins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from precision_search.report.figures import MISSING, amount, number, significant, told_apart
from precision_search.report.margins import margins
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    element,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.results import Results, objects
from precision_search.report.trust import trust
from precision_search.table import unforced_sentence

HEADS = ("Metric", "Over", "Threshold", "Value", "Margin", "Kept")
BESIDE = {"baseline": "Baseline", "bf16": "Own bf16", "fp16": "Own fp16", "seed": "Another seed"}
"""Head of the column of each that is set beside the policy."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate of the summary, and what was found of it."""

    metric: str
    over: str
    side: str
    """`min` or `max`; empty where nothing tells."""
    threshold: float | None
    value: float
    margin: float | None
    kept: bool
    beside: Mapping[str, float | None]
    """The same figure of the baseline and of each yardstick, where they were measured."""

    @property
    def relative(self) -> float | None:
        """Margin as a share of the threshold's magnitude; None where that means nothing."""
        if self.margin is None or not self.threshold or not math.isfinite(self.margin):
            return None
        return self.margin / abs(self.threshold)

    @property
    def relative_or_worst(self) -> float:
        """For ordering: what has no relative margin comes first."""
        return -math.inf if self.relative is None else self.relative

    @property
    def threshold_text(self) -> str:
        """The threshold with its side."""
        sign = {"min": "\u2265 ", "max": "\u2264 "}.get(self.side, "")
        return sign + significant(self.threshold, 6)

    @property
    def sentence(self) -> str:
        """The gate in words."""
        return f"{self.metric} ({self.over}) is {told_apart(self.value, self.threshold)}, must be {self.threshold_text}"


def gate_rows(results: Results) -> tuple[GateRow, ...]:
    """The gates of the summary, in its order."""
    sides: dict[tuple[str, str], str] = {
        (verdict.gate.metric, verdict.gate.over): "min" if verdict.gate.min is not None else "max"
        for candidate in results.study.candidates()
        for verdict in candidate.gates
    }
    return tuple(_gate_row(entry, sides) for entry in results.summary["gates"])


def _gate_row(entry: Mapping[str, Any], sides: Mapping[tuple[str, str], str]) -> GateRow:
    metric, over = str(entry.get("metric", "?")), str(entry.get("over", "mean"))
    threshold, value, margin = (number(entry.get(key)) for key in ("threshold", "value", "margin"))
    value = math.nan if value is None else value  # a value that JSON cannot hold
    side = str(entry.get("side") or sides.get((metric, over)) or _side(threshold, value, margin))
    if margin is None and threshold is not None and side:
        margin = value - threshold if side == "min" else threshold - value
    kept = entry.get("kept") is True
    # Studies before the yardsticks had the baseline's value alone.
    found = entry.get("beside", {"baseline": entry["bf16_value"]} if "bf16_value" in entry else None)
    beside = {str(name): number(value) for name, value in found.items()} if isinstance(found, dict) else {}
    return GateRow(metric, over, side, threshold, value, margin, kept, beside)


def _side(threshold: float | None, value: float, margin: float | None) -> str:
    """Which way the gate opens, told by the sign of its margin; empty where value and threshold are equal."""
    if threshold is None or not margin or not value - threshold:
        return ""
    return "min" if (margin > 0) == (value > threshold) else "max"


def unjudged(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The gates that could not be judged."""
    return objects(summary.get("unjudged"))


def gates(results: Results) -> Html:
    """The section of the gates."""
    rows = gate_rows(results)
    parts = (
        [*margins(rows), _table(rows, results.summary)]
        if rows
        else [note("The summary holds no gates that were judged.")]
    )
    if isinstance(results.summary.get("unforced"), dict):
        sentence = unforced_sentence(results.summary["unforced"])
        parts.append(paragraph(f"Rendered once more with {sentence}. No search heard this."))
        free = tuple(_gate_row(entry, {}) for entry in results.summary["unforced"].get("gates", ()))
        parts += [_table(free, results.summary, "Gates on renders with nothing forced")] if free else []
    left = unjudged(results.summary)
    if left:
        told = (
            row(
                row_head(str(entry.get("metric", "?"))),
                cell(str(entry.get("over", MISSING))),
                cell(str(entry.get("reason", "no reason recorded")), {"class": "prose"}),
            )
            for entry in left
        )
        parts.append(table("Gates that could not be judged", ("Metric", "Over", "Reason"), told))
    elif "unjudged" not in results.summary:
        parts.append(note("The summary does not say whether there were gates that could not be judged."))
    return section("gates", "Gates", *parts, *trust(results.summary))


def _table(rows: tuple[GateRow, ...], summary: Mapping[str, Any], title: str = "Gates on the policy found") -> Html:
    beside = tuple(dict.fromkeys(name for gate in rows for name in gate.beside))
    told = (
        row(
            row_head(breakable(gate.metric)),
            cell(gate.over.replace("_", " ")),
            number_cell(gate.threshold_text),
            number_cell(told_apart(gate.value, gate.threshold)),
            number_cell(signed(gate.margin)),
            cell("\u2713 yes" if gate.kept else element("strong", {}, "\u2717 no")),
            *(number_cell(significant(gate.beside.get(name), 4)) for name in beside),
        )
        for gate in rows
    )
    fast = f"; the baseline's values are of {summary.get('search_arithmetic')}" if summary.get("exact") is True else ""
    caption = f"{title}, over {_clips(summary)}; margins are positive where a gate is kept{fast}"
    return table(caption, (*HEADS, *(BESIDE.get(name, name) for name in beside)), told, "gates")


def _clips(summary: Mapping[str, Any]) -> str:
    clips = summary.get("clips")
    held_back = number(clips.get("held_back")) if isinstance(clips, dict) else None
    return "the clips held back" if held_back is None else f"{amount(int(held_back), 'clip')} held back"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    told = significant(value)
    return f"+{told}" if value is not None and value > 0 and math.isfinite(value) else told
