"""An export's pieces: packed bytes against our packer's, traffic with the host, tolerance, manifest, README."""

import ast
import importlib.util
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.tenstorrent.exact.host import host_round
from backends.tenstorrent.export import write_program, write_sample, write_words
from backends.tenstorrent.host_traffic import round_trips
from backends.tenstorrent.manifest import manifest
from backends.tenstorrent.packed import PackingError, check_packed, packed_bytes
from backends.tenstorrent.program import CardStep, Compute, Constant, HostStep, Program, State, Value
from backends.tenstorrent.readme import Facts, readme, requirements
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.tolerance import BF16_SNR_DB, FACTOR, Tolerance, doubted, snr_db

HELD = {"bfp8_b": "bfp8_b", "bfp4_b": "bfp4_b"}


def weight(fmt="bfp8_b", layout="tile", shape=(64, 32), name="weight"):
    values = host_round(np.random.default_rng(0).standard_normal(shape).astype(np.float32), HELD.get(fmt, "bf16"))
    return Constant(Value(name, shape, fmt, layout=layout), values, fmt, layout, site="first")


def program(*, host=False):
    """x [1, 1, 32, 64] through one linear site; with `host`, cosine of it in torch, and through the site again."""
    x = Value("x", (1, 1, 32, 64), "float32", place="host")
    made = Value("y", (1, 1, 32, 32), "bf16")
    out = Value("out", (1, 1, 32, 32), "float32", place="host")
    compute = Compute("lofi", fp32_accumulation=True)
    steps = [
        CardStep("upload", ("x",), Value("a", x.shape, "bf16"), {"view": x.shape, "order": (0, 1, 2, 3)}),
        CardStep(
            "linear", ("a", "weight"), made, {"in0_block_w": None, "transpose_b": False}, compute, "first", "layers.0"
        ),
        CardStep("download", ("y",), out, {"order": (0, 1, 2, 3), "shape": out.shape}),
    ]
    name = "out"
    if host:
        turned = Value("turned", out.shape, "float32", place="host")
        steps.append(HostStep(("out",), (turned,), "turned = torch.cos(out)", "layers.1"))
        back = Value("back", out.shape, "bf16")
        steps.append(CardStep("upload", ("turned",), back, {"view": out.shape, "order": (0, 1, 2, 3)}))
        last = Value("last", out.shape, "float32", place="host")
        steps.append(CardStep("download", ("back",), last, {"order": (0, 1, 2, 3), "shape": out.shape}))
        name = "last"
    return Program("blackhole", "blackhole_p150", (x,), {"weight": weight()}, {}, tuple(steps), {"waveform": name})


FACTS = Facts(
    model="tiny",
    card_title="Blackhole p150a",
    policy="studies/tiny/policy.yaml",
    policy_digest="0123456789abcdef",
    scheme_shares={"lofi": 0.75, "bf16": 0.25},
    lofi_mac_share=0.75,
    bfp8_weight_share=0.5,
    sites=1,
    program_sites=1,
    clip="anna",
    clip_seconds=0.5,
    tolerances={"waveform": Tolerance.between(np.ones(4), np.full(4, 1.01))},
    weight_bytes=2176,
    versions={"ttnn": "0.81.1"},
)


def write(folder, name, body):
    header = b"header of any length"
    (folder / f"{name}.tensorbin").write_bytes(len(header).to_bytes(8, "little") + header + body.tobytes())


@pytest.mark.parametrize(
    ("fmt", "layout", "shape", "size"),
    [
        ("bfp8_b", "tile", (64, 32), 2 * 1088),
        ("bfp4_b", "tile", (2, 3, 40, 33), 6 * 4 * 576),
        ("bf16", "tile", (7,), 2048),
        ("fp32", "row_major", (4, 3, 1, 5), 4 * 60),
        ("bf16", "row_major", (10, 8), 2 * 80),
    ],
)
def test_packed_bytes_are_as_many_as_the_format_takes(fmt, layout, shape, size):
    assert packed_bytes(weight(fmt, layout, shape)).size == size


def test_rows_are_the_numbers_themselves():
    indices = replace(weight("uint32", "row_major", (3,)), values=np.array([0, 1, 2**31], np.uint32))
    assert packed_bytes(indices).view("<u4").tolist() == [0, 1, 2**31]
    rounded = replace(weight("bf16", "row_major", (2,)), values=np.array([1.0, 1 + 2**-8 + 2**-9], np.float32))
    assert packed_bytes(rounded).view("<u2").tolist() == [0x3F80, 0x3F81]


def test_blocks_in_rows_are_refused():
    with pytest.raises(ValueError, match="pack it in tiles"):
        packed_bytes(weight("bfp8_b", "row_major"))


def test_files_that_hold_our_bytes_pass(tmp_path):
    constants = {"weight": weight(), "table": weight("bf16", "row_major", (10, 8), "table")}
    for name, constant in constants.items():
        write(tmp_path, name, packed_bytes(constant))
    assert check_packed(constants.items(), tmp_path) == 2 * 1088 + 160


def test_every_file_that_holds_other_bytes_is_named(tmp_path):
    constants = {"flipped": weight(), "short": weight(), "missing": weight()}
    body = packed_bytes(weight())
    write(tmp_path, "flipped", np.concatenate([body[:-1], body[-1:] ^ 1]))
    write(tmp_path, "short", body[:-1])
    with pytest.raises(PackingError) as caught:
        check_packed(constants.items(), tmp_path)
    assert "3 files" in str(caught.value)
    assert "flipped: 1 of 2176 bytes differ" in str(caught.value)
    assert "short: 2175 bytes, and ours are 2176" in str(caught.value)
    assert "missing: there is no missing.tensorbin" in str(caught.value)


def test_a_host_step_in_the_midst_is_a_round_trip_with_its_bytes():
    assert round_trips(program()) == ()
    (trip,) = round_trips(program(host=True))
    assert (trip.down_bytes, trip.up_bytes, trip.stops_the_card) == (4 * 32 * 32, 4 * 32 * 32, True)


def test_tolerance_is_twice_the_difference_of_two_computations():
    found = Tolerance.between([1.0, -1.0, 2.0], [1.1, -1.0, 2.0])
    assert found.seen_max_abs == pytest.approx(0.1)
    assert found.max_abs == pytest.approx(FACTOR * 0.1)
    assert found.snr_db == pytest.approx(found.seen_snr_db - 20 * math.log10(FACTOR))


def test_tolerance_is_never_tighter_than_a_step_of_bf16():
    found = Tolerance.between([1.0, -4.0], [1.0, -4.0])
    assert (found.snr_db, found.max_abs, found.seen_snr_db) == (BF16_SNR_DB, 4 * 2**-8, math.inf)
    assert found.to_dict()["seen_snr_db"] is None


@pytest.mark.parametrize(("expected", "other"), [([1.0], [1.0, 2.0]), ([1.0], [math.nan])])
def test_tolerance_of_what_tells_nothing_is_refused(expected, other):
    with pytest.raises(ValueError, match=r"shape|NaN"):
        Tolerance.between(expected, other)


def test_silence_has_no_ratio():
    assert snr_db([0.0], [1.0]) == -math.inf
    assert snr_db([0.0], [0.0]) == math.inf


def test_manifest_has_what_every_step_must_be_found_to_compute_in():
    data = manifest(program(), FACTS.tolerances)
    step = data["steps"][1]
    assert (step["call"], step["site"], step["dtype"]) == ("ttnn.linear", "first", "bf16")
    assert step["input_dtypes"] == ["bf16", "bfp8_b"]
    assert step["compute"] == {
        "fidelity": "lofi",
        "fp32_accumulation": True,
        "packer_l1_acc": False,
        "approximate": False,
        "full_sync": False,
    }
    assert data["constants"]["weight"]["file"] == "weights/weight.tensorbin"
    assert data["outputs"]["waveform"]["name"] == "out"
    assert data["outputs"]["waveform"]["tolerance"]["max_abs"] == pytest.approx(0.02)


def test_readme_says_what_runs_it_and_that_no_card_did():
    text = readme(program(), FACTS)
    assert "python run.py --plan" in text
    assert "no operation is left on the host" in text
    assert "has not run on a card" in text
    assert "| lofi | 75.0% |" in text
    assert requirements(program()) == "ttnn==0.81.1\n"


def test_readme_tells_round_trips_by_their_bytes():
    text = readme(program(host=True), FACTS)
    assert "| layers.1 | 4096 | 4096 |" in text
    assert "`host.py`" in text
    assert "torch" in requirements(program(host=True))


def read(path):
    with np.load(path) as held:
        return dict(held)


def pack(folder, arrays):
    """Our own packer, in place of ttnn's."""
    listed = json.loads((folder / "program.json").read_text())["constants"]
    for name, constant in listed.items():
        value = Value(name, tuple(constant["shape"]), constant["dtype"])
        write(folder / "weights", name, packed_bytes(Constant(value, arrays[name], value.dtype, constant["layout"])))


def test_a_program_is_written_with_all_that_runs_it(tmp_path):
    assert write_program(program(host=True), tmp_path, pack, {"model": "tiny"}) == 2 * 1088
    assert {path.name for path in tmp_path.iterdir()} >= {
        "model.py", "host.py", "program.json", "runtime.py", "mock_card.py", "weights",
    }  # fmt: skip
    assert "precision_search" not in (tmp_path / "model.py").read_text()
    ast.parse((tmp_path / "model.py").read_text())
    data = json.loads((tmp_path / "program.json").read_text())
    assert data["model"] == "tiny"
    assert [step["call"] for step in data["steps"]] == [
        "runtime.upload", "ttnn.linear", "runtime.download", "host.host_0", "runtime.upload", "runtime.download",
    ]  # fmt: skip


def test_host_steps_compute_what_they_say(tmp_path):
    made = replace(program(host=True), host_constants={"shift": np.float32(2.0).reshape(1), "unread": np.zeros(3)})
    steps = [
        replace(step, code="moved = out + shift\nturned = torch.cos(moved)") if isinstance(step, HostStep) else step
        for step in made.steps
    ]
    write_program(replace(made, steps=tuple(steps)), tmp_path, pack)
    assert list(read(tmp_path / "weights" / "host.npz")) == ["shift"]
    spec = importlib.util.spec_from_file_location("exported_host", tmp_path / "host.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (turned,) = module.host_0(np.linspace(0, 1, 5, dtype=np.float32))
    np.testing.assert_allclose(turned, np.cos(np.linspace(2, 3, 5)), rtol=1e-6)


def test_state_is_copied_at_the_end_of_a_run():
    made = program()
    state = State(Value("held", (1, 1, 32, 32), "bf16"), "y")
    data = manifest(replace(made, states={"held": state}))
    assert data["streaming"]
    assert (data["steps"][-1]["call"], data["steps"][-1]["inputs"]) == ("ttnn.copy", ["y", "held"])
    assert data["states"]["held"]["dtype"] == "bf16"


def test_a_sample_is_read_as_it_was_written(tmp_path):
    write_sample(tmp_path, {"x": np.arange(3)}, {"audio.0": np.ones((2, 2), np.float32)})
    assert read(tmp_path / "sample" / "input.npz")["x"].tolist() == [0, 1, 2]
    assert read(tmp_path / "sample" / "expected.npz")["audio.0"].shape == (2, 2)


def test_words_are_written(tmp_path):
    write_words(program(), tmp_path, FACTS, "sites: {}\n")
    assert (tmp_path / "policy.yaml").read_text() == "sites: {}\n"
    assert (tmp_path / "README.md").read_text() == readme(program(), FACTS)


def test_a_vector_unit_that_errs_moves_results_by_a_unit_in_the_last_place():
    made = program()
    upload, linear, download = made.steps
    relu = CardStep("relu", ("y",), Value("z", linear.result.shape, "bf16"))
    made = replace(made, steps=(upload, linear, relu, replace(download, inputs=("z",))))
    inputs = {"x": torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, 32, 64)).astype(np.float32))}
    told = []
    exact = Simulator(made).run(inputs)["waveform"]
    moved = doubted(made, told.append).run(inputs)["waveform"]
    assert told == ["a", "y", "z", "out"]
    units = (moved - exact) / torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 8)
    assert set(units[exact != 0].tolist()) == {-1.0, 0.0, 1.0}
    assert moved[exact == 0].eq(0).all()
    assert torch.equal(doubted(made).run(inputs)["waveform"], moved)
    assert torch.equal(doubted(program()).run(inputs)["waveform"], Simulator(program()).run(inputs)["waveform"])


def test_readme_of_a_stream_says_how_chunks_make_an_utterance():
    sizes = {"chunk_ms": 80.0, "chunk_frames": 5, "chunk_samples": 1280, "latency_samples": 96}
    stream = {**sizes, "inputs": {"mel": {}}, "masks": {"early": {}}, "parts": {}}
    text = readme(program(), replace(FACTS, stream=stream, sites=3))
    assert "It has 1 of the 3 sites" in text
    assert "sample i of chunk n is sample 1280 n - 96 + i of the utterance" in text
    assert "`early`" in text
    steps = readme(program(), replace(FACTS, stream={**sizes, "latency_samples": 2560, "inputs": {}, "masks": {}}))
    assert "the first 2560 samples (2 runs)" in steps
    assert "`python run.py --stream --check`" in text
