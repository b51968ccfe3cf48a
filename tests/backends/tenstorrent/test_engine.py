"""ttnn in a process of its own: plans of a program by hand on both mock cards, packing, and what is not there."""

import json
import shutil

import numpy as np
import pytest

from backends.tenstorrent import engine
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.engine import EngineError, TtnnEngine
from backends.tenstorrent.exact.host import host_pack
from backends.tenstorrent.exact.tiles import tiles_to_bytes
from backends.tenstorrent.packed import file_bytes
from backends.tenstorrent.planning import Plan, mismatches, realized
from precision.policy import Policy, Scheme

pytestmark = pytest.mark.tenstorrent

BLOCKS = Scheme("blocks", weight="bfp8_b", activation="bfp8_b", fidelity="lofi")
CONV = Scheme("conv", weight="bfp8_b", activation="bf16", fidelity="lofi")
MIX = Scheme("mix", "bf16", "bf16", "bf16", "hifi2", packer_l1_acc=True, in0_block_w=1)
POLICY = Policy.of({"proj": BLOCKS, "mix#op0": MIX, "narrow": CONV, "longer": CONV})


@pytest.fixture(scope="session")
def plans(tiny, mock_folder) -> dict[str, Plan]:
    """All exports planned in one process."""
    made = engine.plan_many(list(tiny.values()), "wormhole_n150", mock_folder)
    return dict(zip(tiny, made, strict=True))


def test_every_site_is_realized_as_its_policy_says(plans):
    plan = plans["whole"]
    assert plan.refusals == ()
    assert mismatches(plan, POLICY) == []
    found = realized(plan)
    assert list(found) == ["proj", "mix#op0", "narrow", "longer"]
    assert (found["proj"].weight, found["proj"].activation, found["proj"].output) == ("bfp8_b", "bfp8_b", "bf16")
    assert (found["proj"].k_block_tiles, found["proj"].k_blocks) == (2, 1)
    assert (found["mix#op0"].fidelity, found["mix#op0"].accumulate) == ("hifi2", "bf16")
    assert (found["mix#op0"].k_block_tiles, found["mix#op0"].k_blocks) == (1, 3)
    # 7 taps of 64 channels, 4 of 32: all of K at once.
    assert (found["narrow"].k_block_tiles, found["narrow"].k_blocks, found["narrow"].bias_fused) == (14, 1, True)
    assert (found["longer"].k_block_tiles, found["longer"].k_blocks, found["longer"].bias_fused) == (4, 1, False)


def test_calls_become_the_operations_of_the_device(plans):
    steps = {step.op: step for step in plans["whole"].steps}
    assert steps["layer_norm"].device_ops == ("LayerNormDeviceOperation",)
    assert steps["softmax"].compute.fidelity == "lofi"
    assert steps["conv1d"].device_ops[-2:] == ("Conv2dDeviceOperation", "ShardedToInterleavedDeviceOperation")
    assert steps["conv1d"].operands == ("bf16", "bfp8_b", "bfp8_b")
    assert steps["typecast"].output.dtype == "bfp8_b"
    assert steps["matmul"].compute.approximate
    assert steps["host"].call == "host.host_0"
    assert steps["copy"].index == len(plans["whole"].steps) - 1


def test_memory_is_counted(plans):
    plan = plans["whole"]
    # 64 x 96 in 6 tiles of bfp8_b, and the state's 4 of bf16; each buffer takes a page in every bank that it reaches.
    assert plan.weights_dram_bytes >= 6 * 1088 + 4 * 2048
    assert all(step.dram_bytes >= plan.weights_dram_bytes for step in plan.steps)
    computing = [step for step in plan.steps if step.device_ops]
    assert all(0 < step.l1_bytes_per_core <= plan.l1_bytes_per_core for step in computing)
    assert all(step.l1_bytes_per_core <= step.l1_bytes for step in computing)
    linear = next(step for step in plan.steps if step.site == "proj")
    # Two blocks of 2 x 2 tiles of activations, two of 2 x 1 of weights, and 2 tiles of results at the least.
    assert linear.l1_bytes_per_core >= 1088 * (2 * 4 + 2 * 2) + 2048 * 2


@pytest.mark.parametrize("card", CARDS)
def test_the_mock_card_has_the_cores_that_programs_are_made_for(plans, tiny, mock_folder, card):
    plan = plans["whole"] if card == "wormhole_n150" else engine.plan(tiny["whole"], card, mock_folder)
    assert (plan.card, plan.architecture) == (card, CARDS[card].architecture)
    assert plan.grid == CARDS[card].grid
    assert plan.refusals == ()
    assert mismatches(plan, POLICY) == []
    assert plan.l1_bytes_per_core == {"wormhole_n150": 1_327_776, "blackhole_p150": 1_395_584}[card]


def test_a_refusal_is_told_in_the_librarys_words_and_the_rest_is_planned(plans):
    plan = plans["refused"]
    (refused,) = plan.refusals
    assert (refused.site, refused.call, refused.output) == ("wrong", "ttnn.linear", None)
    assert "The width of the first tensor must be equal to the height of the second tensor" in refused.refused
    assert "backtrace" not in refused.refused
    assert "width=96 height=64" in refused.refused
    assert [step.site for step in plan.steps if step.site] == ["proj", "mix#op0", "wrong", "narrow", "longer"]
    held = Policy.of({**POLICY, "wrong": BLOCKS})
    (line,) = mismatches(plan, held)
    assert line.startswith("wrong (step 7, ttnn.linear): refused: The width")
    assert "refused: step 7, ttnn.linear (wrong)" in plan.table()


def test_an_operation_that_overflows_l1_is_refused(plans):
    tight, over = plans["full"].refusals
    # The library takes it, as long as nothing lies in the part of L1 that convolutions keep their windows in.
    assert tight.site == "tight"
    # 216 tiles of K, 2 + 1 of bf16 each, and two tiles of the result with their sums in fp32.
    assert tight.l1_bytes_per_core == 2048 * 3 * 216 + 2 * (2048 + 4096)
    assert tight.refused == (
        "takes 1,339,392 bytes of L1 of a core, and 1,327,776 are free beside the 65,536 for convolutions"
    )
    assert over.site == "over"
    assert "beyond max L1 size" in over.refused
    lines = mismatches(plans["full"], Policy.of({"tight": MIX, "over": MIX}))
    assert [line.split(": ")[1] for line in lines] == ["refused", "refused"]


def test_calls_that_the_manifest_does_not_list_are_named(tiny, mock_folder, tmp_path):
    folder = shutil.copytree(tiny["whole"], tmp_path / "other")
    manifest = json.loads((folder / "program.json").read_text())
    manifest["steps"][4]["call"] = "ttnn.gelu"
    (folder / "program.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"calls ttnn\.softmax where program\.json lists ttnn\.gelu \(step 4"):
        engine.plan(folder, mock_folder=mock_folder)
    manifest["steps"][4]["call"] = "ttnn.softmax"
    manifest["steps"].append({**manifest["steps"][-1], "index": 12})
    (folder / "program.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"ends after 12 calls, and program\.json lists 13"):
        engine.plan(folder, mock_folder=mock_folder)


def test_weights_are_packed_by_the_vendor_as_by_ours(tiny):
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    ours = tiles_to_bytes(*host_pack(weight, "bfp8_b"), "bfp8_b")
    assert np.array_equal(file_bytes(tiny["whole"] / "weights" / "proj_weight.tensorbin"), ours.reshape(-1))


def test_arrays_that_do_not_fit_the_manifest_are_all_named(tiny, mock_folder):
    arrays = {"proj_weight": np.zeros((64, 32), np.float32), "conv_weight": np.zeros((32, 64, 1, 7), np.float32)}
    with pytest.raises(EngineError) as caught:
        engine.pack(tiny["whole"], arrays, mock_folder)
    assert "proj_weight must be of [64, 96], got [64, 32]" in str(caught.value)
    assert "conv_bias must be of [1, 1, 1, 32], got none" in str(caught.value)


def test_an_export_is_left_as_it_was(plans, tiny):
    names = {path.name for path in tiny["whole"].iterdir()}
    assert "generated" not in names
    assert "__pycache__" not in names


def test_a_real_card_that_is_not_there_is_told(tiny):
    with pytest.raises(EngineError, match=r"no card could be opened: (.|\n)*--plan needs none"):
        TtnnEngine(tiny["whole"]).run({"x": np.zeros((64, 64), np.float32)})
    with pytest.raises(EngineError, match="no card could be opened"):
        TtnnEngine(tiny["whole"]).realized()


def test_a_folder_that_is_no_export_is_told(tmp_path, mock_folder):
    with pytest.raises(EngineError, match=r"is no export: it has no run\.py"):
        engine.plan(tmp_path, mock_folder=mock_folder)


def test_without_ttnn_the_extra_is_named(tiny, monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'precision-search\[tenstorrent\]'"):
        engine.plan(tiny["whole"])
