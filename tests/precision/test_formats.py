"""Number formats against goldens, ml_dtypes, numpy's casts and the properties of rounding."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precision.formats import FORMATS, Format, dequantize, quantize, round_float32, round_to

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
CODED = [fmt for fmt in FORMATS.values() if fmt.bits <= 16]
WITH_CODES = pytest.mark.parametrize("fmt", CODED, ids=[fmt.name for fmt in CODED])
ORACLES: dict[str, Any] = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
}
PROPERTY = settings(derandomize=True, deadline=None, max_examples=200)
anything = st.floats(allow_nan=False)
formats = st.sampled_from(list(FORMATS.values()))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal values with equal signs of zero; NaN equals NaN."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return bool(np.array_equal(left, right, equal_nan=True)) and bool(
        np.array_equal(np.signbit(left) & ~np.isnan(left), np.signbit(right) & ~np.isnan(right))
    )


def numbers(fmt: Format) -> np.ndarray:
    """All finite values of a format with codes, ascending, one zero."""
    values = dequantize(np.arange(2**fmt.bits), fmt).astype(np.float64)
    values = values[np.isfinite(values) & (np.abs(values) <= fmt.max_value)]
    return np.unique(values)


def golden_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "formats" / f"{name}.json").read_text())
    return content


@ALL
def test_golden_file_is_what_its_generator_makes(fmt: Format) -> None:
    assert golden(fmt.name) == golden_maker().golden(fmt.name)


@ALL
def test_rounds_the_golden_cases(fmt: Format) -> None:
    cases = np.array([[float.fromhex(text) for text in case] for case in golden(fmt.name)["rounding"]])
    assert same(round_to(cases[:, 0], fmt), cases[:, 1])


@WITH_CODES
def test_decodes_the_golden_codes(fmt: Format) -> None:
    content = golden(fmt.name)
    if "codes" in content:
        expected = np.array([float.fromhex(text) for text in content["codes"]])
        assert same(dequantize(np.arange(256), fmt), expected)


@pytest.mark.parametrize("name", ORACLES)
def test_decodes_every_code_as_the_oracle_does(name: str) -> None:
    fmt = FORMATS[name]
    codes = np.arange(2**fmt.bits, dtype=np.uint8 if fmt.bits == 8 else np.uint16)
    assert same(dequantize(codes, fmt), codes.view(ORACLES[name]))


@pytest.mark.parametrize("name", ORACLES)
def test_limits_are_those_of_the_oracle(name: str) -> None:
    limits, fmt = ml_dtypes.finfo(ORACLES[name]), FORMATS[name]
    assert fmt.max_value == float(limits.max)
    assert fmt.min_positive == float(limits.smallest_subnormal)
    assert 2.0**fmt.min_exponent == float(limits.smallest_normal)


def test_limits_of_the_others() -> None:
    assert FORMATS["fp32"].max_value == float(np.finfo(np.float32).max)
    assert FORMATS["tf32"].max_value == (2 - 2.0**-10) * 2.0**127
    assert (FORMATS["int8"].max_value, FORMATS["int8"].min_positive) == (127.0, 1.0)
    assert [fmt.max_exponent for fmt in FORMATS.values()] == [127, 127, 127, 15, 8, 15, 6]


@WITH_CODES
def test_every_code_comes_back(fmt: Format) -> None:
    codes = np.arange(2**fmt.bits)
    values = dequantize(codes, fmt)
    # A saturating format never writes infinity, NaN has one code, and int8 stays symmetric.
    writable = np.isfinite(values) | (np.isinf(values) & (fmt.overflow == "infinity"))
    if fmt.name == "int8":
        writable[0x80] = False
    assert np.array_equal(quantize(values[writable], fmt), codes[writable])
    assert same(round_to(values[writable], fmt), values[writable])


@pytest.mark.parametrize("name", ORACLES)
def test_every_midpoint_and_its_neighbours_as_the_oracle_rounds_them(name: str) -> None:
    fmt = FORMATS[name]
    grid = numbers(fmt)
    grid = np.append(grid, 2 * grid[-1] - grid[-2])  # the value that would follow, for the overflow edge
    middles = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
    inputs = np.concatenate(
        [middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf)), -middles]
    )
    limit = np.float32(fmt.max_value if fmt.overflow == "saturate" else np.inf)
    with np.errstate(over="ignore"):
        expected = np.clip(inputs, -limit, limit).astype(ORACLES[name])
    assert same(round_to(inputs, fmt), expected.astype(np.float32))
    assert same(round_float32(inputs, fmt), expected.astype(np.float32))
    assert np.array_equal(quantize(inputs, fmt), expected.view(np.uint8 if fmt.bits == 8 else np.uint16))


@ALL
def test_overflow_and_specials(fmt: Format) -> None:
    beyond = np.inf if fmt.overflow == "infinity" else fmt.max_value
    inputs = np.array([np.inf, -np.inf, np.finfo(np.float64).max, 0.0, -0.0, -5e-324])
    zero = 0.0 if fmt.name == "int8" else -0.0
    assert same(round_to(inputs, fmt), np.array([beyond, -beyond, beyond, 0.0, zero, zero]))


@ALL
def test_nan_stays_or_is_refused(fmt: Format) -> None:
    signalling = np.array([0x7F800001, 0xFFC00001], np.uint32).view(np.float32)
    if fmt.specials == "none":
        with pytest.raises(ValueError, match=r"int8 has no NaN, got 2 of 2 values"):
            round_to(signalling, fmt)
        with pytest.raises(ValueError, match="has no NaN"):
            round_float32(signalling, fmt)
        return
    for rounded in (round_to(signalling, fmt), round_float32(signalling, fmt)):
        assert rounded.view(np.uint32).tolist() == [0x7FC00000, 0x7FC00000]


def test_nan_codes() -> None:
    codes = {name: int(quantize(np.nan, FORMATS[name])) for name in ORACLES}
    assert codes == {"fp8_e4m3": 0x7F, "fp8_e5m2": 0x7E, "bf16": 0x7FC0, "fp16": 0x7E00}
    assert np.isnan(dequantize(np.array([0x7F, 0xFF]), FORMATS["fp8_e4m3"])).all()


def test_int8_is_symmetric() -> None:
    codes = quantize(np.array([-200.0, -127.5, -1.0, -0.5, 0.5, 1.5, 2.5, 200.0]), FORMATS["int8"])
    assert codes.view(np.int8).tolist() == [-127, -127, -1, 0, 0, 2, 2, 127]
    assert dequantize(np.uint8(0x80), FORMATS["int8"]) == -128.0


@ALL
def test_float32_path_equals_the_definition(fmt: Format) -> None:
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    edges = (np.arange(512, dtype=np.uint32)[:, None] << np.uint32(23)) + np.arange(-40, 40).astype(np.uint32)
    near = rng.normal(scale=fmt.max_value**0.25, size=50_000).astype(np.float32).view(np.uint32)
    values = np.concatenate([patterns, edges.ravel(), near]).view(np.float32)
    if fmt.specials == "none":
        values = values[~np.isnan(values)]
    assert np.array_equal(round_float32(values, fmt).view(np.uint32), round_to(values, fmt).view(np.uint32))


@ALL
def test_types_and_shapes_in_and_out(fmt: Format) -> None:
    assert round_to(np.ones((2, 3), np.float16), fmt).dtype == np.float32
    assert round_to([1, 2], fmt).dtype == np.float64
    assert round_to(np.float32(1), fmt).shape == ()
    assert round_to(np.zeros((0, 4), np.float32), fmt).shape == (0, 4)
    assert round_float32(np.zeros((2, 0), np.float32), fmt).shape == (2, 0)
    values = np.array([1.3, -2.7], np.float32)
    kept = values.copy()
    round_to(values, fmt)
    round_float32(values, fmt)
    assert np.array_equal(values, kept)


@PROPERTY
@given(anything, formats)
def test_rounding_twice_is_rounding_once(value: float, fmt: Format) -> None:
    once = round_to(value, fmt)
    assert same(round_to(once, fmt), once)


@PROPERTY
@given(anything, anything, formats)
def test_rounding_keeps_order(left: float, right: float, fmt: Format) -> None:
    low, high = sorted((left, right))
    assert round_to(low, fmt) <= round_to(high, fmt)


@PROPERTY
@given(anything, formats)
def test_rounding_has_no_side(value: float, fmt: Format) -> None:
    assert round_to(-value, fmt) == -round_to(value, fmt)


@PROPERTY
@given(st.data(), st.sampled_from(CODED))
def test_rounding_finds_the_nearest_value(data: st.DataObject, fmt: Format) -> None:
    value = data.draw(st.floats(-fmt.max_value, fmt.max_value))
    grid = numbers(fmt)
    place = int(np.searchsorted(grid, value))
    around = grid[max(place - 1, 0) : place + 2]
    assert abs(float(round_to(value, fmt)) - value) == np.abs(around - value).min()


@PROPERTY
@given(st.floats(allow_nan=True), st.sampled_from(CODED))
def test_codes_stand_for_the_rounded_value(value: float, fmt: Format) -> None:
    if fmt.specials != "none" or value == value:
        assert same(dequantize(quantize(value, fmt), fmt), round_to(value, fmt))


@PROPERTY
@given(st.integers(-126, 127), formats)
def test_just_below_a_power_of_two(power: int, fmt: Format) -> None:
    """Where a logarithm in floating point finds the wrong exponent."""
    value = np.nextafter(np.float32(2.0**power), np.float32(0))
    beyond = np.inf if fmt.overflow == "infinity" else fmt.max_value
    expected = 2.0**power if 2.0**power <= fmt.max_value else beyond
    if fmt.fraction_bits < 23 and 2.0**power >= 2.0 ** (fmt.min_exponent - fmt.fraction_bits):
        assert round_to(value, fmt) == expected


def test_codes_only_up_to_16_bits() -> None:
    with pytest.raises(ValueError, match="tf32 has 19"):
        quantize(1.0, FORMATS["tf32"])
    with pytest.raises(ValueError, match="fp32 has 32"):
        dequantize(1, FORMATS["fp32"])


def test_bad_codes_and_types_are_refused() -> None:
    with pytest.raises(TypeError, match="must be integers, got float64"):
        dequantize(np.array([1.0]), FORMATS["int8"])
    with pytest.raises(ValueError, match=r"0\.\.255, got -1\.\.3"):
        dequantize(np.array([-1, 3]), FORMATS["int8"])
    with pytest.raises(TypeError, match="must be float32, got float64"):
        round_float32(np.zeros(2), FORMATS["bf16"])


def test_a_format_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match="got 9"):
        Format("odd", 9, 4, 3, bias=7, overflow="saturate", specials="none")
    with pytest.raises(ValueError, match="needs a code for infinity"):
        Format("odd", 8, 4, 3, bias=7, overflow="infinity", specials="nan_only")


def test_precision_loads_no_torch() -> None:
    script = "import sys, precision.formats, precision.blocks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_all_codes_of_a_format_without_specials_are_numbers() -> None:
    fp6 = Format("fp6_e3m2", 6, 3, 2, bias=3, overflow="saturate", specials="none")
    values = dequantize(np.arange(64), fp6)
    # OCP MX v1.0 section 5.3.2: 011111 is the largest, 28, and there is neither infinity nor NaN.
    assert values.max() == fp6.max_value == 28.0
    assert np.isfinite(values).all()
