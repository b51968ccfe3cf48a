"""Table: a study's summary as a person reads it in a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {"fast_value": "fast", "bf16_value": "baseline"}
"""Values that stand beside a gate's own, where there are any."""


def table(summary: Mapping[str, Any]) -> str:
    """Verdict, shares, gates with threshold, value and margin, and cost against the card it is set against."""
    verdict = "every gate kept" if summary["verdict"] == "kept" else "GATES BROKEN"
    lines = [
        f"{summary['recipe']} on {summary['device']}: {verdict} on {summary['clips']['held_back']} clips held back"
        f" ({summary['evaluations']} policies heard, {summary['seconds']:.0f} s)",
        "",
        f"  LoFi share of MACs        {summary['lofi_mac_share']:7.1%}",
        f"  bfp8_b share of weights   {summary['bfp8_weight_share']:7.1%}",
        f"  FP8 share of MACs         {summary['fp8_mac_share']:7.1%}",
        "",
    ]
    lines += [f"  {line}" for line in gate_lines(summary["gates"])]
    lines += ["", *(f"  {sentence}" for sentence in arithmetic_sentences(summary))]
    if summary.get("adaptation") is not None:
        lines.append(f"  {adaptation_sentence(summary['adaptation'])}")
    lines += [f"  {left['metric']:30} not judged: {left['reason']}" for left in summary["unjudged"]]
    if summary["unforced"] is not None:
        lines += ["", f"  {unforced_sentence(summary['unforced'])}"]
    lines += ["", *_price(summary)]
    if summary["verdict"] != "kept":
        lines += ["", f"  {summary['message']}"]
    return "\n".join(lines)


def gate_lines(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gates as `precision.candidate.verdict_line` has them, a line each under a line of heads."""
    shown = {key: name for key, name in COLUMNS.items() if any(gate.get(key) is not None for gate in gates)}
    heads = "".join(f" {name:>10}" for name in ("value", "margin", *shown.values()))
    lines = [f"{'gate':30} {'over':12} {'threshold':>11}{heads}"]
    for gate in gates:
        threshold = f"{'>=' if gate['side'] == 'min' else '<='} {gate['threshold']:g}"
        values = "".join(f" {_number(gate[key]):>10}" for key in ("value", "margin", *shown))
        mark = "" if gate["kept"] else "  BROKEN"
        lines.append(f"{gate['metric']:30} {gate['over']:12} {threshold:>11}{values}{mark}")
    return lines


def arithmetic_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Which arithmetic each figure is of, and by how much the fast and the exact one differ."""
    fast, backend = summary["search_arithmetic"], summary["backend"]
    found = summary["agreement"]
    if found is None:
        return [f"every figure is of {fast}, a fast model of the card; {backend} has no exact arithmetic here"]
    if float(found["worst_snr_db"]) == math.inf:
        apart = "the same waveforms"
    else:
        apart = (
            f"the difference is {_number(found['mean_snr_db'])} dB under the waveform on average,"
            f" {_number(found['worst_snr_db'])} dB at worst ({found['worst_clip']})"
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
    pitch = "" if found["f0_cents"] is None else f", their F0 {found['f0_cents']:.2g} cents off"
    return (
        f"nothing forced: {found['same_length']} of {found['clips']} clips have the length that fp32 gives them{pitch}"
    )


def _price(summary: Mapping[str, Any]) -> list[str]:
    cost = summary["cost"]
    price = cost["usd_per_stream"]
    span = f"{_number(cost['low'])} to {_number(cost['high'])}"
    return [
        f"  USD per concurrent stream: {_number(price['candidate'])} on {summary['device']},"
        f" {_number(price['baseline'])} on {summary['against']}; ratio {_number(cost['ratio'])} ({span})",
    ]


def _number(value: float | str | None) -> str:
    # A negative zero is shown as 0.
    return "-" if value is None else f"{float(value) + 0.0:.4g}"
