"""What Tenstorrent cards compute through ttnn 0.81.1, and why not the rest."""

from collections.abc import Mapping
from typing import Literal

from backends.tenstorrent.shards import SHARD_MULTIPLE, TILE, shard_channels
from precision.policy import Lever, Scheme
from precision.site import Site

Architecture = Literal["wormhole", "blackhole"]

FORMATS: tuple[str, ...] = ("bf16", "bfp8_b", "bfp4_b", "fp32")
"""What weights and activations may be stored in; measured on the ttnn 0.81.1 wheel."""
CONV_ACTIVATIONS: tuple[str, ...] = ("bf16", "bfp8_b", "fp32")

_INSTEAD: Mapping[str, str] = {
    "bfp2_b": "ttnn 0.81.1 has no bfp2_b; use bfp4_b",
    "fp8_e4m3": "ttnn 0.81.1 has fp8_e4m3 only in row-major tensors, which no matrix product takes; use bfp8_b",
    "fp8_e5m2": "ttnn 0.81.1 has no fp8_e5m2; use bfp8_b",
    "fp16": "ttnn 0.81.1 has no fp16; use bf16",
    "tf32": "tf32 is a register format, not one of memory; use fp32, which is read as tf32",
    "int8": "ttnn 0.81.1 has no int8 matrix products; use bfp8_b",
    "mxfp8_e4m3": "ttnn 0.81.1 has no mx formats; use bfp8_b",
    "mxfp8_e5m2": "ttnn 0.81.1 has no mx formats; use bfp8_b",
}


def refuses(site: Site, scheme: Scheme, architecture: Architecture) -> str | None:
    """Say why a card cannot run a site under a scheme, and what to do instead; None where it can.

    The weight format and the levers mean nothing at a product of two activations, and are not held against it.
    """
    return (
        _refuses_formats(site, scheme)
        or _refuses_fidelity(scheme, architecture)
        or _refuses_bias(scheme)
        or _refuses_blocks(site, scheme)
        or (_refuses_levers(site, scheme) if site.weight_shape else None)
    )


def _refuses_formats(site: Site, scheme: Scheme) -> str | None:
    operands = {"activation": scheme.activation}
    if site.weight_shape:
        operands["weight"] = scheme.weight
    for operand, fmt in operands.items():
        if fmt not in FORMATS:
            reason = _INSTEAD.get(fmt, f"ttnn 0.81.1 has no {fmt}; use one of {', '.join(FORMATS)}")
            return f"{operand} {fmt}: {reason}"
    if site.op not in ("linear", "matmul") and scheme.activation not in CONV_ACTIVATIONS:
        return f"activation {scheme.activation}: convolutions take {', '.join(CONV_ACTIVATIONS)}; use bfp8_b"
    return None


def _refuses_fidelity(scheme: Scheme, architecture: Architecture) -> str | None:
    if scheme.fidelity is None:
        return "fidelity missing: ttnn's own default changes with the operands; set lofi, hifi2, hifi3 or hifi4"
    if architecture == "wormhole" and scheme.fidelity == "hifi4" and scheme.accumulate == "fp32":
        return "hifi4 with fp32 accumulation: wrong sums on Wormhole (tt-metal #38306); use hifi3"
    return None


def _refuses_bias(scheme: Scheme) -> str | None:
    if scheme.bias_apart and (scheme.activation != "fp32" or scheme.accumulate != "fp32"):
        return (
            "bias_apart: it saves bits of an fp32 result only, and the result is "
            f"{'bf16' if scheme.activation != 'fp32' else 'summed in bf16'} here; drop it, or use activation and"
            " accumulate fp32"
        )
    return None


def _refuses_blocks(site: Site, scheme: Scheme) -> str | None:
    width = scheme.in0_block_w
    if width is None:
        return None
    if width < 1:
        return f"in0_block_w {width}: a block of K has one tile or more; use 1 or more, or leave it out"
    if site.op in ("linear", "matmul"):
        tiles = -(-site.k // TILE)
        if tiles % width:
            return (
                f"in0_block_w {width}: ttnn wants it to divide the tiles of K, {tiles} here (k={site.k});"
                f" use {_largest_divisor(tiles, width)}, or leave it out"
            )
        return None
    rows = site.weight_shape[0] // site.groups if site.op == "conv_transpose1d" else site.weight_shape[1]
    if not shard_channels(site.kernel, rows, width):
        needed = -(-site.kernel * SHARD_MULTIPLE // TILE)
        return (
            f"in0_block_w {width}: a convolution's block holds at least {SHARD_MULTIPLE} channels with all"
            f" {site.kernel} taps; use {needed} or more, or leave it out"
        )
    return None


def _largest_divisor(tiles: int, most: int) -> int:
    return max(width for width in range(1, min(most, tiles) + 1) if tiles % width == 0)


def _refuses_levers(site: Site, scheme: Scheme) -> str | None:
    for lever in scheme.levers:
        reason = _why_not(lever, site, scheme)
        if reason is not None:
            return f"lever {lever}: {reason}"
    return None


def _why_not(lever: Lever, site: Site, scheme: Scheme) -> str | None:
    """Why a lever has nothing to act on at a site with weights, or cannot be had there."""
    blocks = ("bfp8_b", "bfp4_b")
    whole_weight = scheme.weight == "fp32" and scheme.fidelity != "lofi"
    if lever == "fidelity_rounding":
        if scheme.fidelity != "lofi":
            return f"{scheme.fidelity} reads all bits of a weight; drop the lever, or use lofi"
        if scheme.weight == "bfp4_b":
            return "lofi reads all bits of bfp4_b; drop the lever"
    elif lever == "gain_folding":
        if scheme.fidelity in ("hifi3", "hifi4"):
            return f"{scheme.fidelity} cuts nothing and loses no gain; drop the lever"
        if scheme.fidelity == "hifi2" and scheme.activation in blocks:
            return f"hifi2 reads all bits of {scheme.activation} activations; drop the lever"
    elif lever == "error_feedback":
        if whole_weight:
            return f"an fp32 weight in {scheme.fidelity} loses nothing to feed back; drop the lever, or store bfp8_b"
    elif lever == "bias_correction":
        if whole_weight and (scheme.activation in ("fp32", *blocks) or scheme.fidelity != "hifi2"):
            return f"an fp32 weight in {scheme.fidelity} shifts no mean; drop the lever"
    elif lever == "col_tilize":
        if site.op != "linear":
            return f"ttnn prepares the weights of a {site.op} itself, blocks along output channels; drop the lever"
        if scheme.weight not in blocks:
            return f"{scheme.weight} weights share no exponents; drop the lever, or store bfp8_b or bfp4_b"
    elif scheme.weight not in blocks and scheme.activation not in blocks:
        return "neither weight nor activation shares exponents, so order means nothing; drop the lever"
    elif site.feeds is None:
        return "not one site alone reads its channels, so their order is bound; drop the lever there"
    return None
