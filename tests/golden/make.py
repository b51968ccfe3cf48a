"""Make the golden files of number formats again: `python tests/golden/make.py [HOST_NPZ]`.

Nothing here uses the code under test: fp8 and bf16 come from ml_dtypes, fp16 and fp32 from numpy's casts, tf32 and int8
from exact rational arithmetic. HOST_NPZ is the full file of host packer vectors that `host_packer.npz` is cut from (see
`formats/host_packer.md`); without it that file is left alone.
"""

import json
import math
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

FOLDER = Path(__file__).parent / "formats"
HOST_TILES = (2, 4, 5, 6, 7, 20)
CAST: dict[str, Any] = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp32": np.float32,
}
SOURCES = {
    "fp8_e4m3": "OCP OFP8 v1.0 e4m3; ml_dtypes float8_e4m3fn of inputs clipped to +-448 (saturating conversion)",
    "fp8_e5m2": "OCP OFP8 v1.0 e5m2; ml_dtypes float8_e5m2 of inputs clipped to +-57344 (saturating conversion)",
    "bf16": "ml_dtypes bfloat16 of float32 inputs",
    "fp16": "IEEE 754-2019 binary16; numpy float16",
    "fp32": "IEEE 754-2019 binary32; numpy float32 of float64 inputs",
    "tf32": "8 exponent and 10 fraction bits, nearest even, in rational arithmetic",
    "int8": "symmetric -127..127, nearest even, Python's round()",
}


def small_grid(name: str) -> list[float]:
    """All non-negative finite values of a format of 8 bits, ascending."""
    if name == "int8":
        return [float(value) for value in range(128)]
    codes = np.arange(128, dtype=np.uint8).view(CAST[name]).astype(np.float64)
    return [float(value) for value in codes[np.isfinite(codes)]]


def neighbours(name: str) -> list[tuple[float, float]]:
    """Pairs of adjacent non-negative values: all for 8 bits, stretches and a sample for more.

    The last pair straddles the largest value and the one that would follow.
    """
    if name in ("int8", "fp8_e4m3", "fp8_e5m2"):
        values = small_grid(name)
        return list(pairwise([*values, 2 * values[-1] - values[-2]]))
    top, first_normal = {"fp16": (0x7BFF, 0x400), "bf16": (0x7F7F, 0x80)}.get(
        name, (0x3FBFF, 0x400) if name == "tf32" else (0x7F7FFFFF, 0x800000)
    )
    rng = np.random.default_rng(0)
    codes = {*range(12), *range(first_normal - 6, first_normal + 6), *range(top - 12, top)}
    codes |= {
        first_normal * k + d for k in range(2, top // first_normal, max(1, top // first_normal // 24)) for d in (-1, 0)
    }
    codes |= {int(code) for code in rng.integers(0, top, 48)}
    pairs = [(positive(name, code), positive(name, code + 1)) for code in sorted(codes)]
    largest, below = positive(name, top), positive(name, top - 1)
    return [*pairs, (largest, 2 * largest - below)]


def positive(name: str, code: int) -> float:
    """Value of a sign-less bit pattern of a format of more than 8 bits."""
    if name in ("fp16", "bf16"):
        return float(np.array([code], np.uint16).view(CAST[name])[0])
    return float(np.array([code << 13 if name == "tf32" else code], np.uint32).view(np.float32)[0])


def oracle(name: str) -> Callable[[float], float]:
    """Rounding of one number, by someone else's code."""
    if name == "int8":
        return lambda x: float(round(min(max(x, -127.0), 127.0)))
    if name == "tf32":
        return round_tf32
    limit = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}.get(name, math.inf)

    def cast(x: float) -> float:
        with np.errstate(over="ignore"):
            return float(np.clip(np.float64(x), -limit, limit).astype(CAST[name]))

    return cast


def round_tf32(x: float) -> float:
    """Nearest of 8 exponent and 10 fraction bits, ties to even, overflow to infinity."""
    if not math.isfinite(x) or x == 0.0:
        return x
    step = Fraction(2) ** (max(math.frexp(x)[1] - 1, -126) - 10)
    rounded = float(round(Fraction(abs(x)) / step) * step)
    return math.copysign(rounded if rounded < 2.0**128 else math.inf, x)


def rounding_cases(name: str) -> list[list[str]]:
    """[input, expected] as float.hex: values, midpoints and the inputs either side, the overflow edge, specials."""
    inputs = {0.0, math.inf}
    # One below float64: ml_dtypes casts float64 by way of float32, so only float32 inputs see a single rounding.
    kind = np.float64 if name == "fp32" else np.float32
    for low, high in neighbours(name):
        middle = low + (high - low) / 2
        inputs |= {
            low,
            middle,
            float(np.nextafter(kind(middle), kind(0))),
            float(np.nextafter(kind(middle), kind(np.inf))),
        }
    for value in (1e5, 3e38, float(np.finfo(np.float32).max), float(np.finfo(np.float32).smallest_subnormal)):
        inputs.add(float(kind(value)))
    expected = oracle(name)
    cases = [[x.hex(), expected(x).hex()] for value in sorted(inputs) for x in (value, -value)]
    return cases if name == "int8" else [*cases, ["nan", "nan"]]


def golden(name: str) -> dict[str, Any]:
    """Content of one JSON file."""
    content: dict[str, Any] = {"format": name, "source": SOURCES[name]}
    if name == "int8":
        content["codes"] = [float(code).hex() for code in (*range(128), *range(-128, 0))]
    elif name.startswith("fp8"):
        content["codes"] = [float(value).hex() for value in np.arange(256, dtype=np.uint8).view(CAST[name])]
    content["rounding"] = rounding_cases(name)
    return content


def main() -> None:
    """Write every file."""
    for name in SOURCES:
        text = json.dumps(golden(name)).replace("[[", "[\n[").replace("], [", "],\n[").replace("]]", "]\n]")
        (FOLDER / f"{name}.json").write_text(text + "\n")
    if len(sys.argv) > 1:
        with np.load(sys.argv[1]) as full:
            keys = {"in": "in", "bfp8_b": "fp32__bfp8_value", "bfp4_b": "fp32__bfp4_value"}
            cut = {key: full[source][list(HOST_TILES)] for key, source in keys.items()}
        np.savez_compressed(FOLDER / "host_packer.npz", **cut)


if __name__ == "__main__":
    main()
