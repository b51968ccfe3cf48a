"""FP8 products of a card against our numerics: how it sums, which model fits, scales, and the bits of quantization."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import torch
from hopper.machine import Part
from hopper.operands import KINDS, TYPES, operands
from hopper.probes import AT_ONCE, Reading, read_off
from hopper.products import FP8_CAPABILITY, NO_FP8, said, scaled_mm
from hopper.quantization import compared
from torch import Tensor

from backends.hopper.accumulation import (
    CANDIDATES,
    EXACT_FP32,
    HOPPER_FP8,
    HOPPER_FP8_PROMOTED,
    AccumulationModel,
    Fitted,
    fit,
    matmul,
)

LENGTHS = (16, 32, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
QUICK_LENGTHS = (16, 64, 512, 4096)
CPU_LENGTHS = (16, 48, 256)
SIZE = 2048
"""Rows and columns: tiles enough for every multiprocessor, so that a library need not split k."""
SMALL_SIZE = 64
"""One tile: what a library may split k for."""
FEW_ROWS = 16
"""As many rows as a few streams have: a library may choose another kernel, which may sum in another order."""
SEEN = 32
"""Rows and columns of a result that are held against the models."""
FITTED_LENGTH = 512
CPU_FITTED_LENGTH = 48
FINALISTS = 48
MOST_STEPS = 512
"""Sums of more steps are not computed: fp32 one by one over a long k takes a second."""


def measure(part: Part) -> None:
    """Compare our quantization, fit the sums with and without fast accumulation, and compare scaled results.

    A section that fails leaves the others be.
    """
    found: dict[str, Any] = {"readings": [], "fitted": [], "products": [], "scales": []}
    _guarded("quantization", lambda: found.update(quantization=compared(part)), part, found)
    if part.on_card and torch.cuda.get_device_capability(part.device) < FP8_CAPABILITY:
        found["not_measured"] = f"sums: {NO_FP8}"
    else:
        size = SIZE if part.on_card else SEEN
        for fast in (True, False):
            _guarded(f"sums, fast accumulation {fast}", partial(_sums, fast, size, part, found), part, found)
        _guarded("scales", lambda: _scales(found["fitted"], size, part, found), part, found)
    part.write(found)


def _guarded(name: str, section: Callable[[], None], part: Part, found: dict[str, Any]) -> None:
    try:
        section()
    except Exception as error:  # whatever it is, it is told, and what else there is goes on
        told = f"{name}: {said(error)}"
        found["failed"] = f"{found['failed']}; {told}" if "failed" in found else told
        part.say(f"failed: {told}")
    part.write(found)


def _sums(fast: bool, size: int, part: Part, found: dict[str, Any]) -> None:
    readings = _readings(fast, part, found)
    best = _fitted(fast, readings, size, part, found)
    part.write(found)
    _products(fast, best.model, size, part, found)


def multiply(a: Tensor, columns: Tensor, fast: bool) -> Tensor:
    """Codes [m, k] and [k, n] with scales of one, float32."""
    one = torch.ones((), device=a.device)
    return scaled_mm(a, columns, one, one, fast, torch.float32)


def repeated(codes: Tensor, rows: int, device: torch.device) -> Tensor:
    """Codes on the device, the rows repeated or cut to so many: what is looked at is at the beginning."""
    times = -(-rows // len(codes))
    return codes.view(torch.uint8).to(device).repeat(times, 1)[:rows].contiguous().view(codes.dtype)


def _readings(fast: bool, part: Part, found: dict[str, Any]) -> list[Reading]:
    made = []
    for size in (SIZE, SMALL_SIZE) if part.on_card else (AT_ONCE,):
        reading = read_off(lambda a, b: multiply(a, b, fast), part.device, size)
        found["readings"].append({"fast": fast, "size": size, **reading.told()})
        part.say(f"probes, fast accumulation {fast}, {size} rows: {summary(reading)}")
        made.append(reading)
    return made


def summary(reading: Reading) -> str:
    """A reading in a line."""
    if reading.fraction_bits is None:
        return "nothing is cut that FP8 products could show"
    order = reading.step or f"{len(reading.first_group)} (k is not in order: {reading.first_group[:40]})"
    return (
        f"{reading.fraction_bits} bits below the largest ({reading.exponents}), {reading.rounding},"
        f" of {order} products;"
        f" result {reading.result_bits or 'more than three above that'} bits,"
        f" accumulator {'in' if reading.includes_accumulator else 'outside'} the step,"
        f" put aside after {reading.promote_every or 'no'} elements"
    )


def _fitted(fast: bool, readings: Sequence[Reading], size: int, part: Part, found: dict[str, Any]) -> Fitted:
    """Rank the candidates, those first that the probes give, on several kinds of operands side by side."""
    length = FITTED_LENGTH if part.on_card else CPU_FITTED_LENGTH
    kinds = ("normal", "codes", "one_large", "cancelling")
    a, b, seen = [], [], []
    for seed, kind in enumerate(kinds):
        codes = operands(kind, TYPES[0], SEEN, SEEN, length, seed)
        left, right = (repeated(held, size, part.device) for held in codes)
        seen.append(multiply(left, right.t(), fast)[: SEEN // 2, :SEEN])
        a.append(left[: SEEN // 2])
        b.append(right[:SEEN])
    candidates = tuple(dict.fromkeys([*filter(None, (held.model() for held in readings)), *CANDIDATES]))
    ranked = _ranked(a, b, seen, candidates)
    best = ranked[0]
    found["fitted"].append(
        {"fast": fast, "operands": kinds, "k": length, **_told(best), "next": [_told(held) for held in ranked[1:4]]}
    )
    part.say(f"fit, fast accumulation {fast}: {100 * best.equal:.2f} % equal, {best.max_ulp} ulp at most, {best.model}")
    return best


def _ranked(
    a: Sequence[Tensor], b: Sequence[Tensor], seen: Sequence[Tensor], candidates: Sequence[AccumulationModel]
) -> list[Fitted]:
    """The candidates over all operands: first on the first kind alone, then those that may win on every one."""
    few = [held.model for held in fit(a[0], b[0].t(), seen[0], candidates)]
    # The first that the probes gave stay in, whatever one kind of operand says of them.
    few = list(dict.fromkeys([*candidates[:6], *few[:FINALISTS]]))
    made = []
    for model in few:
        each = [fit(x, y.t(), z, (model,))[0] for x, y, z in zip(a, b, seen, strict=True)]
        made.append(Fitted(model, sum(held.equal for held in each) / len(each), max(held.max_ulp for held in each)))
    return sorted(made, key=lambda held: (-held.equal, held.max_ulp))


def _products(fast: bool, model: AccumulationModel, size: int, part: Part, found: dict[str, Any]) -> None:
    """Every kind of operand, pair of types and length, against the fitted model, the presets and the exact sum."""
    lengths = CPU_LENGTHS if not part.on_card else QUICK_LENGTHS if part.quick else LENGTHS
    presets = {"fitted": model, "published": HOPPER_FP8 if fast else HOPPER_FP8_PROMOTED, "fp32": EXACT_FP32}
    rows = (size, FEW_ROWS) if part.on_card else (size,)
    for k in lengths:
        for types, kind in product(TYPES, KINDS):
            for m in rows if kind == "normal" else rows[:1]:
                if part.left <= 0:
                    found["stopped"] = f"the part's time was over at k {k}, fast accumulation {fast}"
                    return
                told = {"kind": kind, "types": types, "m": m, "n": size, "k": k, "fast": fast}
                codes = operands(kind, types, SEEN, SEEN, k, seed=k)
                a, b = repeated(codes[0], m, part.device), repeated(codes[1], size, part.device)
                try:
                    seen = multiply(a, b.t(), fast)[:SEEN, :SEEN]
                    told |= _against(a[:SEEN], b[:SEEN], seen, presets)
                except RuntimeError as error:
                    told["not_measured"] = said(error)
                found["products"].append(told)
        part.say(f"products, fast accumulation {fast}, k {k}: {_worst(found['products'], k, fast)}")


def _against(a: Tensor, b: Tensor, seen: Tensor, models: dict[str, AccumulationModel]) -> dict[str, Any]:
    exact = a.double() @ b.double().t()
    scale = exact.square().mean().sqrt().clamp_min(1e-300)
    told: dict[str, Any] = {"error": float((seen.double() - exact).square().mean().sqrt() / scale)}
    for name, model in models.items():
        if a.shape[1] > model.step * MOST_STEPS:
            continue
        held = fit(a, b.t(), seen, (model,))[0]
        told[name] = {"equal": held.equal, "max_ulp": held.max_ulp}
    return told


def _worst(products: Sequence[dict[str, Any]], k: int, fast: bool) -> str:
    held = [row for row in products if row["k"] == k and row["fast"] is fast and "fitted" in row]
    if not held:
        return "none ran"
    equal = min(row["fitted"]["equal"] for row in held)
    error = max(row["error"] for row in held)
    return f"at least {100 * equal:.1f} % equal to the fitted model; relative error against exact at most {error:.1e}"


def _scales(fitted: Sequence[dict[str, Any]], size: int, part: Part, found: dict[str, Any]) -> None:
    """Scales a tensor and a row, results in bf16 and float32: fitted sum times both scales, rounded once."""
    k = 256
    for rowwise in (False, True):
        for out in (torch.bfloat16, torch.float32):
            for held in fitted:
                told = {"scales": "row" if rowwise else "tensor", "out": str(out).removeprefix("torch."), "k": k}
                told["fast"] = held["fast"]
                try:
                    told |= _scaled(AccumulationModel(**held["model"]), rowwise, out, held["fast"], size, k, part)
                except (RuntimeError, ValueError) as error:
                    told["not_measured"] = said(error)
                found["scales"].append(told)
    part.say(f"scales: {sum('equal' in row for row in found['scales'])} of {len(found['scales'])} ways ran")


def _scaled(
    model: AccumulationModel, rowwise: bool, out: torch.dtype, fast: bool, size: int, k: int, part: Part
) -> dict[str, Any]:
    codes = operands("normal", TYPES[0], SEEN, SEEN, k, seed=7)
    a, b = (repeated(held, size, part.device) for held in codes)
    generator = torch.Generator().manual_seed(8)
    shapes = ((size, 1), (1, size)) if rowwise else ((), ())
    left, right = (torch.exp2(torch.rand(shape, generator=generator)).to(part.device) * 1e-2 for shape in shapes)
    seen = scaled_mm(a, b.t(), left, right, fast, out)[:SEEN, :SEEN]
    sums = matmul(a[:SEEN], b[:SEEN].t(), model)
    if rowwise:
        left, right = left[:SEEN], right[:, :SEEN]
    # Which of the three factors meet first is the library's choice; one of the orders may give its bits.
    orders = {"(a b)": sums * (left * right), "a then b": sums * left * right, "b then a": sums * right * left}
    shares = {name: float((made.to(out) == seen).double().mean()) for name, made in orders.items()}
    best = max(shares, key=lambda name: shares[name])
    # What a search computes: the sum in fp32.
    emulated = (a[:SEEN].float() @ b[:SEEN].float().t() * (left * right)).to(out)
    return {"equal": shares[best], "order": best, "emulation_equal": float((emulated == seen).double().mean())}


def _told(held: Fitted) -> dict[str, Any]:
    return {"model": asdict(held.model), "equal": held.equal, "max_ulp": held.max_ulp}
