"""What Tenstorrent cards compute through ttnn 0.81.1, and why not the rest."""

from backends.tenstorrent.cards import CARDS, Card
from backends.tenstorrent.conv_geometry import Convolution, convolution_shards
from backends.tenstorrent.geometry import GeometryError, Product, budget, largest_width, product_bytes, tiles
from backends.tenstorrent.library import FORMATS, INSTEAD, OPERATIONS, WRONG_SUMS, Architecture
from backends.tenstorrent.shards import SHARD_MULTIPLE, TILE, shard_channels
from precision.policy import Lever, Scheme
from precision.site import Site

__all__ = ["Architecture", "card_of", "refuses", "refuses_vector"]
SHARED = ("bfp8_b", "bfp4_b")
"""Formats whose blocks share an exponent."""


def refuses(site: Site, scheme: Scheme, architecture: Architecture, *, streaming: bool = False) -> str | None:
    """Say why a card cannot run a site under a scheme, and what to do instead; None where it can.

    The weight format and the levers mean nothing at a product of two activations, and are not held against it.

    Args:
        site: of a model.
        scheme: what is asked of it.
        architecture: of the card; its cards are alike in what is refused.
        streaming: whether the site runs once a chunk, and must give what it would on the whole.
    """
    return (
        _refuses_formats(site, scheme)
        or _refuses_fidelity(scheme, architecture)
        or _refuses_bias(scheme)
        or _refuses_blocks(site, scheme)
        or (_refuses_levers(site, scheme) if site.weight_shape else None)
        or _refuses_room(site, scheme, card_of(architecture))
        or (_refuses_streaming(site, scheme) if streaming else None)
    )


def refuses_vector(op: str, dtype: str) -> str | None:
    """Say why an operation that is no site must not be done in a type, and what to use; None where it may.

    Args:
        op: of a card step, as "sin"; KeyError where the table has no row for it.
        dtype: of its input, as "bf16".
    """
    row = OPERATIONS[op]
    if dtype in row.refused:
        return f"{op} in {dtype}: {row.refused[dtype]}"
    if dtype not in row.takes:
        return f"{op} in {dtype}: ttnn 0.81.1 takes {', '.join(row.allowed)}"
    return None


def card_of(architecture: Architecture) -> Card:
    """The card that an architecture's refusals are about."""
    return next(card for card in CARDS.values() if card.architecture == architecture)


def _refuses_formats(site: Site, scheme: Scheme) -> str | None:
    operands = {"activation": scheme.activation}
    if site.weight_shape:
        operands["weight"] = scheme.weight
    for operand, fmt in operands.items():
        if fmt not in FORMATS:
            reason = INSTEAD.get(fmt, f"ttnn 0.81.1 has no {fmt}; use one of {', '.join(FORMATS)}")
            return f"{operand} {fmt}: {reason}"
    refused = OPERATIONS[site.op].refused
    if scheme.activation in refused:
        return f"activation {scheme.activation}: {refused[scheme.activation]}"
    return None


def _refuses_fidelity(scheme: Scheme, architecture: Architecture) -> str | None:
    if scheme.fidelity is None:
        return "fidelity missing: ttnn's own default changes with the operands; set lofi, hifi2, hifi3 or hifi4"
    asked = (architecture, scheme.fidelity, scheme.accumulate)
    wrong = (sums.reason for sums in WRONG_SUMS if (sums.architecture, sums.fidelity, sums.accumulate) == asked)
    return next(wrong, None)


def _refuses_room(site: Site, scheme: Scheme, card: Card) -> str | None:
    """L1: what a block of K takes of a core's at the least, and shards that ttnn does not make."""
    result = "fp32" if scheme.activation == "fp32" else "bf16"
    wide = scheme.accumulate == "fp32"
    if site.op not in ("linear", "matmul"):
        transposed = site.op == "conv_transpose1d"
        by_group = site.weight_shape[:2][:: -1 if transposed else 1]  # [out, in], one of the two of a group only
        convolution = Convolution(
            taps=site.kernel,
            in_channels=by_group[1] * (1 if transposed else site.groups),
            out_channels=by_group[0] * (site.groups if transposed else 1),
            length=TILE,
            activation=scheme.activation,
            weight=scheme.weight,
            result=result,
            bias=not scheme.bias_apart,
            sums_in_l1=scheme.packer_l1_acc and wide,
        )
        try:
            convolution_shards(convolution, card, scheme.in0_block_w)
        except GeometryError as error:
            return str(error)
        return None
    apart = site.op == "matmul"
    right = scheme.activation if apart else scheme.weight
    product = Product(TILE, site.k, site.n, 1, scheme.activation, right, result, False, wide, scheme.packer_l1_acc)
    width = tiles(site.k) if scheme.in0_block_w is None else scheme.in0_block_w
    needed = product_bytes(product, width, 1, 1, twice=apart)
    if needed <= budget(card):
        return None
    fits = largest_width(product, card, twice=apart)
    return f"L1: {width} tiles of K in a block take {needed:,} bytes of a core's {budget(card):,};" + (
        f" use in0_block_w {fits}" if fits else " no in0_block_w fits"
    )


def _refuses_streaming(site: Site, scheme: Scheme) -> str | None:
    if scheme.activation_scale == "dynamic":
        return (
            "activation_scale dynamic: the scale of a chunk is not that of the whole, so a stream would not sound as"
            " the whole does; use static"
        )
    if site.op == "matmul" and scheme.activation in SHARED:
        return (
            f"activation {scheme.activation} in a stream: blocks of 16 lie along time in a product of two activations"
            " (in the keys of its scores, in the weights of its sums), and where a chunk ends changes their exponents;"
            " use bf16"
        )
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
    blocks = SHARED
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
