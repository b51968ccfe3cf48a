"""Emission: the text of model.py read as Python, and run by ttnn on mock cards."""

import ast
import re
from dataclasses import replace

import pytest

from backends.tenstorrent.emission import OPS, call_of, calls_of, emit
from backends.tenstorrent.program import CardStep, Compute, HostStep, State, Value
from tests.backends.tenstorrent.programs import LOFI, SHAPE, around, asked, constant, convolution, program, step

HIFI3 = Compute("hifi3", True)
CONV = {"batch": 1, "length": 70, "in_channels": 64, "out_channels": 32, "kernel": 7, "stride": 1, "padding": (0, 0)}
CONV |= {"dilation": 1, "groups": 1, "in0_block_w": None}
ROW = (1, 1, 64, 64)


def whole(card="blackhole_p150"):
    """A stream of one of nearly everything: attention, a convolution with its past, a host step between two parts."""
    steps = [
        step("upload", "h", "x", options={"view": (64, 64, 1, 1), "order": (2, 3, 0, 1)}),
        step("layer_norm", "x g g", "n", options={"epsilon": 1e-5}, compute=HIFI3),
        step("typecast", "n", "n8", dtype="bfp8_b"),
        step("linear", "n8 w b", "q", options={"in0_block_w": None}, compute=LOFI, site="query", source="query"),
        step("linear", "q t", "k", options={"in0_block_w": 1, "transpose_b": True}, compute=LOFI, site="key"),
        step("permute", "k", "kt", options={"order": (0, 1, 3, 2)}, source="attention"),
        step("matmul", "q kt", "s", options={"in0_block_w": None}, compute=LOFI, site="attention#matmul0"),
        step("multiply", "s", "scaled", options={"scalar": 0.125, "reversed": False}),
        step("softmax", "scaled", "p", options={"axis": -1}, compute=HIFI3),
        step("subtract", "p", "left", options={"scalar": 1.0, "reversed": True}),
        step("concat", "past left", "long", (1, 1, 70, 64), options={"axis": 2}),
        step("slice", "long", "new", (1, 1, 6, 64), options={"begins": (0, 0, 64, 0), "ends": (1, 1, 70, 64)}),
        step("to_layout", "long", "rows", (1, 1, 70, 64), layout="row_major"),
        step("conv1d", "rows c cb", "y", (1, 1, 64, 32), options=CONV, compute=LOFI, site="conv"),
        step("download", "y", "on_host", (64, 32), place="host", options={"shape": (64, 32)}),
        HostStep(("on_host",), (Value("turned", (32, 64), "float32", "host"),), "turned = on_host.T", "after"),
        step("upload", "turned", "z", (1, 1, 32, 64), options={"view": (1, 1, 32, 64)}),
        step("gelu", "z", "out_card", (1, 1, 32, 64), options={"approximate": "none"}),
        step("download", "out_card", "out", (1, 1, 32, 64), place="host"),
    ]
    constants = [
        constant("g", (1, 1, 1, 64)),
        constant("w", (64, 64), "bfp8_b"),
        constant("b", (1, 1, 1, 64)),
        constant("t", (64, 64), "bfp4_b"),
        constant("c", (32, 64, 1, 7), "bfp8_b", "row_major", on_host=True),
        constant("cb", (1, 1, 1, 32), "bfp8_b", "row_major", on_host=True),
    ]
    state = {"past": State(Value("past", (1, 1, 6, 64), "bf16"), "new")}
    return program(steps, constants, {"h": (64, 64)}, card, states=state)


def forward(text):
    tree = ast.parse(text)
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "forward")


def called(node):
    """Names of the calls of ttnn and runtime in a tree, in order."""
    found = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
    names = [(one.lineno, one.col_offset, ast.unparse(one.func)) for one in found]
    return [name for *_, name in sorted(names) if re.fullmatch(r"(ttnn|runtime|host)(\.\w+)+", name)]


def test_a_card_step_is_one_call():
    text, steps = emit(whole()), whole().steps
    names = [name for name in called(forward(text)) if not name.endswith("deallocate") and not name.startswith("host")]
    assert names == list(calls_of(whole()))
    assert names[:-1] == [call_of(one) for one in steps if isinstance(one, CardStep)]
    assert names[-1] == "ttnn.copy"
    assert called(forward(text)).count("host.host_0") == 1


def test_every_choice_of_a_product_is_written_down():
    text = emit(whole())
    calls = {ast.unparse(node.func): node for node in ast.walk(forward(text)) if isinstance(node, ast.Call)}
    linear = {keyword.arg: ast.unparse(keyword.value) for keyword in calls["ttnn.linear"].keywords}
    assert linear["compute_kernel_config"] == "LOFI_FP32"
    assert linear["dtype"] == "ttnn.bfloat16"
    assert linear["memory_config"] == "DRAM"
    assert linear["program_config"] == "BLOCKS_64X64X64_2"  # the other linear has blocks of one tile
    compute = next(node for node in ast.parse(text).body if ast.unparse(node).startswith("LOFI_FP32 ="))
    fields = {keyword.arg for keyword in compute.value.keywords}
    wanted = ("math_fidelity", "math_approx_mode", "fp32_dest_acc_en", "packer_l1_acc", "dst_full_sync_en")
    assert fields == {*wanted, "throttle_level"}
    assert re.search(r"BLOCKS_64X64X64 = [^=]*=\(13, 10\), in0_block_w=2,", text)
    conv = {keyword.arg: ast.unparse(keyword.value) for keyword in calls["ttnn.conv1d"].keywords}
    assert (conv["conv_config"], conv["compute_config"], conv["padding"]) == ("CONV_BFP8_B", "LOFI_FP32", "(0, 0)")


def test_a_site_stands_in_words_above_its_call():
    text = emit(whole())
    assert "# query: bfp8_b weights, bfp8_b activations, LoFi, fp32 sums, all of K at once" in text
    assert "# attention#matmul0: bf16 activations, LoFi, fp32 sums, all of K at once" in text
    assert text.count("# query") == 1


def test_nothing_is_read_after_it_was_deallocated_and_all_is():
    body = forward(emit(whole()))
    alive, dead = set(), set()
    for statement in body.body:
        text = ast.unparse(statement)
        if found := re.fullmatch(r"ttnn\.deallocate\((\w+)\)", text):
            assert found[1] in alive
            alive.remove(found[1])
            dead.add(found[1])
            continue
        read = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        assert not read & dead, text
        if isinstance(statement, ast.Assign) and ("= ttnn." in text or "runtime.upload" in text):
            target = statement.targets[0]
            alive.add(ast.unparse(target.elts[0] if isinstance(target, ast.Tuple) else target))
    # What may be a view of the value that state will be lives as long as that.
    assert alive <= {"long", "rows", "past"}


def test_state_is_written_last_and_never_deallocated():
    lines = emit(whole()).splitlines()
    assert '    ttnn.copy(new, state["past"])' in lines
    assert lines.index('    ttnn.copy(new, state["past"])') > max(
        i for i, line in enumerate(lines) if "ttnn.gelu" in line
    )
    viewed = program(
        [
            step("reshape", "past", "flat", (1, 1, 64, 32), options={"shape": (1, 1, 64, 32)}),
            step("relu", "flat", "y", (1, 1, 64, 32)),
            step("download", "y", "out", (1, 1, 64, 32), place="host"),
        ],
        states={"past": State(Value("past", (1, 1, 32, 64), "bf16"), "past")},
    )
    assert "deallocate(flat)" not in emit(viewed)
    assert "ttnn.copy" not in emit(viewed)


def test_states_that_take_over_from_each_other_are_copied_in_order():
    states = {
        "b": State(Value("b", ROW, "bf16"), "x"),
        "a": State(Value("a", ROW, "bf16"), "b"),
    }
    steps = [step("upload", "h", "x"), step("download", "x", "out", place="host")]
    text = emit(program(steps, states=states))
    assert text.index('ttnn.copy(state["b"], state["a"])') < text.index('ttnn.copy(x, state["b"])')
    circle = states | {"b": replace(states["b"], update="a")}
    with pytest.raises(ValueError, match="in a circle"):
        emit(program(steps, states=circle))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (step("fft", "x", "y"), "no operation 'fft'"),
        (step("pad", "x", "y", options={"pads": ((0, 0), (0, 0), (3, 0), (0, 0)), "value": 0.0}), "never in front"),
        (step("embedding", "x x", "y"), r"\[1, count, channels\]"),
        (step("matmul", "x x", "y", options={}, site="mix"), "mix: matmul y has no compute"),
        (step("matmul", "x x", "y", options={"in0_block_w": 3}, compute=LOFI), "does not divide the 2 tiles of K"),
    ],
)
def test_what_has_no_call_is_named(body, reason):
    with pytest.raises(ValueError, match=reason):
        emit(around(body))


def test_a_convolution_that_l1_does_not_hold_is_named_by_its_site():
    with pytest.raises(ValueError, match=r"site: L1: all of K in one block.*use in0_block_w"):
        emit(convolution(512, 512, 7))


@pytest.mark.parametrize("op", OPS)
def test_every_operation_has_the_name_of_its_call(op):
    assert re.fullmatch(r"(ttnn|runtime)(\.\w+)+", call_of(step(op, "x", "y")))


def test_a_call_of_nothing_is_named():
    with pytest.raises(ValueError, match="no operation 'fft'; there are abs"):
        call_of(step("fft", "x", "y"))


@pytest.mark.tenstorrent
@pytest.mark.parametrize("card", ["wormhole_n150", "blackhole_p150"])
def test_ttnn_runs_what_is_emitted(card):
    pytest.importorskip("ttnn")
    kept = whole(card)
    steps = [one for one in kept.steps if not isinstance(one, HostStep) and one.result.name not in ("z", "out_card")]
    steps = [one for one in steps if one.result.name not in ("out", "on_host")]
    steps.append(step("download", "y", "out", (1, 1, 64, 32), place="host"))
    groups = replace(
        around(
            step("group_norm", "x gn", "y", options={"groups": 4, "epsilon": 1e-5}, compute=HIFI3),
            constants=[constant("gn", (1, 1, 2, 32), layout="row_major")],
            card=card,
        )
    )
    heads = (1, 4, 200, 64)
    fused = step("attention", "x x x", "y", heads, options={"causal": True, "scale": 0.1}, compute=LOFI)
    found = asked(card, [replace(kept, steps=tuple(steps)), groups, around(fused, "bfp8_b", heads, card=card)])
    assert [said["refusal"] for said in found] == [None] * 3
    assert found[0]["result"] == ["bf16", [1, 1, 64, 32]]
    assert found[1]["result"] == ["bf16", list(SHAPE)]
    assert found[2]["result"] == ["bfp8_b", list(heads)]
