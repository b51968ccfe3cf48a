"""Predicted against measured damage of every candidate, with their rank correlation."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from precision.candidate import Split
from precision_search.report.figures import amount, significant
from precision_search.report.front import KEY, mean_score
from precision_search.report.markup import Html, element, folded, note, number_cell, paragraph, row, row_head, section
from precision_search.report.markup import table as table_of
from precision_search.report.results import Results
from precision_search.report.scatter import Mark, Scatter, Span

MOST = 300
"""Marks of a picture at most, the last ones heard: a picture a metric of thousands would outgrow the page."""
SPLITS: dict[Split, str] = {"search": "the search's clips", "held_back": "clips held back"}


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Rank correlation, -1 to 1, equal values sharing their mean rank.

    NaN for fewer than three pairs, or where one side is constant.
    """
    if len(left) != len(right):
        raise ValueError(f"a rank correlation needs pairs, got {len(left)} and {len(right)} values")
    if len(left) < 3 or len(set(left)) == 1 or len(set(right)) == 1:
        return math.nan
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, where, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return ranks


def prediction(results: Results) -> Html:
    """The section of the predictions."""
    title = "Predicted against measured"
    metrics = [metric for metric in results.metrics if _marks(results, metric)]
    if not metrics:
        return section("prediction", title, note("No candidate has both a predicted and a measured damage."))
    explained = paragraph(
        "The search predicts the damage of a policy from that of its sites alone. On the dashed line the prediction is "
        "exact; for a search, the order matters more than the size. ",
        KEY,
    )
    figures = element("div", {"class": "small-multiples"}, *(_figure(results, metric) for metric in metrics))
    absent = [metric for metric in results.metrics if metric not in metrics]
    parts = [explained, figures]
    if absent:
        parts.append(note(f"No candidate was measured in {', '.join(absent)}."))
    again = results.summary.get("remeasured")
    if isinstance(again, list) and again:
        told = "; ".join(str(reason) for reason in again)
        parts.append(note(f"Damages were measured anew around the best policy so far, as they had parted: {told}."))
    return section("prediction", title, *parts, _table(results, metrics))


def _marks(results: Results, metric: str) -> list[Mark]:
    marks = []
    for candidate in results.searched:
        predicted, measured = candidate.predicted.get(metric), mean_score(candidate, metric)
        if predicted is None or measured is None or not (math.isfinite(predicted) and math.isfinite(measured)):
            continue
        told = f"{candidate.digest}: predicted {significant(predicted)}, measured {significant(measured)}"
        held_back = candidate.split == "held_back"
        final = results.final
        chosen = final is not None and (candidate.digest, candidate.split) == (final.digest, final.split)
        marks.append(Mark(predicted, measured, candidate.kept, held_back, told, chosen))
    return marks


def _correlations(marks: Sequence[Mark]) -> str:
    told = []
    for split, name in SPLITS.items():
        found = [mark for mark in marks if mark.held_back == (split == "held_back")]
        if not found:
            continue
        rank = spearman([mark.x for mark in found], [mark.y for mark in found])
        shown = "too few or equal values" if math.isnan(rank) else significant(rank, 2)
        told.append(f"{shown} on {name} ({amount(len(found), 'candidate')})")
    return "; ".join(told)


def _figure(results: Results, metric: str) -> Html:
    marks = _marks(results, metric)
    cut = f" The picture has the last {MOST} of {len(marks)}." if len(marks) > MOST else ""
    shown = marks[-MOST:]
    across, up = [mark.x for mark in shown], [mark.y for mark in shown]
    log = min(*across, *up) > 0 and max(*across, *up) > 8 * min(*across, *up)
    said = f"Spearman rank correlation: {_correlations(marks)}."
    plot = Scatter(
        Span.of("predicted", across, log),
        Span.of("measured", up, log),
        shown,
        diagonal=True,
        title=f"Predicted against measured {metric}",
        tabbed=False,  # the table is read sooner than a mark a candidate and a metric
        described="Scatter; the table below has the numbers, the text the rank correlation.",
    )
    caption = element("figcaption", {}, element("strong", {}, metric), ". ", said, cut)
    return element("figure", {}, plot.to_svg(), caption)


def _table(results: Results, metrics: Sequence[str]) -> Html:
    rows = (
        row(
            row_head(element("code", {}, candidate.digest)),
            element("td", {}, SPLITS[candidate.split]),
            *(
                number_cell(f"{_told(candidate.predicted.get(metric))} / {_told(mean_score(candidate, metric))}")
                for metric in metrics
            ),
        )
        for candidate in results.searched
    )
    caption = "Predicted / measured damage of every candidate"
    return folded("The same as a table", table_of(caption, ("Candidate", "Heard on", *metrics), rows))


def _told(value: float | None) -> str:
    return "\u2013" if value is None else significant(value)
