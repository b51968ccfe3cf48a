"""The verdict, in words, with the figures that decide: shares and price."""

from collections.abc import Mapping
from typing import Any

from precision_search.report.arithmetic import judged_in
from precision_search.report.economics import CASES, evidence_shares, hourly
from precision_search.report.figures import MISSING, amount, number, percent, significant, usd
from precision_search.report.gates import GateRow, gate_rows, unjudged
from precision_search.report.markup import Html, element, joined, listed, note, paragraph, section
from precision_search.report.price import device_of, price_range
from precision_search.report.results import Results
from precision_search.uncovered import warning

SHARES = {
    "lofi_mac_share": ("LoFi share of MACs", "tenstorrent"),
    "bfp8_weight_share": ("bfp8_b share of weights", "tenstorrent"),
    "fp8_mac_share": ("FP8 share of MACs", "hopper"),
}


def is_kept(results: Results) -> bool:
    """Whether the study says that every gate was kept."""
    return bool(results.summary["verdict"] == "kept")


def verdict(results: Results) -> Html:
    """The first section."""
    summary = results.summary
    kept = is_kept(results)
    mark = "\u2713 Kept" if kept else "\u2717 Broken"
    rows = gate_rows(results)
    said = element("p", {"class": f"verdict {'kept' if kept else 'broken'}"}, element("strong", {}, mark), _words(rows))
    facts = [*_ratio(summary), *_shares(summary), *_prices(summary)]
    pairs = (element("div", {}, element("dt", {}, name), element("dd", {}, value)) for name, value in facts)
    parts = [said, element("dl", {"class": "facts"}, *pairs)]
    if kept != (bool(rows) and all(row.kept for row in rows)):
        parts.append(note("The gates below do not say the same as the verdict of the summary: do not rely on it."))
    free = summary.get("unforced")
    if isinstance(free, dict) and free.get("kept") is False:
        parts.append(note("The last check, with nothing forced on the model, is broken: see the end of the gates."))
    if not kept:
        worst = sorted((row for row in rows if not row.kept), key=lambda row: row.relative_or_worst)
        parts.append(listed(row.sentence for row in worst))
    parts.append(paragraph(judged_in(summary)))
    if summary.get("message"):
        parts.append(paragraph(f"The search says: {summary['message']}."))
    count = len(unjudged(summary))
    if count:
        parts.append(paragraph(f"{amount(count, 'gate')} could not be judged; the reasons are with the gates."))
    covered = number(summary.get("covered_mac_share"))
    warned = None if covered is None else warning(covered)
    if warned is not None:
        parts.append(note(f"{warned[:1].upper()}{warned[1:]}."))
    return section("verdict", "Verdict", *parts)


def _words(rows: tuple[GateRow, ...]) -> str:
    broken = sum(not row.kept for row in rows)
    if not rows:
        return ": no gate was judged, so nothing is promised."
    if not broken:
        return f": all of the {amount(len(rows), 'gate')} hold." if len(rows) > 1 else ": the one gate holds."
    return f": {broken} of {amount(len(rows), 'gate')} {'does' if broken == 1 else 'do'} not hold."


def _shares(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    backend = str(summary.get("backend", ""))
    known = {owner for _, owner in SHARES.values()}
    asked = {owner for owner in known if backend.startswith(owner)} or known
    shown = []
    for key, (title, owner) in SHARES.items():
        share = number(summary.get(key))
        if owner in asked and (share is not None or len(asked) == 1):
            shown.append((title, percent(share)))
    return shown


def _prices(summary: Mapping[str, Any]) -> list[tuple[str, str | Html]]:
    cost = summary.get("cost")
    if not isinstance(cost, dict):
        return [("Price of a stream", MISSING)]
    (_, ours, _), (_, theirs, _) = (price_range(cost, side, "usd_per_stream") for side in ("candidate", "baseline"))
    told = f" on {device_of(cost, 'candidate')} against {usd(theirs)} on {device_of(cost, 'baseline')}"
    return [("Price of a stream, card bought", joined((element("strong", {}, usd(ours)), told)))]


def _ratio(summary: Mapping[str, Any]) -> list[tuple[str, str | Html]]:
    """The ratios of prices and of hours with their ranges, and what the seconds behind them rest on."""
    cost = summary.get("cost")
    if not isinstance(cost, dict):
        return []
    ratio, low, high = (number(cost.get(key)) for key in ("ratio", "low", "high"))
    facts = [("Cost of a stream, card bought", _times(cost, ratio, low, high))]
    per_hour = cost.get("ratio_per_hour")
    if isinstance(per_hour, dict):
        low, ratio, high = (number(per_hour.get(case)) for case in CASES)
        facts.append((f"Cost of its hour, {hourly(cost)}", _times(cost, ratio, low, high)))
    rests = evidence_shares(cost)
    return [*facts, *([("Evidence of its seconds", rests)] if rests else [])]


def _times(cost: Mapping[str, Any], ratio: float | None, low: float | None, high: float | None) -> Html | str:
    """A ratio to the baseline, with its range."""
    if ratio is None:
        return "no ratio"
    spread = f", {significant(low)} to {significant(high)}" if low is not None and high is not None else ""
    return joined((element("strong", {}, f"{significant(ratio)} \u00d7 {device_of(cost, 'baseline')}'s"), spread))
