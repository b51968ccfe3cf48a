"""Trust: how the clips were compared, how they scatter, and the least change that so many can show."""

from collections.abc import Mapping
from typing import Any

from precision_search.report.figures import number, significant
from precision_search.report.markup import Html, breakable, element, number_cell, paragraph, row, row_head, table

COLUMNS = {
    "mean": "Mean",
    "worst": "Worst clip",
    "tail": "5 % quantile",
    "lower_bound": "Mean at least (95 %)",
    "upper_bound": "Mean at most (95 %)",
    "resolvable_change": "Least change that shows",
}


def trust(summary: Mapping[str, Any]) -> tuple[Html, ...]:
    """What was held equal, and the statistics of every metric that a gate names; nothing for older studies."""
    parts: list[Html] = []
    comparison = summary.get("comparison")
    if isinstance(comparison, dict):
        family = str(comparison.get("family", "?")).replace("_", "-")
        judged = " and then ".join(str(what) for what in comparison.get("judged", ()))
        parts.append(
            paragraph(
                f"Compared as a model of the {family} family: judged by {judged}, with the same on both sides:"
                f" {comparison.get('forced', '?')}."
            )
        )
    found = summary.get("statistics")
    if isinstance(found, dict) and found:
        told = (
            row(
                row_head(breakable(metric)),
                *(number_cell(significant(number(values.get(key)), 4)) for key in COLUMNS),
            )
            for metric, values in found.items()
            if isinstance(values, dict)
        )
        caption = "Scatter over the clips held back, and the least true change that so many show with a power of 80 %"
        parts.append(
            element(
                "details",
                {},
                element("summary", {}, "Statistics of every metric"),
                table(caption, ("Metric", *COLUMNS.values()), told),
            )
        )
    return tuple(parts)
