"""Arithmetic: which one decided, and by how much the search's fast one differed from it."""

import math
from collections.abc import Mapping
from typing import Any

from precision_search.report.figures import number, significant, told_apart
from precision_search.report.gates import signed
from precision_search.report.markup import (
    Html,
    breakable,
    cell,
    folded,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
)
from precision_search.report.markup import table as table_of
from precision_search.report.results import Results


def judged_in(summary: Mapping[str, Any]) -> str:
    """One sentence on the arithmetic of the verdict."""
    name = summary.get("arithmetic")
    if not name:
        return "The study does not say in which arithmetic it was judged."
    if summary.get("exact") is True:
        return f"Judged in the target's arithmetic to the bit, {name}."
    why = "" if summary.get("exact") is None else f": there is no exact arithmetic of {summary.get('backend')} here"
    return f"Judged in {name}, a fast model of the target's arithmetic{why}."


def arithmetic(results: Results) -> Html:
    """The section of the two arithmetics."""
    title, found = "Fast and exact arithmetic", results.summary.get("agreement")
    if not isinstance(found, dict):
        return section("arithmetic", title, note(judged_in(results.summary), " Every figure here is of it."))
    fast, exact = str(found.get("fast")), str(found.get("exact"))
    explained = paragraph(
        f"The search rendered its candidates in {fast}; the policy found was rendered again in {exact}, on the clips "
        "held back, and every gate judged on that. The values of the baseline, the damage of sites, and what moves "
        f"with nothing forced, are of {fast}."
    )
    return section("arithmetic", title, explained, _gates(results.summary), *_renders(found))


def _gates(summary: Mapping[str, Any]) -> Html:
    rows = []
    for gate in summary["gates"]:
        fast, exact, threshold = (number(gate.get(key)) for key in ("fast_value", "value", "threshold"))
        moved = None if fast is None or exact is None else exact - fast
        rows.append(
            row(
                row_head(breakable(str(gate.get("metric", "?")))),
                cell(str(gate.get("over", "mean")).replace("_", " ")),
                number_cell(told_apart(fast, threshold)),
                number_cell(told_apart(exact, threshold)),
                number_cell(signed(moved)),
            )
        )
    heads = ("Metric", "Over", "Fast", "Exact", "Exact less fast")
    whole = table_of("Every gate's value in both arithmetics, on the clips held back", heads, rows)
    return folded("Gate by gate", whole)


def _renders(found: Mapping[str, Any]) -> tuple[Html, ...]:
    clips = found.get("snr_db")
    if not isinstance(clips, dict) or not clips:
        return (note("The study does not say how the renders differ."),)
    mean, worst = (decibels(number(found.get(key))) for key in ("mean_snr_db", "worst_snr_db"))
    said = paragraph(
        f"Between the renders: {mean} on average, {worst} in the worst clip, {found.get('worst_clip')} (the level of "
        "the exact render over that of its difference from the fast one)."
    )
    rows = (row(row_head(str(clip)), number_cell(decibels(number(value)))) for clip, value in clips.items())
    return (said, folded("Clip by clip", table_of("Fast against exact render", ("Clip", "Signal to difference"), rows)))


def decibels(value: float | None) -> str:
    """A level in dB, in words where it is no number."""
    if value is not None and math.isinf(value):
        return "no difference" if value > 0 else "silence"
    return significant(value) if value is None or math.isnan(value) else f"{significant(value)} dB"
