"""Decoder table: what a decoder was priced at, as a person reads it in a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PARTS = {
    "frame": "  the user's last frame",
    "prefill": "  prompt, read at once",
    "passes": "  first rows, transformer",
    "codec": "  first rows, codec",
}


def decoder_lines(data: Mapping[str, Any]) -> list[str]:
    """Lines of a table; `data` as `decoder_pricing.price` makes it."""
    layout, load = data["layout"], data["load"]
    return [
        f"{data['title']}: {_large(data['parameters'])} weights{' on paper' * data['on_paper']},"
        f" {layout['sites']} sites that are {data['covered_mac_share']:.1%} of the MACs",
        f"a row is a frame of {load['frame_ms']:g} ms: {_large(data['weight_macs_a_row'])} MACs with weights,"
        f" {_large(data['attention_macs_a_context_row'])} for each row of context",
        f"{layout['layers']} layers of {layout['width']}, {layout['heads']} heads sharing {layout['kv_heads']} of keys"
        f" and values; delay pattern: a pass a frame, the first sound with pass {layout['delay'] + 1}",
        f"assumed: {load['context_rows']} rows of context ({_minutes(load['context_rows'], load)}), a prompt of"
        f" {load['prompt_rows']} ({_minutes(load['prompt_rows'], load)}), the card busy {load['utilization']:.0%} at"
        " most",
        "",
        *_columns(data),
        *(_beside(data) if data["reported"] is not None else ()),
        *(_speculation(data["speculation"], load) if data["speculation"] is not None else ()),
    ]


def _columns(data: Mapping[str, Any]) -> Iterator[str]:
    columns: Sequence[Mapping[str, Any]] = tuple(data["columns"].values())
    batch = str(data["load"]["streams"])

    def row(head: str, cells: Sequence[str]) -> str:
        return f"{head:32}" + "".join(f"{cell:>29}" for cell in cells)

    yield row("", [column["title"] for column in columns])
    yield row("card", [column["device"] for column in columns])
    yield row("weights, GB", [f"{column['weight_gb']:.1f}" for column in columns])
    yield row("keys and values, KiB a row", [f"{column['row_kib']:g}" for column in columns])
    for count in dict.fromkeys(("1", batch)):
        yield row(f"pass of {_streams(count)}, ms", [_span(column["pass_ms"][count]) for column in columns])
    yield row(f"  of {_streams(batch)}: layers", [f"{column['pass_parts_ms']['layers']:.2f}" for column in columns])
    for part in ("attention", "heads", "between", "codec"):
        yield row(f"  {'':{len(_streams(batch)) + 4}} {part}", [f"{c['pass_parts_ms'][part]:.2f}" for c in columns])
    for count in dict.fromkeys(("1", batch)):
        heard = [column["first_sound_ms"][count] for column in columns]
        yield row(f"first sound, {_streams(count)}, ms", [_span(_each(one, "all")) for one in heard])
        for part, head in _PARTS.items() if count == batch else ():
            yield row(head, [_span(_each(one, part)) for one in heard])
    yield row("streams a card", [_span(column["streams"]) for column in columns])
    yield row("  limited by", [column["limited_by"] for column in columns])
    yield row("  frame time of all of them, ms", [_span(column["frame_ms"]) for column in columns])
    yield row(f"streams a card, passes of {batch}", [_span(column["streams_in_batches"]) for column in columns])
    yield row("USD a stream", [_span(column["usd_per_stream"]) for column in columns])
    yield row(f"  of that on {columns[-1]['device']}", [_span(column["ratio"]) for column in columns])
    yield "middle (best to worst outcome), by the ranges of the cards' figures, of launches, and of what was measured"


def _beside(data: Mapping[str, Any]) -> Iterator[str]:
    found, load = data["reported"], data["load"]
    ours = data["columns"]["cheapest"]
    batch, streams = found["batch"], found["streams"]
    parts = " + ".join(f"{value:g} {name}" for name, value in found["parts_ms"].items())
    heard = _each(ours["first_sound_ms"][str(load["streams"])], "all")
    yield ""
    yield f"beside {found['source']}"
    yield f"  first sound  {found['first_ms']:g} ms ({parts})"
    yield f"               here {_span(heard)} at {_streams(load['streams'])}"
    yield f"  streams      {streams}"
    yield f"               here {_span(ours['streams'])}, in passes of {batch} {_span(found['streams_in_batches'])}"
    yield ""
    yield "where the difference in streams comes from, one change at a time, of the cheapest allowed:"
    for change in data["changes"]:
        yield f"  {change['what']:62} {_span(change['streams']):>22}  {change['limited_by']}"
    passes, held = found["passes_a_frame"], found["rows_in_memory"]
    yield f"{streams} streams would be, each alone:"
    yield (
        f"  by time in passes of {batch}: {passes} passes a frame; they take {_span(found['pass_ms'])} ms each, so the"
        f" card is busy {_span(found['busy_in_batches'], '.0%')} of its time"
    )
    yield f"  by memory: {held:.0f} rows for each stream, {_minutes(held, load)}"
    yield (
        f"  all in one pass: {_span(found['one_pass_ms'])} ms a frame, the first sound of one that begins after"
        f" {_span(found['first_ms_in_one_pass'])} ms"
    )
    yield "where the difference in first sound comes from:"
    yield f"  the user's last frame, {load['frame_ms']:g} ms, is in ours and in none of their parts by name"
    for name in found["parts_ms"]:
        counted = _span(found["parts_in_passes"][name])
        yield f"  {name} {found['parts_ms'][name]:g} ms: {counted} passes of {_streams(batch)}{_meant(name, data)}"


def _meant(name: str, data: Mapping[str, Any]) -> str:
    load, found = data["load"], data["reported"]
    if name == "first frame":
        return f"; the delay pattern needs {data['layout']['delay'] + 1}"
    if name == "first token":
        rows = found["prompt_rows_of_first_token"]
        return (
            f", or a prompt of {_span(rows)} rows ({_minutes(rows['middle'], load)}); here one of"
            f" {load['prompt_rows']} is read, and no way over a network"
        )
    return "; here no row is thought before one is spoken"


def _speculation(found: Mapping[str, Any], load: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        f"speculative decoding: {found['drafted']} rows drafted by {found['layers']} layers of {found['width']}"
        f" ({_large(found['parameters'])} weights), of which {found['acceptance']:.0%} are accepted"
        f" (assumed): {found['expected_rows']:.2f} rows a pass"
    )
    yield (
        f"  a row is accepted where all of its tokens are: {found['token_acceptance']:.1%} of each, were they"
        " independent"
    )
    yield f"  {'streams':>9} {'ms a row without':>24} {'with':>24} {'pays from an acceptance of':>32}"
    for row in found["rows"]:
        needed = row["needed_acceptance"]
        least = "never" if None in needed.values() else _span(needed)
        yield f"  {row['streams']:9} {_span(row['without_ms']):>24} {_span(row['with_ms']):>24} {least:>32}"
    yield "  one stream waits for the weights, so rows to check cost little; many wait for products, and rejected rows"
    yield "  are lost. A row that waits for a frame of the user cannot be drafted"


def _each(cases: Mapping[str, Mapping[str, float]], part: str) -> dict[str, float]:
    return {case: parts[part] for case, parts in cases.items()}


def _streams(count: str | int) -> str:
    return f"{count} stream{'s' if int(count) != 1 else ''}"


def _large(count: float) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.3g} million"


def _minutes(rows: float, load: Mapping[str, Any]) -> str:
    seconds = rows * float(load["frame_ms"]) / 1e3
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:g} s"


def _span(cases: Mapping[str, float | None], form: str = "") -> str:
    """A figure with its ends, where they differ; counts whole."""
    low, middle, high = (_told(cases[case], form) for case in ("low", "middle", "high"))
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def _told(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    if form:
        return format(value, form)
    return str(value) if isinstance(value, int) else f"{float(f'{value:.3g}'):g}"
