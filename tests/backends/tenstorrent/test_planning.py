"""Plans as data: read, written, and held against a policy; no ttnn is needed."""

from dataclasses import replace

import pytest

from backends.tenstorrent.planning import Plan, PlannedOp, PlannedTensor, mismatches, realized
from backends.tenstorrent.program import Compute
from precision.policy import Policy, Scheme


def tensor(dtype, shape=(1, 1, 64, 64), name="0"):
    return PlannedTensor(name, shape, dtype, "card", "tile")


def step(site="a", op="linear", activation="bfp8_b", weight="bfp8_b", **changes):
    fields = {
        "index": 0,
        "site": site,
        "op": op,
        "call": f"ttnn.{op}",
        "source": "m",
        "inputs": (tensor(activation), tensor(weight, name="1")),
        "output": tensor("bf16", name="result"),
        "refused": None,
        "device_ops": ("MatmulDeviceOperation",),
        "operands": (activation, weight),
        "compute": Compute("lofi", True),
        "k_block_tiles": 2,
        "k_blocks": 1,
        "l1_bytes_per_core": 4096,
        "l1_bytes": 8192,
        "dram_bytes": 100_000,
    }
    return PlannedOp(**{**fields, **changes})


def plan(*steps):
    numbered = tuple(replace(one, index=index) for index, one in enumerate(steps))
    return Plan("wormhole_n150", "wormhole", (8, 8), 1_398_432, 50_000, numbered)


SCHEME = Scheme("s", weight="bfp8_b", activation="bfp8_b", fidelity="lofi")


def told(one, **changes):
    return mismatches(plan(one), Policy.of({"a": replace(SCHEME, **changes)}))


def test_a_plan_is_read_as_it_was_written():
    whole = plan(step(), step(None, "download", output=None, compute=None, k_block_tiles=None, k_blocks=None))
    assert Plan.from_dict(whole.to_dict()) == whole


def test_a_plan_of_another_version_is_refused():
    with pytest.raises(TypeError, match="surprise"):
        Plan.from_dict({**plan(step()).to_dict(), "surprise": 1})


def test_what_is_as_the_policy_says_has_no_mismatch():
    assert told(step()) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weight": "bfp4_b"}, "weight bfp4_b, got bfp8_b"),
        ({"activation": "bf16"}, "activation bf16, got bfp8_b"),
        ({"accumulate": "bf16"}, "accumulation bf16, got fp32"),
        ({"fidelity": "hifi2"}, "fidelity hifi2, got lofi"),
        ({"packer_l1_acc": True}, "packer_l1_acc True, got False"),
    ],
)
def test_each_choice_of_a_scheme_is_held_against_what_was_made_of_it(changes, line):
    assert told(step(), **changes) == [f"a (step 0, ttnn.linear): {line}"]


def test_all_mismatches_are_told_at_once():
    lines = told(step(), weight="bf16", fidelity="hifi4", accumulate="bf16")
    assert [line.split(": ")[1] for line in lines] == [
        "weight bf16, got bfp8_b",
        "accumulation bf16, got fp32",
        "fidelity hifi4, got lofi",
    ]


@pytest.mark.parametrize(
    ("wanted", "tiles", "blocks", "lines"),
    [
        (None, 8, 1, []),
        (None, 2, 4, ["blocks of K 1, got 4"]),
        (None, None, None, []),  # it can't be read
        (2, 2, 4, []),
        (2, 4, 2, ["in0_block_w 2, got 4"]),
        (8, 2, 1, []),  # all of K, which has fewer tiles
        (8, 4, 2, ["in0_block_w 8, got 4"]),
        (2, None, None, []),
    ],
)
def test_blocks_of_k_are_those_of_the_scheme(wanted, tiles, blocks, lines):
    got = told(step(k_block_tiles=tiles, k_blocks=blocks), in0_block_w=wanted)
    assert got == [f"a (step 0, ttnn.linear): {line}" for line in lines]


def test_a_product_of_activations_has_no_weight_format():
    one = step(op="matmul", activation="bf16", weight="bf16")
    assert told(one, activation="bf16") == []
    mixed = step(op="matmul", activation="bf16", weight="bfp8_b")
    assert told(mixed, activation="bf16") == ["a (step 0, ttnn.matmul): second activation bf16, got bfp8_b"]


def test_a_convolutions_activations_are_those_given_to_the_call():
    # Its halo lays them out in rows, which no block format has.
    conv = step(op="conv1d", operands=("bf16", "bfp8_b", "bfp8_b"))
    assert told(conv) == []
    assert realized(plan(conv))["a"].activation == "bfp8_b"


def test_a_bias_apart_is_not_fused():
    fused = step(operands=("bfp8_b", "bfp8_b", "bf16"))
    assert told(fused) == []
    assert told(fused, bias_apart=True) == ["a (step 0, ttnn.linear): bias apart, got one fused with the product"]
    assert told(step(), bias_apart=True) == []


def test_every_operation_of_a_site_counts():
    twice = plan(step(), step(compute=Compute("hifi2", True)))
    assert mismatches(twice, Policy.of({"a": SCHEME})) == ["a (step 1, ttnn.linear): fidelity lofi, got hifi2"]
    assert realized(twice)["a"].fidelity == "lofi"


def test_sites_that_one_of_both_lacks_are_named():
    lines = mismatches(plan(step("b")), Policy.of({"a": SCHEME}))
    assert lines == [
        "b (step 0, ttnn.linear): the policy has no such site",
        "a: no operation of the program computes it",
    ]


def test_a_site_is_computed_by_its_product_alone():
    assert mismatches(plan(step(), step(op="add", compute=None)), Policy.of({"a": SCHEME})) == []


def test_a_refusal_is_a_mismatch_and_is_not_realized():
    refused = step(output=None, refused="Out of L1\n(matmul.cpp:1)", operands=())
    assert plan(refused).refusals == (refused,)
    assert realized(plan(refused)) == {}
    assert told(refused) == ["a (step 0, ttnn.linear): refused: Out of L1 (matmul.cpp:1)"]


def test_the_table_has_a_row_a_step_and_the_totals():
    text = plan(step(), step("b", refused="No.\n(here)", output=None)).table().splitlines()
    row = "0 ttnn.linear a bfp8_b x bfp8_b bf16 lofi fp32 2 x 1 4,096 100,000"
    assert text[1].split() == row.split()
    assert "8 x 8 cores" in text[3]
    assert "1 refused" in text[3]
    assert text[4:] == ["refused: step 1, ttnn.linear (b)", "    No.", "    (here)"]
