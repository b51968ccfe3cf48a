"""Plan table: what a planned program is, a line an operation or a site, and what it comes to."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

KIB, MIB = 1024, 1024 * 1024
_HEAD = f"{'#':>5} {'op':16} {'in -> out':22} {'weight':7} {'fidelity':8} {'acc':4} {'L1 KiB':>7} {'DRAM MiB':>9}  site"


def plan_table(data: Mapping[str, Any], *, sites_only: bool) -> str:
    """The text of a plan; `data` as `precision_search.planned.plan_data` gives it."""
    how = data["clip_told"]
    if data["chunk_ms"] is not None:
        how = f"chunks of {data['chunk_ms']:g} ms"
    lines = [
        f"{data['model']} on {data['card_title']} ({data['card']}), {how}",
        f"policy {data['policy_digest']}: {data['policy']}",
        "",
        _HEAD,
    ]
    rows = [row for row in data["steps"] if row["site"] is not None or not sites_only]
    lines += map(_line, rows) if sites_only else _grouped(rows)
    return "\n".join([*lines, "", *_totals(data), *host_lines(data), "", *_realized_lines(data)])


def _grouped(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines under the module that they are of: its first two names."""
    for module, part in groupby(rows, key=lambda row: ".".join(str(row["source"]).split(".")[:2])):
        yield f"{module or '(the model itself)'}:"
        yield from map(_line, part)


def _line(row: Mapping[str, Any]) -> str:
    types = f"{'+'.join(dict.fromkeys(row['in'])) or '-'} -> {row['out'] or '-'}"
    weight, fidelity, accumulate = (row[key] or "-" for key in ("weight", "fidelity", "accumulate"))
    text = (
        f"{row['index']:5} {row['op']:16} {types:22} {weight:7} {fidelity:8} {accumulate:4}"
        f" {row['l1_bytes_per_core'] / KIB:7.0f} {row['dram_bytes'] / MIB:9.2f}  {row['site'] or ''}"
    )
    return text.rstrip() + ("  <- REFUSED" if row["refused"] else "")


def _totals(data: Mapping[str, Any]) -> list[str]:
    total = data["totals"]
    fidelities = ", ".join(f"{name} {share:.1%}" for name, share in total["mac_share_by_fidelity"].items())
    columns, rows = total["grid"]
    peak, all_of_it = total["l1_peak_bytes_per_core"], total["l1_bytes_per_core"]
    return [
        f"{total['operations']} operations ({total['device_operations']} of the device), {total['typecasts']} of them"
        f" typecasts; {total['host_round_trips']} round trips to the host",
        f"MACs of its sites: {fidelities}",
        f"L1 of one of {columns} x {rows} cores, at its fullest: {peak / KIB:.0f} of {all_of_it / KIB:.0f} KiB"
        f" ({peak / all_of_it:.0%}), in operation {total['l1_peak_at']}",
        f"DRAM, at its fullest: {total['dram_peak_bytes'] / MIB:.1f} MiB",
    ]


def host_lines(data: Mapping[str, Any]) -> list[str]:
    """What is left on the host: `host` and `left_on_host` of a plan's data or an export's."""
    lines = []
    for trip in data["host"]:
        where = trip["source"] or "the model itself"
        if trip["down_bytes"]:
            lines.append(f"  on the host: {where}; {trip['down_bytes']} bytes from the card, {trip['up_bytes']} to it")
        else:
            lines.append(f"  on the host before the card begins: {where}; {trip['up_bytes']} bytes to the card")
    return lines + [f"  the card waits for {why}" for why in data["left_on_host"]]


def _realized_lines(data: Mapping[str, Any]) -> list[str]:
    refusals, apart = data["refusals"], data["mismatches"]
    if not refusals and not apart:
        return [f"realized: each of {data['sites']} sites as the policy says, and ttnn takes every operation"]
    lines = []
    if refusals:
        lines.append(f"TTNN REFUSES {len(refusals)} OPERATIONS")
        lines += [
            f"  {found['index']} {found['op']} of {found['site'] or found['source'] or 'the model itself'}:"
            f" {found['message']}"
            for found in refusals
        ]
    if apart:
        lines.append(f"NOT AS THE POLICY SAYS: {len(apart)} differences")
        lines += [f"  {line}" for line in apart]
    return lines
