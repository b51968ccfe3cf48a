"""Format: which values one stored element may hold, and the one definition of rounding to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Overflow = Literal["saturate", "infinity"]
"""What a magnitude beyond the largest value becomes after rounding: that value (so does infinity), or infinity."""
Specials = Literal["infinity_and_nan", "nan_only", "none"]
"""`infinity_and_nan`: the highest exponent field is theirs (IEEE 754). `nan_only`: the code of all ones is NaN and
nothing else is special (OCP e4m3). `none`: every code is a number."""


@dataclass(frozen=True, slots=True)
class Format:
    """A grid of values `sign * n * 2**(exponent - fraction_bits)` with `n < 2**(fraction_bits + 1)`.

    An integer format is the same grid without an exponent field: every value is a subnormal of the only exponent.
    """

    name: str
    bits: int
    exponent_bits: int
    fraction_bits: int
    bias: int
    overflow: Overflow
    specials: Specials
    """NaN stays NaN (positive and quiet: sign and payload are lost); a format without NaN refuses it."""
    ties: Literal["even"] = "even"
    """Halfway cases go to the neighbour with the even code."""
    subnormals: Literal["kept"] = "kept"
    """Values below the smallest normal are rounded to its step, not flushed."""
    encoding: Literal["sign_magnitude", "twos_complement"] = "sign_magnitude"
    """Codes of negative values; two's complement has no negative zero, so -0 becomes +0."""

    def __post_init__(self) -> None:
        """Refuse fields that do not add up."""
        if self.bits != 1 + self.exponent_bits + self.fraction_bits:
            raise ValueError(
                f"{self.name}: bits must be 1 + {self.exponent_bits} of exponent + {self.fraction_bits} of fraction,"
                f" got {self.bits}"
            )
        if self.overflow == "infinity" and self.specials != "infinity_and_nan":
            raise ValueError(
                f"{self.name}: overflow to infinity needs a code for infinity, got specials={self.specials!r}"
            )

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value, and of all subnormals."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite value."""
        if self.exponent_bits == 0:
            return self.min_exponent - 1
        fields = 1 << self.exponent_bits
        return fields - (2 if self.specials == "infinity_and_nan" else 1) - self.bias

    @property
    def max_value(self) -> float:
        """Largest finite value."""
        step = 2.0 ** (max(self.max_exponent, self.min_exponent) - self.fraction_bits)
        digits = self.fraction_bits + (self.exponent_bits > 0)
        largest = (1 << digits) - (2 if self.specials == "nan_only" else 1)
        return largest * step

    @property
    def min_positive(self) -> float:
        """Smallest value above zero."""
        return 2.0 ** (self.min_exponent - self.fraction_bits)

    @property
    def stored_bits(self) -> float:
        """Bits an element takes in memory: tf32 lives in 32-bit words."""
        return 32.0 if self.bits > 16 else float(self.bits)


# Sources. fp32, fp16: IEEE 754-2019 table 3.5. bf16: fp32 cut to 16 bits. tf32: NVIDIA A100 whitepaper (2020); units
# that truncate to it say so in their own arithmetic. fp8: OCP OFP8 v1.0 tables 1 and 2 with saturating conversion, as
# TensorRT and Transformer Engine have it. int8: symmetric, -127..127, so that negation is exact; the code 0x80 is never
# written and reads as -128.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        row.name: row
        for row in (
            Format("fp32", 32, 8, 23, bias=127, overflow="infinity", specials="infinity_and_nan"),
            Format("tf32", 19, 8, 10, bias=127, overflow="infinity", specials="infinity_and_nan"),
            Format("bf16", 16, 8, 7, bias=127, overflow="infinity", specials="infinity_and_nan"),
            Format("fp16", 16, 5, 10, bias=15, overflow="infinity", specials="infinity_and_nan"),
            Format("fp8_e4m3", 8, 4, 3, bias=7, overflow="saturate", specials="nan_only"),
            Format("fp8_e5m2", 8, 5, 2, bias=15, overflow="saturate", specials="infinity_and_nan"),
            Format("int8", 8, 0, 7, bias=-6, overflow="saturate", specials="none", encoding="twos_complement"),
        )
    }
)


def round_to(values: ArrayLike, fmt: Format) -> NDArray[np.floating[Any]]:
    """Round to the nearest value of a format, ties to even; this is the definition every other path is held against.

    Args:
        values: any shape, in units of the format's own grid (scales are the caller's). float16 and float32 give
            float32, all else is taken as float64 and gives float64; one rounding, from the exact input.
        fmt: says what overflow, infinity, NaN, subnormals and -0 become.

    Returns:
        Values of the grid, in the shape of `values`.

    Raises:
        ValueError: NaN in values for a format that has none.
    """
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):  # widening a signalling NaN raises the flag
        exact = given.astype(np.float64)
    _refuse_nan(exact, fmt)
    # Twice the largest value overflows like anything above it, and keeps ldexp inside float64.
    magnitude = np.minimum(np.abs(exact), 2.0 * fmt.max_value)
    _, exponent = np.frexp(magnitude)  # magnitude = m * 2**exponent, 0.5 <= m < 1
    step = np.maximum(exponent - 1, fmt.min_exponent) - fmt.fraction_bits
    rounded = np.ldexp(np.rint(np.ldexp(magnitude, -step)), step)
    dtype = np.float32 if given.dtype in (np.float16, np.float32) else np.float64
    return _finish(rounded, exact, fmt).astype(dtype)


def round_float32(values: NDArray[np.float32], fmt: Format) -> NDArray[np.float32]:
    """`round_to` for float32 arrays by bits and float32 additions: the same results, several times faster.

    Raises:
        TypeError: values are not float32.
        ValueError: NaN in values for a format that has none.
    """
    if values.dtype != np.float32:
        raise TypeError(f"values must be float32, got {values.dtype}; use round_to")
    _refuse_nan(values, fmt)
    dropped = 23 - fmt.fraction_bits
    rounded: NDArray[np.float32]
    if dropped == 0:
        rounded = np.abs(values)
    elif fmt.exponent_bits == 8:
        # Same exponents as float32, subnormals included: add just under half, one more if the kept part is odd.
        bits = np.abs(values).view(np.uint32)
        odd = (bits >> np.uint32(dropped)) & np.uint32(1)
        bits = (bits + odd + np.uint32(2 ** (dropped - 1) - 1)) & np.uint32(2**32 - 2**dropped)
        rounded = bits.view(np.float32)
    else:
        # Adding 2**23 steps pushes everything below one step out of the sum; float32 addition rounds it to even.
        magnitude = np.minimum(np.abs(values), np.float32(2.0 * fmt.max_value))
        power = np.maximum(magnitude.view(np.uint32) & np.uint32(0x7F800000), np.uint32((fmt.min_exponent + 127) << 23))
        shifter = (power + np.uint32(dropped << 23)).view(np.float32)
        with np.errstate(invalid="ignore"):
            rounded = (magnitude + shifter) - shifter
    return _finish(rounded, values, fmt)


def quantize(values: ArrayLike, fmt: Format) -> NDArray[np.unsignedinteger[Any]]:
    """Round and encode.

    Args:
        values: any shape; rounded as `round_to` does.
        fmt: of up to 16 bits.

    Returns:
        Bit patterns in the shape of `values`: uint8 for formats of 8 bits, uint16 above. NaN is the positive quiet one
        (e4m3 0x7F, e5m2 0x7E, bf16 0x7FC0, fp16 0x7E00). int8 codes are two's complement: `.view(np.int8)`.

    Raises:
        ValueError: the format has more than 16 bits, or no NaN while values have one.
    """
    _refuse_wide(fmt)
    rounded = round_to(values, fmt).astype(np.float64)
    magnitude = np.abs(rounded)
    finite = np.isfinite(magnitude)
    _, exponent = np.frexp(magnitude)
    above = np.where(finite & (magnitude > 0), np.maximum(exponent - 1 - fmt.min_exponent, 0), 0)
    significand = np.ldexp(np.where(finite, magnitude, 0.0), fmt.fraction_bits - fmt.min_exponent - above)
    # The leading one of a normal significand carries into the exponent field, so a subnormal needs no case of its own.
    codes = significand.astype(np.int64) + (above.astype(np.int64) << fmt.fraction_bits)
    infinity = (2**fmt.exponent_bits - 1) << fmt.fraction_bits
    nan = infinity + (2 ** (fmt.fraction_bits - 1) if fmt.specials == "infinity_and_nan" else 2**fmt.fraction_bits - 1)
    codes = np.where(np.isinf(magnitude), infinity, codes)
    codes = np.where(np.isnan(magnitude), nan, codes)
    negative = np.signbit(rounded)
    if fmt.encoding == "twos_complement":
        codes = np.where(negative, -codes, codes) % 2**fmt.bits
    else:
        codes = codes + (negative.astype(np.int64) << (fmt.bits - 1))
    unsigned: NDArray[np.unsignedinteger[Any]] = codes.astype(np.uint8 if fmt.bits <= 8 else np.uint16)
    return unsigned


def dequantize(codes: ArrayLike, fmt: Format) -> NDArray[np.float32]:
    """Decode bit patterns, exactly.

    Args:
        codes: integers of any shape, from 0 to 2**bits - 1; every code has a value, NaN and infinity included.
        fmt: of up to 16 bits.

    Raises:
        TypeError: codes are not integers.
        ValueError: the format has more than 16 bits, or a code lies outside its range.
    """
    _refuse_wide(fmt)
    given = np.asarray(codes)
    if not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"codes must be integers, got {given.dtype}; quantize makes them")
    if given.size and (int(given.min()) < 0 or int(given.max()) >= 2**fmt.bits):
        raise ValueError(
            f"{fmt.name} codes must lie in 0..{2**fmt.bits - 1}, got {given.min()}..{given.max()};"
            " view signed codes as unsigned"
        )
    patterns = given.astype(np.int64)
    negative = patterns >> (fmt.bits - 1) == 1
    if fmt.encoding == "twos_complement":
        patterns = np.where(negative, 2**fmt.bits - patterns, patterns)
        return np.where(negative, -patterns, patterns).astype(np.float32)
    patterns = patterns & (2 ** (fmt.bits - 1) - 1)
    field, fraction = patterns >> fmt.fraction_bits, patterns & (2**fmt.fraction_bits - 1)
    significand = fraction + np.where(field > 0, 2**fmt.fraction_bits, 0)
    step = np.maximum(field, 1) - fmt.bias - fmt.fraction_bits
    values = np.ldexp(significand.astype(np.float64), step)
    top = field == 2**fmt.exponent_bits - 1
    if fmt.specials == "infinity_and_nan":
        values = np.where(top, np.where(fraction == 0, np.inf, np.nan), values)
    elif fmt.specials == "nan_only":
        values = np.where(top & (fraction == 2**fmt.fraction_bits - 1), np.nan, values)
    return np.where(negative & ~np.isnan(values), -values, values).astype(np.float32)


def _finish(rounded: NDArray[Any], exact: NDArray[Any], fmt: Format) -> NDArray[Any]:
    """Overflow, sign and NaN of rounded magnitudes; `exact` is what was rounded."""
    number = rounded.dtype.type
    beyond = number(fmt.max_value if fmt.overflow == "saturate" else np.inf)
    signed = np.copysign(np.where(rounded > number(fmt.max_value), beyond, rounded), exact)
    if fmt.encoding == "twos_complement":
        signed = signed + number(0)  # -0 + 0 = +0
    return np.where(np.isnan(exact), number(np.nan), signed)


def _refuse_nan(values: NDArray[Any], fmt: Format) -> None:
    if fmt.specials == "none" and bool(np.isnan(values).any()):
        count = int(np.isnan(values).sum())
        raise ValueError(f"{fmt.name} has no NaN, got {count} of {values.size} values; find where they come from first")


def _refuse_wide(fmt: Format) -> None:
    if fmt.bits > 16:
        raise ValueError(f"codes are for formats of up to 16 bits, {fmt.name} has {fmt.bits}; use round_to")
