"""The Pareto front: what every candidate costs, against the gate that binds it most, of all that were judged."""

import math
from dataclasses import dataclass

from precision.candidate import Candidate
from precision.study import pareto
from precision_search.report.allowance import used
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
from precision_search.report.results import Results
from precision_search.report.scatter import Mark, Scatter, Span

KEY = (
    "A circle kept every gate, a cross broke one; a square around it says that it was heard on the clips held back, "
    "the large ring marks the policy that was chosen."
)


@dataclass(frozen=True, slots=True)
class Binding:
    """The gate of a candidate that is broken by most, or nearest to its threshold."""

    metric: str
    over: str
    ratio: float
    """Share of the gate's allowance that is used; above 1 the gate is broken."""


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


def binding(candidate: Candidate) -> Binding | None:
    """What binds a candidate; None where no gate with a known best value was judged."""
    ratios = []
    for verdict in candidate.gates:
        gate = verdict.gate
        side = "min" if gate.min is not None else "max"
        share = used(gate.metric, side, gate.threshold, verdict.value)
        if share is not None:
            ratios.append(Binding(gate.metric, gate.over, share))
    return max(ratios, key=lambda found: found.ratio, default=None)


def most_binding(results: Results) -> str | None:
    """The additive metric that binds the policy of the summary."""
    final = results.final
    if final is None:
        return None
    judged: dict[tuple[str, str], float] = {
        (verdict.gate.metric, verdict.gate.over): verdict.value for verdict in final.gates
    }
    shares: dict[str, float] = {}
    for (metric, over), limit in limits_of(results).items():
        value = judged.get((metric, over))
        if value is None and over == "mean":
            value = mean_score(final, metric)
        if value is not None and math.isfinite(value):
            shares[metric] = max(value / limit, shares.get(metric, 0.0))
    return max(shares, key=lambda metric: shares[metric], default=None)


def front(results: Results) -> Html:
    """The section of the Pareto front."""
    title = "Cost against fidelity: every candidate tried"
    candidates = results.study.candidates()
    shown = [
        (candidate, found)
        for candidate in candidates
        if math.isfinite(candidate.seconds_cost)
        and (found := binding(candidate)) is not None
        and math.isfinite(found.ratio)
    ]
    left = len(candidates) - len(shown)
    if not shown:
        why = (
            "no candidate was logged"
            if not candidates
            else "none has a gate with a finite value and a known best value"
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
    width = Span.of("modelled ms of the card per second of audio", [point[0] for point in points])
    foretold = [(1e3 * point["seconds"], point["ratio"]) for point in results.front.get("points", ())]
    foretold = [(x, ratio) for x, ratio in foretold if width.low <= x <= width.high and (ratio or 0.0) > 0.0]
    levels = [*(point[1] for point in points), *(ratio for _, ratio in foretold), 1.0]
    plot = Scatter(
        width,
        Span.of("allowance used at the binding gate", levels),
        marks,
        line=edge,
        foretold=foretold,
        limit=1.0,
        title="Cost against the binding gate",
        described=f"Scatter. {said} The table below has the numbers.",
    )
    parts = [
        paragraph(said, " ", KEY),
        paragraph(
            "Upwards is how much of what its gates allow a candidate uses, at the gate that binds it most: under the "
            "dashed line every gate is kept, above it one is broken. The full line joins the evaluations on the "
            "search's own clips that no other of them beats in both. Hover over a mark, touch it, or reach it by the "
            "tab key, for its digest, its binding gate and its shares. Costs are those that were searched by, with the "
            "recipe's cost.streams in a launch; what a card carries of a policy comes of the batch that suits it best.",
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
        " The dotted line is the whole front that the damages of single sites foretell, as a share of the threshold of"
        f" {found['metric']} alone:"
        f" {amount(found['size'], 'point')}{error}, of which front.json has {len(found['points'])}.",
    )


def _shares(results: Results, candidate: Candidate) -> str:
    shares = results.mac_shares(candidate.policy)
    return ", ".join(f"{scheme} {percent(share)}" for scheme, share in shares.items())


def _told(results: Results, candidate: Candidate, found: Binding) -> str:
    kept = "kept" if candidate.kept else "broken"
    return (
        f"{candidate.digest}, {kept} on {_split(candidate)}: {significant(1e3 * candidate.seconds_cost)} ms, "
        f"{found.metric} ({found.over}) uses {significant(found.ratio)} of its allowance; "
        f"share of MACs: {_shares(results, candidate)}"
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
            cell(f"{found.metric} ({found.over})"),
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
        "Binding gate",
        "Allowance used",
        "Share of MACs",
    )
    return folded("The same as a table", table("Every evaluation, in the order tried", heads, rows))
