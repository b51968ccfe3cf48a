"""Blocks and shards: what they must always be, and their room in L1 against what ttnn takes of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.conv_geometry import Convolution, convolution_shards, least_bytes
from backends.tenstorrent.geometry import (
    GeometryError,
    Product,
    batched_blocks,
    budget,
    largest_width,
    linear_blocks,
    product_bytes,
    tiles,
)
from backends.tenstorrent.library import FORMATS
from backends.tenstorrent.program import Compute
from tests.backends.tenstorrent.programs import LOFI, around, asked, constant, convolution, step

EXTENTS = st.integers(1, 3000)
PRODUCTS = st.builds(
    Product,
    m=EXTENTS,
    k=st.integers(1, 1500),
    n=EXTENTS,
    batch=st.integers(1, 40),
    left=st.sampled_from(FORMATS),
    right=st.sampled_from(FORMATS),
    result=st.sampled_from(["bf16", "fp32"]),
    bias=st.booleans(),
    fp32_accumulation=st.booleans(),
    packer_l1_acc=st.booleans(),
)


@given(PRODUCTS, st.sampled_from(sorted(CARDS)), st.sampled_from([linear_blocks, batched_blocks]))
def test_blocks_cover_a_product_and_fit(product, name, place):
    card = CARDS[name]
    blocks = place(product, card)
    columns, rows = card.grid
    fused = product.batch if place is linear_blocks else 1
    m, n = fused * tiles(product.m), tiles(product.n)
    assert blocks.in0_block_w == tiles(product.k)
    assert blocks.per_core_m % blocks.out_block_h == 0 == blocks.per_core_n % blocks.out_block_w
    assert blocks.out_block_h % blocks.out_subblock_h == 0 == blocks.out_block_w % blocks.out_subblock_w
    assert blocks.out_subblock_h == 1 or blocks.out_subblock_w == blocks.out_block_w
    assert blocks.out_subblock_h * blocks.out_subblock_w <= (4 if product.fp32_accumulation else 8)
    down, across = -(-m // blocks.per_core_m), -(-n // blocks.per_core_n)
    limits = {"grid": (rows, columns), "rows": (rows * columns, 1), "columns": (1, rows * columns), "batched": (m, 1)}
    assert down <= limits[blocks.kind][0]
    assert across <= limits[blocks.kind][1]
    assert blocks.fuse_batch == (place is linear_blocks or blocks.kind == "batched")
    taken = product_bytes(product, blocks.in0_block_w, blocks.out_block_h, blocks.out_block_w)
    assert taken <= budget(card)


@pytest.mark.parametrize("place", [linear_blocks, batched_blocks])
def test_a_width_that_does_not_divide_k_is_named(place):
    with pytest.raises(GeometryError, match="in0_block_w 3 does not divide the 8 tiles of K"):
        place(Product(64, 256, 64), CARDS["wormhole_n150"], 3)


def test_what_fits_is_named_where_all_of_k_does_not():
    product, card = Product(64, 14336, 64), CARDS["wormhole_n150"]
    fits = largest_width(product, card)
    with pytest.raises(GeometryError, match=f"use in0_block_w {fits}"):
        linear_blocks(product, card)
    assert linear_blocks(product, card, fits).in0_block_w == fits


def test_shards_are_those_of_the_policy():
    card, conv = CARDS["wormhole_n150"], Convolution(7, 64, 64, 200)
    assert convolution_shards(conv, card).layout == "height"
    shards = convolution_shards(conv, card, 4)
    assert (shards.layout, shards.grid, shards.channels, shards.slices) == ("block", (4, 7), 16, 1)
    assert convolution_shards(replace(conv, length=100_000), card, 4).slices > 1
    with pytest.raises(GeometryError, match="8 columns of cores"):
        convolution_shards(replace(conv, in_channels=512), card, 4)
    with pytest.raises(GeometryError, match="come in tiles of 32"):
        convolution_shards(replace(conv, activation="bfp8_b"), card, 4)


BF16 = Compute("lofi", False)
WITH_L1 = Compute("lofi", True, packer_l1_acc=True)
LINEARS = [
    # m, k, n, left, right, width, compute, bias
    (64, 256, 96, "bf16", "bfp8_b", None, LOFI, True),
    (64, 256, 96, "bf16", "bfp8_b", 4, WITH_L1, True),
    (64, 256, 96, "bfp8_b", "bfp4_b", 2, BF16, False),
    (64, 256, 96, "fp32", "fp32", None, LOFI, True),
    (2048, 256, 96, "bf16", "bf16", None, LOFI, True),
    (1000, 512, 1536, "bf16", "bfp8_b", None, LOFI, True),
    (1, 11008, 4096, "bf16", "bfp8_b", None, LOFI, True),
    (20000, 1026, 1024, "bf16", "bfp8_b", None, LOFI, False),
]
MATMULS = [(4, 38, 32, 38), (4, 200, 200, 32), (32, 1, 128, 4096), (8, 1, 4096, 128)]
CONVS = [
    (64, 64, 7, "bf16", "bfp8_b"),
    (256, 512, 7, "bf16", "bfp8_b"),
    (256, 256, 7, "bf16", "bf16"),
    (128, 128, 7, "fp32", "fp32"),
    (8, 8, 11, "bfp8_b", "bfp8_b"),
]


def _linear(case, card):
    m, k, n, left, right, width, compute, bias = case
    result = "fp32" if left == "fp32" else "bf16"
    weights = [constant("w", (k, n), right)] + ([constant("b", (1, 1, 1, n))] if bias else [])
    options = {"in0_block_w": width, "transpose_b": False}
    body = step("linear", "x w b" if bias else "x w", "y", (1, 1, m, n), result, options=options, compute=compute)
    return around(body, left, (1, 1, m, k), constants=weights, card=card)


def _matmul(case, card):
    batch, m, k, n = case
    options = {"in0_block_w": None}
    body = step("matmul", "x w", "y", (1, batch, m, n), options=options, compute=LOFI)
    return around(body, "bf16", (1, batch, m, k), constants=[constant("w", (1, batch, k, n))], card=card)


@pytest.mark.tenstorrent
@pytest.mark.parametrize("name", sorted(CARDS))
def test_room_in_l1_is_what_ttnn_takes(name):
    pytest.importorskip("ttnn")
    card = CARDS[name]
    programs = [_linear(case, name) for case in LINEARS] + [_matmul(case, name) for case in MATMULS]
    programs += [convolution(*case[:3], 38, card=name, activation=case[3], weight=case[4]) for case in CONVS]
    found = asked(name, programs)
    assert [said["refusal"] for said in found] == [None] * len(programs)
    for (m, k, n, left, right, width, compute, bias), said in zip(LINEARS, found, strict=False):
        result = "fp32" if left == "fp32" else "bf16"
        product = Product(m, k, n, 1, left, right, result, bias, compute.fp32_accumulation, compute.packer_l1_acc)
        blocks = linear_blocks(product, card, width)
        taken = product_bytes(product, blocks.in0_block_w, blocks.out_block_h, blocks.out_block_w)
        assert taken == said["l1_bytes"], (m, k, n)
    for (batch, m, k, n), said in zip(MATMULS, found[len(LINEARS) :], strict=False):
        product = Product(m, k, n, batch)
        blocks = batched_blocks(product, card)
        taken = product_bytes(product, blocks.in0_block_w, blocks.out_block_h, blocks.out_block_w, twice=True)
        assert taken == said["l1_bytes"], (batch, m, k, n)
    for (channels, out, taps, activation, weight), said in zip(CONVS, found[-len(CONVS) :], strict=True):
        result = "fp32" if activation == "fp32" else "bf16"
        conv = Convolution(taps, channels, out, 38, activation=activation, weight=weight, result=result)
        assert said["l1_bytes"] <= least_bytes(conv) <= said["l1_bytes"] + 512, (channels, out, taps)


@pytest.mark.tenstorrent
@pytest.mark.parametrize("name", sorted(CARDS))
def test_shards_that_we_choose_are_taken(name):
    pytest.importorskip("ttnn")
    cases = [(200, 64, 64, 7, 4), (4096, 256, 256, 3, 6), (200, 512, 512, 7, 14)]
    programs = [convolution(c, n, k, length, card=name, in0_block_w=w) for length, c, n, k, w in cases]
    wide = {"activation": "fp32", "weight": "fp32", "in0_block_w": 14}
    programs.append(convolution(64, 64, 7, 20_000, card=name, **wide))
    programs.append(convolution(512, 256, 16, 500, card=name, op="conv_transpose1d", in0_block_w=32))
    found = asked(name, programs)
    assert [said["refusal"] for said in found] == [None] * len(programs)
    assert all(said["l1_bytes"] <= budget(CARDS[name]) for said in found)
