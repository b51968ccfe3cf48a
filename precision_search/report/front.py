"""The Pareto front: what every candidate costs, against the gate that binds it most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from precision.candidate import Candidate
from precision.study import pareto
from precision_search.report.figures import MISSING, amount, percent, significant
from precision_search.report.gates import gate_rows
from precision_search.report.markup import (
    Html,
    cell,
    element,
    folded,
    note,
    number_cell,
    paragraph,
    row,
    row_head,
    section,
    table,
)
from precision_search.report.plots import Axis, Mark, Plot
from precision_search.report.results import Results

KEY = (
    "A circle kept every gate, a cross broke one; a square around it says that it was heard on the clips held back, "
    "the large ring marks the policy that was chosen."
)


@dataclass(frozen=True, slots=True)
class Binding:
    """The additive metric of a candidate that is highest above, or nearest below, its threshold."""

    metric: str
    ratio: float
    """Value over threshold; above 1 the gate is broken."""


def limits_of(results: Results) -> dict[tuple[str, str], float]:
    """The gates that set a maximum above 0 on an additive metric: (metric, over) -> threshold."""
    return {
        (gate.metric, gate.over): gate.threshold
        for gate in gate_rows(results)
        if gate.metric in results.metrics and gate.side == "max" and gate.threshold and gate.threshold > 0
    }


def mean_score(candidate: Candidate, metric: str) -> float | None:
    """Mean of a metric over a candidate's clips; None where it was not reached on every one."""
    scores = [clip[metric] for clip in candidate.scores.values() if metric in clip]
    return math.fsum(scores) / len(scores) if scores and len(scores) == len(candidate.scores) else None


def binding(candidate: Candidate, limits: Mapping[tuple[str, str], float]) -> Binding | None:
    """What binds a candidate; None where no additive metric with a gate has a finite value."""
    judged: dict[tuple[str, str], float] = {
        (verdict.gate.metric, verdict.gate.over): verdict.value for verdict in candidate.gates
    }
    ratios = []
    for (metric, over), limit in limits.items():
        value = judged.get((metric, over))
        if value is None and over == "mean":
            value = mean_score(candidate, metric)
        if value is not None and math.isfinite(value):
            ratios.append(Binding(metric, value / limit))
    return max(ratios, key=lambda found: found.ratio, default=None)


def most_binding(results: Results) -> str | None:
    """The additive metric that binds the policy of the summary."""
    if results.final is None:
        return None
    found = binding(results.final, limits_of(results))
    return found.metric if found else None


def front(results: Results) -> Html:
    """The section of the Pareto front."""
    title, limits = "Cost against fidelity: every candidate tried", limits_of(results)
    candidates = results.study.candidates()
    shown = [
        (candidate, found)
        for candidate in candidates
        if math.isfinite(candidate.seconds_cost) and (found := binding(candidate, limits)) is not None
    ]
    left = len(candidates) - len(shown)
    if not shown:
        why = (
            "no candidate was logged" if not candidates else "none has a finite score of an additive metric with a gate"
        )
        return section("front", title, note(f"There is no front: {why}."))
    points = [(1e3 * candidate.seconds_cost, found.ratio) for candidate, found in shown]
    searched = [point for point, (candidate, _) in zip(points, shown, strict=True) if candidate.split == "search"]
    edge = [searched[index] for index in pareto(searched)]
    marks = [
        Mark(
            *point,
            kept=candidate.kept,
            held_back=candidate.split == "held_back",
            told=_told(results, candidate, found),
            chosen=candidate is results.final,
        )
        for point, (candidate, found) in zip(points, shown, strict=True)
    ]
    best = min((point[0] for point, (candidate, _) in zip(points, shown, strict=True) if candidate.kept), default=None)
    said = f"{amount(len(shown), 'evaluation')}; {sum(candidate.kept for candidate, _ in shown)} kept every gate"
    said += f"; the cheapest of those costs {significant(best)} ms a second of audio." if best is not None else "."
    foretold = results.front.get("points", ())
    plot = Plot(
        Axis.of("modelled ms of the card per second of audio", [point[0] for point in points]),
        Axis.of("most binding metric over its threshold", [*(point[1] for point in points), 1.0]),
        marks,
        line=edge,
        foretold=[(1e3 * point["seconds"], point["ratio"]) for point in foretold if (point["ratio"] or 0.0) > 0.0],
        limit=1.0,
        described=f"Scatter of cost against the most binding metric. {said} The table below has the numbers.",
    )
    parts = [
        paragraph(said, " ", KEY),
        paragraph(
            "The dashed line is the threshold of the additive metrics (",
            ", ".join(dict.fromkeys(metric for metric, _ in limits)),
            "); a candidate below it "
            "may still break a gate on another metric. The full line joins the evaluations on the search's own clips "
            "that no other of them beats in both. Hover over a mark for its digest and shares.",
            *_of_foretold(results),
        ),
        element("figure", {"class": "wide"}, plot.to_svg()),
    ]
    if left:
        parts.append(note(f"{amount(left, 'evaluation')} without a finite score or cost cannot be shown."))
    return section("front", title, *parts, _table(results, shown))


def _of_foretold(results: Results) -> tuple[str, ...]:
    found = results.front
    if not found:
        return ()
    error = "" if found["error"] == 0 else f", to {significant(found['error'])} of cost"
    return (
        f" The dotted line is the whole front that the damages of single sites foretell in {found['metric']}:"
        f" {amount(found['size'], 'point')}{error}, of which front.json has {len(found['points'])}.",
    )


def _shares(results: Results, candidate: Candidate) -> str:
    shares = results.mac_shares(candidate.policy)
    return ", ".join(f"{scheme} {percent(share)}" for scheme, share in shares.items())


def _told(results: Results, candidate: Candidate, found: Binding) -> str:
    kept = "kept" if candidate.kept else "broken"
    return (
        f"{candidate.digest}, {kept} on {_split(candidate)}: {significant(1e3 * candidate.seconds_cost)} ms, "
        f"{found.metric} at {significant(found.ratio)} of its threshold; share of MACs: {_shares(results, candidate)}"
    )


def _split(candidate: Candidate) -> str:
    split = "clips held back" if candidate.split == "held_back" else "the search's clips"
    return f"{split} in {candidate.arithmetic}" if candidate.arithmetic else split


def _table(results: Results, shown: list[tuple[Candidate, Binding]]) -> Html:
    rows = (
        row(
            row_head(element("code", {}, candidate.digest)),
            cell("held back" if candidate.split == "held_back" else "search"),
            cell(candidate.arithmetic or MISSING),
            cell("\u2713 kept" if candidate.kept else "\u2717 broken"),
            number_cell(significant(1e3 * candidate.seconds_cost)),
            cell(found.metric),
            number_cell(significant(found.ratio)),
            cell(_shares(results, candidate), {"class": "prose"}),
        )
        for candidate, found in shown
    )
    heads = (
        "Candidate",
        "Clips",
        "Arithmetic",
        "Gates",
        "Cost, ms/s",
        "Binding metric",
        "Over threshold",
        "Share of MACs",
    )
    return folded("The same as a table", table("Every evaluation, in the order tried", heads, rows))
