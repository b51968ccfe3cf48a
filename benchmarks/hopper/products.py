"""Products to time: bf16, and FP8 with and without quantizing the activation; what cannot run says why."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from hopper.machine import Part, l2_bytes
from hopper.timing import timed
from torch import Tensor

from backends.hopper.fake_quantization import Kernel, quantize, why_no_triton

WAYS = (("bf16", "none"), ("fp8_e4m3", "none"), ("fp8_e4m3", "static"), ("fp8_e4m3", "dynamic"))
MULTIPLE = 16
FP8_CAPABILITY = (8, 9)
NO_FP8 = "this card has no FP8 tensor cores"
CPU_MACS = 4e6
"""More of a product are not timed on a CPU: the numbers mean nothing there."""
MOST_SETS = 64
Cache = Literal["cold", "warm"]


@dataclass(frozen=True, slots=True)
class Shape:
    """[m, k] by [k, n]."""

    m: int
    n: int
    k: int
    cache: Cache = "cold"

    @property
    def macs(self) -> int:
        """Multiplications of the product."""
        return self.m * self.n * self.k


def time_products(shapes: Iterable[Shape], part: Part) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Rows and what was left out, one shape after the other, until the part's time is over."""
    for shape in shapes:
        rows, left_out = [], []
        for dtype, quantizes in WAYS:
            told = {"m": shape.m, "n": shape.n, "k": shape.k, "dtype": dtype, "quantizes": quantizes}
            why = "the part's time was over" if part.left <= 0 else _why_not(shape, dtype, part)
            if why is None:
                try:
                    rows.append(told | _time(shape, dtype, quantizes, part))
                except Exception as error:  # whatever it is, it is told, and the next product is timed
                    why = said(error)
                    if "device-side assert" in why or "illegal" in why:
                        raise  # nothing after it could be trusted
            if why is not None:
                left_out.append(told | {"why": why})
        yield rows, left_out


def _why_not(shape: Shape, dtype: str, part: Part) -> str | None:
    if dtype != "bf16" and (shape.n % MULTIPLE or shape.k % MULTIPLE):
        return f"an FP8 GEMM needs n and k in multiples of {MULTIPLE}"
    if not part.on_card and shape.macs > CPU_MACS:
        return f"on a CPU only products of up to {CPU_MACS:g} multiplications are timed"
    if dtype != "bf16" and part.on_card and torch.cuda.get_device_capability(part.device) < FP8_CAPABILITY:
        return NO_FP8
    return None


def _time(shape: Shape, dtype: str, quantizes: str, part: Part) -> dict[str, Any]:
    size = 2 if dtype == "bf16" else 1
    weight_bytes = shape.n * shape.k * size
    set_bytes = weight_bytes + shape.m * shape.k * (2 if quantizes != "none" else size)
    sets = 1
    if part.on_card and shape.cache == "cold":
        sets = min(MOST_SETS, max(1, math.ceil(2 * l2_bytes(part.device) / set_bytes)))
    kernel = quantizer(part.device)
    calls = [_call(shape, dtype, quantizes, kernel, part.device) for _ in range(sets)]
    found = timed(calls, part.device)
    told: dict[str, Any] = {"us": round(found.us, 3), "spread_us": round(found.spread_us, 3), "cache": shape.cache}
    return told if quantizes == "none" else told | {"quantized_by": kernel}


@functools.cache
def quantizer(device: torch.device) -> Kernel:
    """What quantizes an activation: Triton, or torch where Triton does not run (it needs a C compiler, too)."""
    if why_no_triton(device) is not None:
        return "torch"
    try:
        quantize(torch.ones(16, device=device), torch.ones((), device=device), "fp8_e4m3", "triton")
    except Exception as error:  # compilers fail in many ways, and torch can do it
        print(f"  Triton does not run here, torch quantizes: {said(error)}", flush=True)
        return "torch"
    return "triton"


def said(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def _call(shape: Shape, dtype: str, quantizes: str, kernel: Kernel, device: torch.device) -> Callable[[], Tensor]:
    x = torch.randn(shape.m, shape.k, device=device, dtype=torch.bfloat16)
    weight = torch.randn(shape.n, shape.k, device=device, dtype=torch.bfloat16)
    if dtype == "bf16":
        return lambda: torch.nn.functional.linear(x, weight)
    one = torch.ones((), device=device)
    columns = quantize(weight, one, dtype).t()
    if quantizes == "none":
        codes = quantize(x, one, dtype)
        return lambda: scaled_mm(codes, columns, one, one)
    static = one if quantizes == "static" else None
    # The scale of a dynamic product is one here, too: it costs the same whatever its value.
    return lambda: scaled_mm(quantize(x, static, dtype, kernel), columns, one, one)


def scaled_mm(
    codes: Tensor,
    columns: Tensor,
    scale: Tensor,
    weight_scale: Tensor,
    fast: bool = True,
    out: torch.dtype = torch.bfloat16,
) -> Tensor:
    """The scaled product of torch: [m, k] codes, [k, n] codes that lie column by column."""
    made: Tensor = torch._scaled_mm(
        codes, columns, scale_a=scale, scale_b=weight_scale, out_dtype=out, use_fast_accum=fast
    )
    return made


def counted(left_out: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was left out, by reason and way: how many, and the largest."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in left_out:
        way = {name: row[name] for name in ("dtype", "quantizes", "why")}
        held = groups.setdefault(tuple(way.values()), way | {"count": 0, "largest": [0, 0, 0]})
        held["count"] += 1
        held["largest"] = max(held["largest"], [row["m"], row["n"], row["k"]], key=math.prod)
    return list(groups.values())


def by_way(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int, int, str], dict[str, float]]:
    """(m, n, k, cache) -> way -> microseconds, a way named `bf16`, `fp8`, `fp8 static` or `fp8 dynamic`."""
    found: dict[tuple[int, int, int, str], dict[str, float]] = {}
    for row in rows:
        name = "bf16" if row["dtype"] == "bf16" else f"fp8 {row['quantizes']}".removesuffix(" none")
        found.setdefault((row["m"], row["n"], row["k"], row["cache"]), {})[name] = row["us"]
    return found
