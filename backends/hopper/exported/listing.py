"""The sites of program.json as text."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

HEAD = ("site", "scheme", "op", "weight", "activation", "stored", "Q", "DQ", "casts")


def table(manifest: Mapping[str, Any]) -> str:
    """A row a site, the notes, and how many sites read each format."""
    sites = manifest["sites"]
    rows = [HEAD, *(_row(site, held) for site, held in sites.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = Counter(held["activation"] for held in sites.values())
    lines.append(f"{len(sites)} sites: " + ", ".join(f"{count} read {name}" for name, count in counts.most_common()))
    lines += [f"{site}: {held['note']}" for site, held in sites.items() if held["note"]]
    return "\n".join(lines)


def _row(site: str, held: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        site if held["calls"] == 1 else f"{site} (x {held['calls']})",
        held["scheme"],
        held["op"] or "-",
        held["weight"] or "-",
        held["activation"],
        held["stored"],
        str(held["quantize"]),
        str(held["dequantize"]),
        str(held["cast"]),
    )
