"""The table of what ttnn takes, against ttnn itself on a mock card of each architecture."""

import functools

import pytest

from backends.tenstorrent.library import BOTH, FORMATS, OPERATIONS, WRONG_SUMS
from backends.tenstorrent.program import Compute
from backends.tenstorrent.support import refuses, refuses_vector
from precision.policy import Scheme
from precision.site import Site
from tests.backends.tenstorrent.programs import LOFI, SHAPE, around, asked, constant, convolution, step

CARDS = ("wormhole_n150", "blackhole_p150")
NORMS = ("layer_norm", "rms_norm", "group_norm")
PAIRS = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
OPTIONS = {
    "leaky_relu": {"slope": 0.1},
    "elu": {"alpha": 1.0},
    "clamp": {"min": -1.0, "max": 1.0},
    "pow": {"exponent": 2.5},
    "gelu": {"approximate": "none"},
    "softmax": {"axis": -1},
    "cumsum": {"axis": 2},
    "permute": {"order": (0, 1, 3, 2)},
    "sum": {"axis": 3, "keep": True},
    "mean": {"axis": 3, "keep": True},
    "reshape": {"shape": (1, 1, 32, 128)},
    "slice": {"begins": (0, 0, 0, 0), "ends": (1, 1, 32, 32)},
    "concat": {"axis": 3},
    "repeat": {"counts": (1, 1, 1, 2)},
    "pad": {"pads": ((0, 0), (0, 0), (0, 32), (0, 0)), "value": 0.0},
}
SHAPES = {
    "sum": (1, 1, 64, 1),
    "mean": (1, 1, 64, 1),
    "reshape": (1, 1, 32, 128),
    "slice": (1, 1, 32, 32),
    "concat": (1, 1, 64, 128),
    "repeat": (1, 1, 64, 128),
    "pad": (1, 1, 96, 64),
}


def case(op, dtype, second=None, layout="tile", card="blackhole_p150", compute=LOFI):
    """A program of one operation of a 64 x 64 input."""
    row = OPERATIONS[op]
    second = second or (dtype if dtype in row.weights else "bf16")
    if op.startswith("conv"):
        return convolution(64, 32, 4, op=op, activation=dtype, weight=second, card=card, layout=layout, compute=compute)
    wide = "fp32" if dtype == "fp32" and op in ("linear", "matmul") else "bf16"
    result = wide if op in ("linear", "matmul", "typecast") else dtype
    constants, inputs, options = [], "x", dict(OPTIONS.get(op, {}))
    if op == "linear":
        inputs, constants = "x w b", [constant("w", (64, 64), second), constant("b", (1, 1, 1, 64))]
    elif op in ("matmul", *PAIRS):
        inputs, constants = "x w", [constant("w", SHAPE, second, layout)]
    elif op == "attention":
        inputs = "x x x"
    elif op == "concat":
        inputs = "x x"
    elif op in NORMS:
        options["epsilon"] = 1e-5
        shape = (1, 1, 2, 32) if op == "group_norm" else (1, 1, 1, 64)
        constants = [constant("g", shape, second, "row_major" if op == "group_norm" else "tile")]
        inputs = "x g"
        if op == "group_norm":
            options["groups"] = 4
    body = step(
        op,
        inputs,
        "y",
        SHAPES.get(op, SHAPE),
        result,
        layout=layout,
        options=options,
        compute=compute if row.config else None,
    )
    return around(body, dtype, layout=layout, constants=constants, card=card)


def taken():
    """What the table says is taken: operation, type of the first input, of the second, layout."""
    for op, row in OPERATIONS.items():
        yield from ((op, dtype, None, "tile") for dtype in row.takes)
        yield from ((op, dtype, None, "row_major") for dtype in row.rows)
        if op not in (*PAIRS, "matmul", "attention"):
            yield from ((op, "bf16", weight, "tile") for weight in row.weights if not op.startswith("conv"))
            yield from ((op, "bf16", weight, "row_major") for weight in row.weights if op.startswith("conv"))


def untaken():
    """What it does not list, layouts among it that block formats do not exist in."""
    for op, row in OPERATIONS.items():
        yield from ((op, dtype, None, "tile") for dtype in FORMATS if dtype not in row.takes)


TAKEN = [one for one in dict.fromkeys(taken()) if one[0] != "conv2d"]
UNTAKEN = list(dict.fromkeys(untaken()))


@functools.cache
def answers(card):
    """Of a card to all that the table says: planned once."""
    wrong = [Compute(sums.fidelity, sums.accumulate == "fp32") for sums in WRONG_SUMS]
    programs = [case(*one, card=card) for one in (*TAKEN, *UNTAKEN)]
    programs += [case("linear", "bf16", card=card, compute=compute) for compute in wrong]
    return asked(card, programs)


@pytest.mark.tenstorrent
@pytest.mark.parametrize("card", CARDS)
def test_ttnn_takes_what_the_table_says(card):
    pytest.importorskip("ttnn")
    found = answers(card)[: len(TAKEN)]
    assert [(one, said["refusal"]) for one, said in zip(TAKEN, found, strict=True) if said["refusal"]] == []


@pytest.mark.tenstorrent
@pytest.mark.parametrize("card", CARDS)
def test_ttnn_refuses_what_the_table_does_not_list(card):
    pytest.importorskip("ttnn")
    found = answers(card)[len(TAKEN) : len(TAKEN) + len(UNTAKEN)]
    assert len(UNTAKEN) >= 8
    assert [one for one, said in zip(UNTAKEN, found, strict=True) if not said["refusal"]] == []


@pytest.mark.tenstorrent
@pytest.mark.parametrize("card", CARDS)
def test_wrong_sums_are_planned_without_a_word(card):
    pytest.importorskip("ttnn")
    assert [said["refusal"] for said in answers(card)[len(TAKEN) + len(UNTAKEN) :]] == [None] * len(WRONG_SUMS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_row_says_why_and_what_instead(op):
    row = OPERATIONS[op]
    assert set(row.refused) <= set(row.takes)
    assert row.allowed
    assert all("use " in reason for reason in row.refused.values())
    assert set(row.rows) <= set(FORMATS) - {"bfp8_b", "bfp4_b"}
    assert set(BOTH) == {"tile", "row_major"}


@pytest.mark.parametrize("op", ["sin", "cos", "cumsum"])
def test_oscillators_and_running_sums_are_done_in_fp32(op):
    assert refuses_vector(op, "fp32") is None
    for dtype in ("bf16", "bfp8_b", "bfp4_b"):
        assert "use fp32" in (refuses_vector(op, dtype) or "")


def test_other_vectors_are_done_in_what_ttnn_takes():
    assert [refuses_vector(op, "bf16") for op in ("exp", "leaky_relu", "add", "softmax", "tanh")] == [None] * 5
    assert "takes bf16, bfp8_b, fp32" in (refuses_vector("softmax", "bfp4_b") or "")
    with pytest.raises(KeyError):
        refuses_vector("fft", "bf16")


SCHEME = Scheme("s", "bfp8_b", "bf16", fidelity="lofi")
BF16 = Scheme("s", "bf16", "bf16", fidelity="lofi")
WIDE = Site("wide", "linear", (64, 14336), 14336, 64, 100.0)
BIG = Site("big", "conv1d", (512, 512, 7), 3584, 512, 100.0, kernel=7)
FEW = Site("few", "conv1d", (64, 48, 5), 240, 64, 100.0, kernel=5)
SCORES = Site("attention#matmul0", "matmul", (), 32, 38, 100.0, groups=2)


@pytest.mark.parametrize(
    ("site", "scheme", "reason"),
    [
        (WIDE, BF16, "L1: 448 tiles of K in a block take 1,841,152 bytes"),
        (WIDE, BF16, "use in0_block_w 112"),
        (BIG, SCHEME, "L1: all of K in one block, with its weights for 512 channels"),
        (BIG, Scheme("s", "bfp8_b", "bf16", fidelity="lofi", in0_block_w=2), "shards of 8 channels"),
        (FEW, Scheme("s", "bfp8_b", "bf16", fidelity="lofi", in0_block_w=6), "alike, 24 each; use 4"),
        (BIG, Scheme("s", "bfp8_b", "bfp8_b", fidelity="lofi", in0_block_w=18), "come in tiles of 32"),
    ],
)
def test_blocks_that_l1_does_not_hold_are_refused_with_those_that_it_does(site, scheme, reason):
    assert reason in (refuses(site, scheme, "wormhole") or "")


@pytest.mark.parametrize(
    ("site", "width"),
    [(WIDE, 112), (BIG, 14)],
)
def test_what_a_refusal_says_to_use_is_taken(site, width):
    assert refuses(site, Scheme("s", "bf16", "bf16", fidelity="lofi", in0_block_w=width), "wormhole") is None


def test_a_stream_refuses_what_depends_on_where_it_is_cut():
    shared, dynamic = Scheme("s", "bfp8_b", "bfp8_b", fidelity="lofi"), "activation_scale dynamic"
    assert refuses(SCORES, shared, "blackhole") is None
    assert "blocks of 16 lie along time" in (refuses(SCORES, shared, "blackhole", streaming=True) or "")
    assert refuses(SCORES, SCHEME, "blackhole", streaming=True) is None
    assert refuses(Site("ff", "linear", (64, 64), 64, 64, 100.0), shared, "blackhole", streaming=True) is None
    scaled = Scheme("s", "bf16", "bf16", fidelity="lofi", activation_scale="dynamic")
    assert dynamic in (refuses(SCORES, scaled, "blackhole", streaming=True) or "")
    assert refuses(SCORES, scaled, "blackhole") is None
