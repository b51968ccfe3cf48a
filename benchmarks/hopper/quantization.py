"""Our quantization on a card against the same on its host, bit for bit; and the Triton kernel against both."""

from typing import Any

import torch
from hopper.machine import Part
from torch import Tensor

from backends.hopper.fake_quantization import fake_quantize_dynamic, quantize, why_no_triton
from backends.hopper.numerics import FP8_TYPES, fp8_scale, quantize_fp8

RANDOM = 1 << 18


def compared(part: Part) -> dict[str, Any]:
    """Share of equal bits by format and way; on a CPU only what Triton has to be compared with."""
    if not part.on_card:
        return {"not_measured": "no CUDA device: the card's bits would be the host's own"}
    found: dict[str, Any] = {}
    host = _values()
    card = host.to(part.device)
    for fmt in FP8_TYPES:
        scale = torch.tensor(0.37)
        channels = torch.exp2(torch.linspace(-8, 8, 256))[:, None]
        amax = torch.rand(1 << 14, generator=torch.Generator().manual_seed(3)) * 100
        ours = {
            "scale of a tensor": (quantize_fp8(host, scale, fmt), quantize_fp8(card, scale.to(part.device), fmt)),
            "scale as a number": (quantize_fp8(host, 0.37, fmt), quantize_fp8(card, 0.37, fmt)),
            "scales of channels": (
                quantize_fp8(host.view(256, -1), channels, fmt),
                quantize_fp8(card.view(256, -1), channels.to(part.device), fmt),
            ),
            "scale from amax": (fp8_scale(amax, fmt), fp8_scale(amax.to(part.device), fmt)),
            "dynamic": (fake_quantize_dynamic(host[:RANDOM], fmt), fake_quantize_dynamic(card[:RANDOM], fmt)),
        }
        found[fmt] = {name: equal(*pair) for name, pair in ours.items()}
        why = why_no_triton(part.device)
        if why is None:
            made = quantize(card, scale.to(part.device), fmt, "triton")
            found[fmt]["Triton, static"] = equal(quantize_fp8(host, scale, fmt), made)
            dynamic = fake_quantize_dynamic(card[:RANDOM], fmt, "triton")
            found[fmt]["Triton, dynamic"] = equal(fake_quantize_dynamic(host[:RANDOM], fmt), dynamic)
        else:
            found[fmt]["Triton"] = {"not_measured": why}
        told = ", ".join(
            f"{name} {100 * share:.4g} %" for name, share in found[fmt].items() if isinstance(share, float)
        )
        part.say(f"quantization {fmt}, bits equal to the host's: {told}")
    return found


def _values() -> Tensor:
    """Random values of all magnitudes, then every bf16 value, and its neighbours in float32: ties, NaN and Inf too."""
    generator = torch.Generator().manual_seed(2)
    wide = torch.randn(RANDOM, generator=generator) * torch.exp2(
        torch.randint(-20, 20, (RANDOM,), generator=generator).float()
    )
    bits = torch.arange(1 << 16, dtype=torch.int64) << 16
    near = [((bits + offset) & 0xFFFFFFFF).to(torch.uint32).view(torch.float32) for offset in (0, 1, 0xFFFF)]
    return torch.cat([wide, *near, wide[: 1 << 16]])


def equal(host: Tensor, card: Tensor) -> float:
    """Share of values whose bits are the same; NaN equals NaN."""
    kind = torch.uint8 if host.element_size() == 1 else torch.int32
    back = card.cpu()
    same = (host.view(kind) == back.view(kind)) | (host.float().isnan() & back.float().isnan())
    return float(same.double().mean())
