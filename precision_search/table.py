"""Table: a study's summary as a person reads it in a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from precision_search.uncovered import outside_lines, warning


def table(summary: Mapping[str, Any]) -> str:
    """Verdict, shares, gates with threshold, value and margin, and cost against the card it is set against."""
    verdict = "every gate kept" if summary["verdict"] == "kept" else "GATES BROKEN"
    if summary["unforced"] is not None and not summary["unforced"]["kept"]:
        verdict += ", THE LAST CHECK BROKEN (nothing forced)"
    lines = [
        f"{summary['recipe']} on {summary['device']}: {verdict} on {summary['clips']['held_back']} clips held back"
        f" ({summary['evaluations']} policies heard, {summary['seconds']:.0f} s)",
        "",
        f"  LoFi share of MACs        {summary['lofi_mac_share']:7.1%}",
        f"  bfp8_b share of weights   {summary['bfp8_weight_share']:7.1%}",
        f"  FP8 share of MACs         {summary['fp8_mac_share']:7.1%}",
        *(f"  {sentence}" for sentence in coverage_sentences(summary)),
        *(f"  {sentence}" for sentence in target_sentences(summary)),
        "",
    ]
    lines += [f"  {line}" for line in gate_lines(summary["gates"])]
    lines += ["", *(f"  {sentence}" for sentence in arithmetic_sentences(summary))]
    if summary.get("adaptation") is not None:
        lines.append(f"  {adaptation_sentence(summary['adaptation'])}")
    lines += [f"  {line}" for line in (resolution_sentence(summary), *unjudged_lines(summary["unjudged"])) if line]
    if summary["unforced"] is not None:
        lines += ["", f"  {unforced_sentence(summary['unforced'])}"]
        lines += [f"  {line}" for line in gate_lines(summary["unforced"]["gates"])]
        lines += [f"  {line}" for line in unjudged_lines(summary["unforced"]["unjudged"])]
    lines += ["", *_price(summary)]
    if summary["verdict"] != "kept":
        lines += ["", f"  {summary['message']}"]
    return "\n".join(lines)


def coverage_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What of the model's computation no site does, and a warning where that is much; empty where there is nothing."""
    # Studies of older code do not say what is outside.
    outside = [(part["module"], part["mac_share"]) for part in summary.get("outside", ())]
    share = summary.get("covered_mac_share")
    warned = None if share is None else warning(share)
    return [*outside_lines(outside), *([] if warned is None else [f"warning: {warned}"])]


def target_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What was asked beside the gates and how far it was reached, and whether a single site could be lower still."""
    target = summary.get("target") or {"goal": "cheapest", "within": []}
    said = [
        f"asked for at most {limit['asked']:g} {_limit_unit(limit['what'])}; the policy takes"
        f" {number_text(limit['taken'])}"
        for limit in target["within"]
    ]
    if target["goal"] == "best_audio":
        return [*said, "the best audio that was found within that, whether or not it keeps the gates"]
    left_high = summary.get("left_high", ())
    # Studies of older code have no such evidence.
    proved = summary.get("one_optimal", False) and all("refuted" in left for left in left_high)
    refuted = [entry for left in left_high for entry in left["refuted"]] if proved else []
    changes = len({(*entry["sites"], entry["scheme"]) for entry in refuted})
    if changes:
        said.append(f"no single site can be cheaper: {changes} changes were tried, and each breaks a gate")
    elif proved:
        said.append("no change of a single site would make it cheaper")
    return said


def _limit_unit(what: str) -> str:
    return "bits a weight" if what == "effective_bits" else f"of the baseline's {what.replace('_', ' ')}"


def gate_lines(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gates as `precision.candidate.verdict_line` has them, a line each under a line of heads.

    Beside them what the baseline and the yardsticks come to, where that is known.
    """
    shown = tuple(dict.fromkeys(name for gate in gates for name in gate.get("beside", {})))
    if not gates:
        return []
    heads = "".join(f" {name:>10}" for name in ("value", "margin", *shown))
    lines = [f"{'gate':33} {'over':12} {'threshold':>11}{heads}"]
    for gate in gates:
        threshold = f"{'>=' if gate['side'] == 'min' else '<='} {gate['threshold']:g}"
        told = (gate["value"], gate["margin"], *(gate["beside"][name] for name in shown))
        values = "".join(f" {number_text(value):>10}" for value in told)
        mark = "" if gate["kept"] else "  BROKEN"
        lines.append(f"{gate['metric']:33} {gate['over']:12} {threshold:>11}{values}{mark}")
    return lines


def unjudged_lines(unjudged: Sequence[Mapping[str, Any]]) -> list[str]:
    """What could not be judged, a line for each reason."""
    metrics: dict[str, dict[str, None]] = {}
    for left in unjudged:
        metrics.setdefault(left["reason"], {})[left["metric"]] = None
    return [f"not judged: {', '.join(names)}: {reason}" for reason, names in metrics.items()]


def resolution_sentence(summary: Mapping[str, Any]) -> str:
    """The least loss of quality against natural speech that so many clips would show; empty where none were judged."""
    found = summary["statistics"].get("pesq_change")
    if found is None or not math.isfinite(float(found["resolvable_change"])):
        return ""
    return (
        f"with these {summary['clips']['held_back']} clips a PESQ change of {number_text(found['resolvable_change'])}"
        " can be resolved (one-sided 95 %, power 80 %)"
    )


def arithmetic_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Which arithmetic each figure is of, and by how much the fast and the exact one differ."""
    fast, backend = summary["search_arithmetic"], summary["backend"]
    found = summary["agreement"]
    if found is None:
        return [f"every figure is of {fast}, a fast model of the card; {backend} has no exact arithmetic here"]
    if float(found["worst_snr_db"]) == math.inf:
        apart = "the same renders"
    else:
        apart = (
            f"the difference is {number_text(found['mean_snr_db'])} dB under the render on average,"
            f" {number_text(found['worst_snr_db'])} dB at worst ({found['worst_clip']})"
        )
    return [
        f"judged in {found['exact']}, to the bit; searched in {fast}, as is the baseline",
        f"{fast} against {found['exact']}: {apart}",
    ]


def adaptation_sentence(found: Mapping[str, Any]) -> str:
    """What training the weights took and gave; `found` as `precision_search.adaptation.told` gives it."""
    return (
        f"weights of {found['sites']} sites trained in {found['minutes']:.1f} minutes: loss {found['loss_before']:.4f}"
        f" -> {found['loss_after']:.4f}, after step {found['best_step']} of {found['steps'] + found['local_steps']}"
    )


def unforced_sentence(found: Mapping[str, Any]) -> str:
    """What moved when nothing was forced on the model, in one sentence; `found` as `unforced` gives it."""
    return (
        f"nothing forced: {found['same_length']} of {found['clips']} clips have the length that fp32 gives them, none"
        f" is off by more than {found['length_change']:.2%}"
    )


def _price(summary: Mapping[str, Any]) -> list[str]:
    cost = summary["cost"]
    price = cost["usd_per_stream"]
    span = f"{number_text(cost['low'])} to {number_text(cost['high'])}"
    return [
        f"  USD per concurrent stream: {number_text(price['candidate'])} on {summary['device']},"
        f" {number_text(price['baseline'])} on {summary['against']}; ratio {number_text(cost['ratio'])} ({span})",
    ]


def number_text(value: float | str | None) -> str:
    """Four digits; a dash where there is no value."""
    # A negative zero is shown as 0.
    return "-" if value is None else f"{float(value) + 0.0:.4g}"
