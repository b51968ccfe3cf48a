"""Operands to multiply: random ones, and such as make a sum lose most."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from backends.hopper.numerics import FP8_TYPES, fp8_scale, quantize_fp8

Pair = tuple[Tensor, Tensor]


def operands(kind: str, types: tuple[str, str], m: int, n: int, k: int, seed: int) -> Pair:
    """Codes [m, k] and [n, k], the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    a, b = KINDS[kind](m, n, k, generator)
    made = []
    for values, fmt in zip((a, b), types, strict=True):
        # Kinds that are not made of powers of two take the range of their format.
        scale = fp8_scale(values.abs().amax(), fmt) if kind == "normal" else torch.tensor(1.0)
        made.append(quantize_fp8(values, scale, fmt))
    return made[0], made[1]


def _normal(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    return torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)


def _codes(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    """Any finite code as likely as any other: products over all of the range."""
    finite = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(torch.float8_e4m3fn).float()
    finite = finite[finite.isfinite()]
    picks = [torch.randint(len(finite), (rows, k), generator=generator) for rows in (m, n)]
    return finite[picks[0]], finite[picks[1]]


def _one_large(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    """One product far above all others, at another place in every row."""
    a, b = (1 + torch.rand(rows, k, generator=generator) for rows in (m, n))
    a, b = a * 2.0**-4, b * 2.0**-3
    places = torch.randint(k, (m,), generator=generator)
    a[torch.arange(m), places] = 256.0
    return a, b


def _cancelling(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    """Large products in pairs of opposite sign, shuffled, and small ones between: what is left is the small ones."""
    half = (k - k // 4) // 2
    large = 64 * (1 + torch.rand(m, half, generator=generator))
    small = torch.randn(m, k - 2 * half, generator=generator) * 2.0**-4
    order = torch.randperm(k, generator=generator)
    a = torch.cat([large, -large, small], 1)[:, order]
    columns = 1 + torch.rand(n, half, generator=generator)
    rest = 1 + torch.rand(n, k - 2 * half, generator=generator)
    return a, torch.cat([columns, columns, rest], 1)[:, order]


def _alternating(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    """Signs in turn, and magnitudes that fall over k: early sums are large, late products small."""
    signs = 1 - 2 * (torch.arange(k) % 2)
    fall = torch.exp2(-12.0 * torch.arange(k) / k)
    a, b = (1 + torch.rand(rows, k, generator=generator) for rows in (m, n))
    return 128 * a * signs * fall, b


def _rising(m: int, n: int, k: int, generator: torch.Generator) -> Pair:
    """All positive, rising over k."""
    rise = torch.exp2(12.0 * torch.arange(k) / k - 12)
    a, b = (1 + torch.rand(rows, k, generator=generator) for rows in (m, n))
    return 128 * a * rise, b


KINDS: Mapping[str, Callable[[int, int, int, torch.Generator], Pair]] = {
    "normal": _normal,
    "codes": _codes,
    "one_large": _one_large,
    "cancelling": _cancelling,
    "alternating": _alternating,
    "rising": _rising,
}
TYPES = (("fp8_e4m3", "fp8_e4m3"), ("fp8_e4m3", "fp8_e5m2"), ("fp8_e5m2", "fp8_e4m3"))
assert set(FP8_TYPES) == {fmt for pair in TYPES for fmt in pair}
