"""Probes of an FP8 product: operands made so that each result shows one property of how the sum is made.

Every probe is one dot product: row i of a and column i of b, so that one GEMM asks hundreds of questions and its
diagonal answers. What is read off needs no candidate model; where nothing fits, this still says what was seen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from backends.hopper.accumulation import AccumulationModel

Multiply = Callable[[Tensor, Tensor], Tensor]
"""Codes [m, k] and [k, n] to float32 [m, n]."""

LARGE = 10
"""Exponent of the large products; E4M3 times E4M3 spans 2**-18 to 2**16 in powers of two."""
MOST_BITS = LARGE + 16
STEPS_LENGTH = 256
PROMOTION_LENGTH = 2048
PROMOTION_GRAIN = 16
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """What the probes show; None where no probe could tell."""

    fraction_bits: int | None
    """Bits kept below the largest product of a step; None: all that FP8 can ask for, so nothing is cut."""
    rounding: str | None
    """`truncate`, `floor` or `nearest`: what becomes of the bits below."""
    result_bits: int | None
    """Bits of fraction of a step's sum; None: three more than `fraction_bits` at least."""
    cut_one_by_one: bool | None
    """Whether each product is cut by itself, so that many small ones leave nothing."""
    exponents: str | None
    """Whether products are aligned by their operands' exponents or by their own."""
    step: int | None
    """Products summed at once: the length of the stretch that the first product reaches, in order of k."""
    first_group: tuple[int, ...]
    """Places of k that are summed together with the first; without gaps where the order of k is kept."""
    includes_accumulator: bool | None
    """Whether earlier steps' sums are aligned and cut with a step's products."""
    promote_every: int | None
    """Elements of k after which a sum is kept apart in fp32 (a split of k looks the same); None: not within
    `PROMOTION_LENGTH` elements."""

    def told(self) -> dict[str, object]:
        """As JSON holds it."""
        return asdict(self)

    def model(self) -> AccumulationModel | None:
        """The model that the readings make; None where they make none."""
        if None in (self.fraction_bits, self.step, self.includes_accumulator) or self.rounding == "floor":
            return None
        assert self.fraction_bits is not None
        assert self.step is not None
        every = self.promote_every if self.includes_accumulator else None
        if every is not None and every % self.step:
            return None
        return AccumulationModel(
            self.step,
            self.fraction_bits,
            "nearest" if self.rounding == "nearest" else "truncate",
            bool(self.includes_accumulator),
            every,
            "products" if self.exponents == "products" else "operands",
        )


class Asker:
    """Sends dot products to a GEMM and gives their results."""

    def __init__(self, multiply: Multiply, device: torch.device, k: int, size: int) -> None:
        self._multiply = multiply
        self._device = device
        self._k = k
        self._size = size

    def ask(self, probes: Sequence[Mapping[int, float]]) -> list[float]:
        """Results of probes, each a place of k -> the product there; 0 elsewhere."""
        results: list[float] = []
        for first in range(0, len(probes), AT_ONCE):
            part = probes[first : first + AT_ONCE]
            a, b = torch.zeros(2, AT_ONCE, self._k).unbind()
            for row, places in enumerate(part):
                for place, product in places.items():
                    a[row, place], b[row, place] = factors(product)
            made = self._multiply(self._filled(a), self._filled(b).t())
            results += made.diagonal()[: len(part)].cpu().tolist()
        return results

    def _filled(self, operand: Tensor) -> Tensor:
        """Codes with rows of zeros below, on the device."""
        codes = torch.zeros(self._size, self._k, dtype=torch.uint8, device=self._device)
        codes[: len(operand)] = operand.to(torch.float8_e4m3fn).view(torch.uint8).to(self._device)
        return codes.view(torch.float8_e4m3fn)


def factors(product: float) -> tuple[float, float]:
    """Two E4M3 values that make a product; 2.25 * 2**p is made as 1.5 times 1.5 * 2**p.

    Raises:
        ValueError: E4M3 has no such two.
    """
    mantissa, exponent = math.frexp(product)
    odd = 1.5 if abs(mantissa) == 0.5625 else 1.0
    other = 2.0 * mantissa / odd
    exponent -= 1
    left = max(-9, min(8, exponent // 2))
    pair = (odd * 2.0**left, other * 2.0 ** (exponent - left))
    held = torch.tensor(pair).to(torch.float8_e4m3fn).double().tolist()
    if held[0] * held[1] != product:
        raise ValueError(f"{product} is no product of two E4M3 values that this finds")
    return pair


def read_off(multiply: Multiply, device: torch.device, size: int = AT_ONCE) -> Reading:
    """Ask a GEMM all that there is to ask.

    Args:
        multiply: the GEMM.
        device: where it takes its operands.
        size: rows and columns of the operands, `AT_ONCE` or more. A library splits k of small products among many
            multiprocessors, and has no need to where there are tiles enough for all.
    """
    short = Asker(multiply, device, STEPS_LENGTH, size)
    bits = _fraction_bits(short)
    if bits is None:
        return Reading(None, None, None, None, None, None, (), None, None)
    group = _first_group(short, bits)
    step = len(group) if group == tuple(range(len(group))) else None
    return Reading(
        fraction_bits=bits,
        rounding=_rounding(short, bits),
        result_bits=_result_bits(short, bits),
        cut_one_by_one=_cut_one_by_one(short, bits),
        exponents=_exponents(short, bits),
        step=step,
        first_group=group,
        includes_accumulator=_includes_accumulator(short, bits, group),
        promote_every=_promote_every(Asker(multiply, device, PROMOTION_LENGTH, size), bits),
    )


def _large(places: tuple[int, int] = (0, 1), large: float = 2.0**LARGE) -> dict[int, float]:
    """Two large products that cancel: what is left is what became of the small ones beside them."""
    return {places[0]: large, places[1]: -large}


def _fraction_bits(asker: Asker) -> int | None:
    probes = [_large() | {2: 2.0 ** (LARGE - bits)} for bits in range(1, MOST_BITS + 1)]
    kept = [result != 0 for result in asker.ask(probes)]
    return None if all(kept) else kept.index(False)


def _rounding(asker: Asker, bits: int) -> str | None:
    unit = 2.0 ** (LARGE - bits)
    # Below the last bit: 3/4 of it, either sign.
    up, down = (result / unit for result in asker.ask([_large() | {2: 0.75 * unit}, _large() | {2: -0.75 * unit}]))
    return {(0.0, 0.0): "truncate", (0.0, -1.0): "floor", (1.0, -1.0): "nearest"}.get((up, down))


def _result_bits(asker: Asker, bits: int) -> int | None:
    """15 equal products and one small: the sum is three binades up, and must hold the last bit of the small one."""
    large = dict.fromkeys(range(15), 2.0**LARGE)
    probes = [large | {15: 2.0 ** (LARGE - below)} for below in range(1, bits + 1)]
    kept = [result != 15 * 2.0**LARGE for result in asker.ask(probes)]
    return None if all(kept) else kept.index(False) + 3


def _cut_one_by_one(asker: Asker, bits: int) -> bool:
    """Twelve products a quarter of the last bit each: three bits if they are summed before they are cut."""
    (left,) = asker.ask([_large() | dict.fromkeys(range(2, 14), 2.0 ** (LARGE - bits - 2))])
    return left == 0


def _exponents(asker: Asker, bits: int) -> str:
    """2.25 is 1.5 * 1.5, of exponents 0 and 0, and has an exponent of 1 itself, which leaves a bit less below."""
    (left,) = asker.ask([_large(large=2.25 * 2.0**LARGE) | {2: 2.0 ** (LARGE - bits)}])
    return "operands" if left else "products"


def _first_group(asker: Asker, bits: int) -> tuple[int, ...]:
    """Places whose small product is cut by the large pair at the first two."""
    small = 2.0 ** (LARGE - bits - 2)
    results = asker.ask([_large() | {place: small} for place in range(2, STEPS_LENGTH)])
    return (0, 1, *(place for place, result in enumerate(results, 2) if result == 0))


def _includes_accumulator(asker: Asker, bits: int, group: tuple[int, ...]) -> bool | None:
    """A small product in the first step, and a pair that cancels in a later one."""
    later = [place for place in range(STEPS_LENGTH - 1) if place not in group and place + 1 not in group]
    if not later:
        return None
    # The pair must be within one step: it is where a small product beside it is cut as well.
    small = 2.0 ** (LARGE - bits - 2)
    place = next((p for p in later if p % 2 == 0), later[0])
    before, beside = asker.ask(
        [_large((place, place + 1)) | {0: small}, _large((place, place + 1)) | {place + 2: small}]
    )
    return None if beside != 0 else before == 0


def _promote_every(asker: Asker, bits: int) -> int | None:
    """A large product first and its opposite last: between, a small one stays only where the large one is put aside.

    Of all but the first step's, if sums of steps are not aligned at all; the first place that stays says it.
    """
    small = 2.0 ** (LARGE - bits - 2)
    places = range(PROMOTION_GRAIN, PROMOTION_LENGTH - PROMOTION_GRAIN, PROMOTION_GRAIN)
    ends = {0: 2.0**LARGE, PROMOTION_LENGTH - 1: -(2.0**LARGE)}
    results = asker.ask([ends | {place: small} for place in places])
    return next((place for place, result in zip(places, results, strict=True) if result != 0), None)
