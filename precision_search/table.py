"""Table: a study's summary as a person reads it in a terminal."""

from collections.abc import Mapping
from typing import Any


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
        f"  {'gate':30} {'over':12} {'threshold':>11} {'value':>10} {'margin':>10} {'baseline':>10}",
    ]
    for gate in summary["gates"]:
        threshold = f"{'>=' if gate['side'] == 'min' else '<='} {gate['threshold']:g}"
        row = [_number(gate[key]) for key in ("value", "margin", "bf16_value")]
        mark = "" if gate["kept"] else "  BROKEN"
        lines.append(
            f"  {gate['metric']:30} {gate['over']:12} {threshold:>11} {row[0]:>10} {row[1]:>10} {row[2]:>10}{mark}"
        )
    lines += [f"  {left['metric']:30} not judged: {left['reason']}" for left in summary["unjudged"]]
    if summary["unforced"] is not None:
        lines += ["", f"  {unforced_sentence(summary['unforced'])}"]
    lines += ["", *_price(summary)]
    if summary["verdict"] != "kept":
        lines += ["", f"  {summary['message']}"]
    return "\n".join(lines)


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
