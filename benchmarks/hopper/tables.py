"""What was found, as tables beside NVIDIA's."""

from collections.abc import Iterator, Mapping
from typing import Any

from hopper.nvidia import nvidia_us
from hopper.products import by_way
from hopper.sites import products_of

WAYS = ("bf16", "fp8", "fp8 static", "fp8 dynamic")


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """All tables of a results file."""
    for part, table in (("numerics", _numerics), ("gemm", _gemm), ("sites", _sites), ("kernels", _kernels)):
        held = results[part]
        yield f"\n{part}"
        for why in ("not_measured", "failed"):
            if why in held:
                yield f"  {why.replace('_', ' ')}: {held[why]}"
        yield from table(held, results["environment"])


def _numerics(held: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    for row in held.get("fitted", ()):
        model = ", ".join(f"{name} {value}" for name, value in row["model"].items())
        yield (
            f"  fast accumulation {row['fast']}: best model ({model}): {100 * row['equal']:.2f} % of results equal"
            f" to the bit, {row['max_ulp']} ulp at most"
        )
    products = held.get("products", ())
    for fast in (True, False):
        rows = [row for row in products if row["fast"] is fast and "error" in row]
        if rows:
            parts = []
            for name in ("fitted", "published", "fp32"):
                shares = [row[name]["equal"] for row in rows if name in row]
                if shares:
                    parts.append(f"{name} {100 * sum(shares) / len(shares):.2f} % (least {100 * min(shares):.2f} %)")
            yield f"  {len(rows)} products, fast accumulation {fast}: results equal to the bit: {'; '.join(parts)}"
            yield f"    largest relative error against the exact sums {max(row['error'] for row in rows):.2e}"
    for why in dict.fromkeys(row["not_measured"] for row in products if "not_measured" in row):
        yield f"  products not measured: {why}"
    for row in held.get("scales", ()):
        told = f"not measured: {row.get('not_measured')}"
        if "equal" in row:
            told = (
                f"{100 * row['equal']:.2f} % of bits equal to the fitted sum, scaled {row['order']};"
                f" {100 * row['emulation_equal']:.2f} % to the emulation's fp32 sum"
            )
        yield f"  scales of a {row['scales']}, {row['out']} result, fast accumulation {row['fast']}: {told}"
    quantization = held.get("quantization", {})
    if "not_measured" in quantization:
        yield f"  quantization: not measured: {quantization['not_measured']}"
    else:
        for fmt, ways in quantization.items():
            told = ", ".join(f"{name} {_share(share)}" for name, share in ways.items())
            yield f"  quantization {fmt}, bits equal to the host's: {told}"


def _share(share: Any) -> str:
    return f"{100 * share:.6g} %" if isinstance(share, float) else f"not measured: {share['not_measured']}"


def _gemm(held: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    yield from _products(by_way(held.get("rows", ())), environment)
    yield from _left_out(held)


def _products(times: Mapping[Any, Mapping[str, float]], environment: Mapping[str, Any]) -> Iterator[str]:
    if times:
        yield f"  {'m, k, n':>20} {''.join(f'{way:>13}' for way in WAYS)}   NVIDIA bf16 / fp8, us"
    for (m, n, k, _), ways in times.items():
        found = nvidia_us(str(environment["device"]), m, n, k)
        nvidia = " / ".join("-" if us is None else f"{us:.1f}" for us in found)
        shown = "".join(f"{ways[way]:13.2f}" if way in ways else f"{'-':>13}" for way in WAYS)
        yield f"  {f'{m}, {k}, {n}':>20} {shown}   {nvidia}"


def _sites(held: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    times = by_way(held.get("rows", ()))
    for name, rows in held.get("models", {}).items():
        yield f"  {name}: us a chunk, of the sites timed in bf16 and in FP8"
        yield f"    {'streams':>8} {'sites':>10} {''.join(f'{way:>13}' for way in (*WAYS, 'best'))}   faster in FP8"
        for row in rows:
            shown = "".join(f"{row['us'][way]:13.1f}" for way in (*WAYS, "best"))
            sites = f"{row['timed_in_both']}/{row['sites']}"
            nvidia = row["nvidia_us"]
            table = f"; NVIDIA {nvidia['bf16']:.1f} / {nvidia['fp8']:.1f}" if nvidia and row["timed_in_both"] else ""
            yield f"    {row['streams']:8} {sites:>10} {shown}   {row['faster_in_fp8_static']} (static scales){table}"
        most = rows[-1]["streams"]
        yield f"  {name}: each product at {most} streams"
        yield from _products({key: times[key] for key in products_of(name, most) if key in times}, environment)
    if "note" in held:
        yield f"  {held['note']}"
    yield from _left_out(held)


def _kernels(held: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    for row in held.get("rows", ()):
        yield (
            f"  {row['operation']:22} {row['fmt']} {row['elements']:>10} values, {row['kernel']:9} {row['us']:10.2f} us"
            f" {row['gb_per_s']:8.1f} GB/s, {100 * row['equal']:.6g} % of bits equal"
        )
    yield from _left_out(held)


def _left_out(held: Mapping[str, Any]) -> Iterator[str]:
    reasons: dict[str, int] = {}
    for row in held.get("left_out", ()):
        reasons[row["why"]] = reasons.get(row["why"], 0) + row.get("count", 1)
    for why, count in reasons.items():
        yield f"  {count} not measured: {why}"
