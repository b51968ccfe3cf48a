"""BlockFormat: neighbouring values that share one 8-bit exponent (Tenstorrent's bfp, OCP's mx)."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precision.formats import FORMATS, Format, round_to

ScaleRule = Literal["max_exponent_field", "floor_minus_element_max"]
"""`max_exponent_field`: the largest float32 exponent field of the block, never raised by rounding.
`floor_minus_element_max`: floor(log2(amax)) minus the exponent of the element's largest value, held to -127..127 (E8M0,
OCP MX v1.0 section 6.3); the largest elements may saturate."""

ElementRounding = Literal["truncated_alignment_then_even", "even"]
"""`truncated_alignment_then_even`: the 24-bit significand is shifted to the shared exponent first, and what falls off
is lost without a trace; then nearest, ties to even. `even`: one rounding of the exact quotient."""

_BFP_ROUNDING: ElementRounding = "truncated_alignment_then_even"


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Blocks of neighbours along one axis: a shared exponent, and an element each.

    A short last block is filled up with zeros, which change no value.
    """

    name: str
    element: Format | int
    """A Format, or the bits of a magnitude with its sign beside it (no hidden one)."""
    block_size: int
    scale_rule: ScaleRule
    scale_bits: Literal[8] = 8
    element_rounding: ElementRounding = "even"
    overflow: Literal["saturate"] = "saturate"

    def __post_init__(self) -> None:
        """Refuse rules that are not those of the element's kind, so that no field says what is not done."""
        bare = isinstance(self.element, int)
        wanted = ("max_exponent_field", _BFP_ROUNDING) if bare else ("floor_minus_element_max", "even")
        if (self.scale_rule, self.element_rounding) != wanted:
            raise ValueError(
                f"{self.name}: a {'bare magnitude' if bare else 'Format'} as element goes with {wanted},"
                f" got {(self.scale_rule, self.element_rounding)}"
            )
        if self.block_size < 1:
            raise ValueError(f"{self.name}: block_size must be at least 1, got {self.block_size}")

    @property
    def element_bits(self) -> int:
        """Bits of one element, its sign included."""
        return 1 + self.element if isinstance(self.element, int) else self.element.bits

    @property
    def stored_bits(self) -> float:
        """Bits an element takes in memory, its part of the shared exponent included."""
        return self.element_bits + self.scale_bits / self.block_size


# Sources. bfp: the host packer of ttnn 0.81.1 (which packs weights), measured; the card's own packer, for activations,
# rounds otherwise and lives with its arithmetic. ttnn 0.81.1 has no bfp2_b: its rule here is bfp8_b's with one bit of
# magnitude, held against nothing. mx: OCP MX v1.0 sections 5.2 and 6.3.
BLOCK_FORMATS: Mapping[str, BlockFormat] = MappingProxyType(
    {
        row.name: row
        for row in (
            BlockFormat("bfp8_b", 7, 16, "max_exponent_field", element_rounding=_BFP_ROUNDING),
            BlockFormat("bfp4_b", 3, 16, "max_exponent_field", element_rounding=_BFP_ROUNDING),
            BlockFormat("bfp2_b", 1, 16, "max_exponent_field", element_rounding=_BFP_ROUNDING),
            BlockFormat("mxfp8_e4m3", FORMATS["fp8_e4m3"], 32, "floor_minus_element_max"),
            BlockFormat("mxfp8_e5m2", FORMATS["fp8_e5m2"], 32, "floor_minus_element_max"),
        )
    }
)


def known_formats() -> tuple[str, ...]:
    """Names of all formats, the shared-exponent ones last."""
    return (*FORMATS, *BLOCK_FORMATS)


def format_named(name: str) -> Format | BlockFormat:
    """Look a format up.

    Raises:
        ValueError: there is none of that name; the message has the nearest one and all others.
    """
    found = FORMATS.get(name) or BLOCK_FORMATS.get(name)
    if found is None:
        nearest = get_close_matches(name, known_formats(), n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown format {name!r}; nearest is {nearest!r}, known are {', '.join(known_formats())}")
    return found


def stored_bits(name: str) -> float:
    """Bits an element takes in memory, its part of a shared exponent included: bfp8_b 8.5, mxfp8_e4m3 8.25.

    Raises:
        ValueError: unknown name.
    """
    return format_named(name).stored_bits


def round_blocks(values: ArrayLike, fmt: BlockFormat, axis: int) -> NDArray[np.floating[Any]]:
    """Round to what a shared-exponent format can hold; every block is rounded as `round_block` defines.

    Args:
        values: any shape of one axis or more. float16 and float32 give float32, all else float64.
        fmt: the block format.
        axis: along which neighbours share an exponent, counted from index 0; the last block may be short.

    Returns:
        The values that the stored blocks stand for, in the shape of `values`.

    Raises:
        ValueError: values have no axis, or not that one.
    """
    given = np.asarray(values)
    if given.ndim == 0:
        raise ValueError("blocks need an axis to lie along, got a single number; give an array")
    last = np.moveaxis(given, axis, -1)
    length = last.shape[-1]
    count = -(-length // fmt.block_size)
    padded = np.pad(last, [(0, 0)] * (given.ndim - 1) + [(0, count * fmt.block_size - length)])
    blocks = padded.reshape(-1, fmt.block_size)
    if isinstance(fmt.element, int):
        rounded = _round_bfp(_as_float32(blocks), fmt.element)
    else:
        rounded = _round_mx(blocks, fmt.element)
    rounded = rounded.reshape(padded.shape)[..., :length]
    dtype = np.float32 if given.dtype in (np.float16, np.float32) else np.float64
    return np.ascontiguousarray(np.moveaxis(rounded, -1, axis), dtype=dtype)


def round_block(values: ArrayLike, fmt: BlockFormat) -> list[float]:
    """The definition: round the values of one block, given as a list.

    With magnitude bits W (bfp): values are taken as float32 (rounded to nearest where they are not). Subnormals count
    as zero, -0 becomes +0. The exponent field 255 is an ordinary one: a block with infinity or NaN keeps those, pulls
    everything else towards 0, and drops NaN payloads; NaN with its kept fraction bits all zero reads back as infinity.

    With a Format (mx): a block of zeros has the smallest scale. Infinity or NaN anywhere makes the scale NaN and with
    it the whole block, so that it cannot pass unseen (the specification leaves infinity open).

    Raises:
        ValueError: values are none, or more than a block.
    """
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not 1 <= numbers.size <= fmt.block_size:
        raise ValueError(f"one block of {fmt.name} has 1 to {fmt.block_size} values, got an array {numbers.shape}")
    if isinstance(fmt.element, int):
        return _define_bfp([int(pattern) for pattern in _as_float32(numbers).view(np.uint32)], fmt.element)
    return _define_mx([float(value) for value in numbers], fmt.element)


def _define_bfp(patterns: list[int], width: int) -> list[float]:
    fields = [pattern >> 23 & 255 for pattern in patterns]
    shared = max(fields)
    rounded = []
    for pattern, field in zip(patterns, fields, strict=True):
        significand = 2**23 + pattern % 2**23 if field > 0 else 0
        kept, lost = divmod(significand >> (shared - field), 2 ** (24 - width))
        half = 2 ** (23 - width)
        if lost > half or (lost == half and kept % 2 == 1):
            kept += 1
        kept = min(kept, 2**width - 1)
        top = 2 ** (width - 1)
        if shared == 255 and kept >= top:
            value = float("inf") if kept == top else float("nan")
        else:
            value = kept / top * 2.0 ** (shared - 127)
        rounded.append(-value if pattern >> 31 and kept else value)
    return rounded


def _define_mx(values: list[float], element: Format) -> list[float]:
    if not np.isfinite(values).all():
        return [float("nan")] * len(values)
    amax = max(abs(value) for value in values)
    floor = int(np.frexp(amax)[1]) - 1 if amax else -127
    exponent = min(max(floor - element.max_exponent, -127), 127)
    return [float(round_to(value * 2.0**-exponent, element)) * 2.0**exponent for value in values]


def _round_bfp(blocks: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """`_define_bfp` for an array [blocks, block_size]."""
    patterns = blocks.view(np.uint32)
    fields = (patterns >> np.uint32(23) & np.uint32(255)).astype(np.int32)
    shared = fields.max(axis=1, keepdims=True, initial=0)
    significand = np.where(fields > 0, (patterns & np.uint32(0x7FFFFF) | np.uint32(0x800000)).astype(np.int32), 0)
    aligned = significand >> np.minimum(shared - fields, 31)
    dropped = 24 - width
    odd = aligned >> dropped & 1
    kept = np.minimum((aligned + (1 << (dropped - 1)) - 1 + odd) >> dropped, (1 << width) - 1)
    magnitude = np.ldexp(kept.astype(np.float64), shared - 127 - (width - 1))
    top = 1 << (width - 1)
    special = (shared == 255) & (kept >= top)
    if special.any():
        magnitude = np.where(special, np.where(kept == top, np.inf, np.nan), magnitude)
    negative = (patterns >> np.uint32(31) == 1) & (kept > 0)
    return np.where(negative, -magnitude, magnitude).astype(np.float32)


def _round_mx(blocks: NDArray[Any], element: Format) -> NDArray[Any]:
    """`_define_mx` for an array [blocks, block_size]."""
    with np.errstate(invalid="ignore"):  # widening a signalling NaN raises the flag
        exact = blocks.astype(np.float64)
    amax = np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
    _, exponent = np.frexp(amax)
    floor = np.where(amax > 0, exponent - 1, -127)
    scale = np.clip(floor - element.max_exponent, -127, 127)
    rounded = np.ldexp(round_to(np.ldexp(exact, -scale), element), scale)
    return np.where(np.isfinite(amax), rounded, np.nan)


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinity, as the packer would see it
        return np.ascontiguousarray(values).astype(np.float32)
