"""Plan table: what a planned program is, a line an operation or a site, and what it comes to."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

KIB, MIB = 1024, 1024 * 1024
_HEAD = f"{'#':>5} {'op':18} {'in -> out':24} {'weight':7} {'fidelity':8} {'acc':4} {'L1 KiB':>8} {'DRAM MiB':>9}  site"


def plan_table(data: Mapping[str, Any], *, sites_only: bool) -> str:
    """The text of a plan; `data` as `precision_search.plan.plan_data` gives it."""
    lines = [
        f"{data['model']} on {data['card_title']} ({data['card']}), {data['clip_seconds']:.2f} s of {data['clip']}",
        f"policy {data['policy_digest']}: {data['policy']}",
        "",
    ]
    rows = [row for row in data["steps"] if row["site"] is not None or not sites_only]
    if sites_only:
        lines += [_HEAD, *map(_line, rows)]
    else:
        lines += [_HEAD, *_grouped(rows)]
    lines += ["", *_totals(data), *_host_lines(data), *_realized_lines(data)]
    return "\n".join(lines)


def _grouped(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines under the module that they are of, its first two names."""
    for module, part in groupby(rows, key=lambda row: ".".join(str(row["source"]).split(".")[:2])):
        yield module or "(the model itself)"
        yield from map(_line, part)


def _line(row: Mapping[str, Any]) -> str:
    types = f"{'+'.join(dict.fromkeys(row['in'])) or '-'} -> {row['out']}"
    cells = [row["weight"], row["fidelity"], row["accumulate"]]
    weight, fidelity, accumulate = (cell or "-" for cell in cells)
    l1 = "-" if row["l1_peak_bytes"] is None else f"{row['l1_peak_bytes'] / KIB:.0f}"
    dram = "-" if row["dram_bytes"] is None else f"{row['dram_bytes'] / MIB:.2f}"
    text = (
        f"{row['index']:5} {row['op']:18} {types:24} {weight:7} {fidelity:8} {accumulate:4} {l1:>8} {dram:>9}"
        f"  {row['site'] or ''}"
    )
    return text.rstrip() + (f"  <- {row['mismatch']}" if row["mismatch"] else "")


def _totals(data: Mapping[str, Any]) -> list[str]:
    total = data["totals"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in total["mac_share_by_fidelity"].items())
    lines = [
        f"{total['operations']} operations, {total['typecasts']} of them typecasts; {total['host_round_trips']} round"
        f" trips to the host",
        f"MACs of the sites: {shares}",
    ]
    if total["l1_peak_bytes"] is not None:
        share = total["l1_peak_bytes"] / total["l1_bytes"]
        lines.append(
            f"L1 of a core, at its fullest: {total['l1_peak_bytes'] / KIB:.0f} of {total['l1_bytes'] / KIB:.0f} KiB"
            f" ({share:.0%}), in operation {total['l1_peak_at']}"
        )
    if total["dram_peak_bytes"] is not None:
        lines.append(f"DRAM, at its fullest: {total['dram_peak_bytes'] / MIB:.1f} MiB")
    return lines


def _host_lines(data: Mapping[str, Any]) -> list[str]:
    return [
        f"  left on the host: {trip['source'] or '(top)'}, {trip['down_bytes']} bytes from the card and"
        f" {trip['up_bytes']} to it"
        for trip in data["host"]
    ] + [f"  {why}" for why in data["left_on_host"]]


def _realized_lines(data: Mapping[str, Any]) -> list[str]:
    refusals, mismatches = data["refusals"], data["mismatches"]
    if not refusals and not mismatches:
        return [f"realized: every one of {data['sites']} sites as the policy says"]
    lines = [
        f"THE LIBRARY REFUSES operation {found['index']}, {found['op']} of {found['site'] or found['source']}:"
        f"\n    {found['message']}"
        for found in refusals
    ]
    if mismatches:
        lines.append(f"NOT AS THE POLICY SAYS: {len(mismatches)} operations")
        lines += [
            f"  {found['site'] or found['op']}: {found['what']} is {found['got']}, the policy says {found['wanted']}"
            for found in mismatches
        ]
    return lines
