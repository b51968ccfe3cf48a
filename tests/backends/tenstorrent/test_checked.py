"""What an export looks at before it runs; none of it needs ttnn, whose parts are stubs here."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from backends.tenstorrent.exported import FOLDER
from backends.tenstorrent.manifest import TTNN, VERSION
from tests.backends.tenstorrent.conftest import tiny_manifest

FAILURE = type("RuntimeFailure", (RuntimeError,), {})


def module_of(name, monkeypatch):
    """A file as an export has it."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"{name}_of_an_export", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for imported in ("arrays", "checked", "chunks", "mock_card"):
        sys.modules.pop(imported, None)
    return module


@pytest.fixture
def checked(monkeypatch):
    return module_of("checked", monkeypatch)


@pytest.fixture
def arrays(monkeypatch):
    return module_of("arrays", monkeypatch)


@pytest.fixture
def replay(monkeypatch):
    """Sessions on a card whose tensors are arrays in buffers."""

    def copy(source, target):
        target.values[...] = source.values

    def deallocate(tensor):
        tensor.freed = True

    ttnn = SimpleNamespace(
        copy_host_to_device_tensor=copy,
        deallocate=deallocate,
        is_tensor_storage_on_device=lambda tensor: tensor.address is not None,
    )
    runtime = SimpleNamespace(Export=object, RuntimeFailure=FAILURE, ttnn=ttnn, observe=None)
    monkeypatch.setitem(sys.modules, "runtime", runtime)
    monkeypatch.setitem(sys.modules, "planner", SimpleNamespace(Watched=None))
    return module_of("replay", monkeypatch)


class Buffered:
    """A tensor as ttnn has it: values, and where they lie."""

    def __init__(self, address, kind="dram", shape=(4,)):
        self.address, self.kind, self.freed, self.values = address, kind, False, np.zeros(shape)

    def is_allocated(self):
        return not self.freed

    def buffer_address(self):
        return self.address

    def memory_config(self):
        return SimpleNamespace(buffer_type=self.kind)


class Summing:
    """An export whose state is the sum of all that was given."""

    def __init__(self):
        self.manifest = {"inputs": [{"name": "x", "shape": [4], "dtype": "float32"}], "states": {"sum": {}}}

    def load(self, device):
        return {}

    def initial_state(self, device):
        return {"sum": Buffered(None if device is None else 64)}

    def run(self, device, weights, inputs, state):
        state["sum"].values += inputs["x"]
        return {"sums": state["sum"].values.copy()}


def test_a_second_utterance_starts_from_state_zero(replay):
    session = replay.Session(Summing(), "card")
    lies = session.state["sum"]
    first = session.stream({"x": np.ones(12)})
    assert first["sums"].tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    assert session.stream({"x": np.ones(12)})["sums"].tolist() == first["sums"].tolist()
    assert session.state["sum"] is lies  # where a trace reads it


def test_runs_that_are_no_stream_go_on_from_the_state_before(replay):
    session = replay.Session(Summing(), "card")
    sums = [session.run({"x": np.ones(4)})["sums"][0] for _ in range(2)]
    assert sums == [1.0, 2.0]


def test_a_trace_deallocates_only_what_shares_no_buffer_with_what_it_keeps(replay):
    traced = replay.Traced(Summing(), "card")
    source, sink = Buffered(128), Buffered(256)
    traced._sources.append(source)
    traced._sinks.append(sink)
    keeping = replay._Keeping(traced._is_kept)
    views = [Buffered(128, shape=(2, 2)), Buffered(256, shape=(1, 4))]
    for tensor in (source, sink, *views):
        keeping.deallocate(tensor)
        assert not tensor.freed
    for other in (Buffered(512), Buffered(128, "l1")):
        keeping.deallocate(other)
        assert other.freed
    host = Buffered(None)
    assert not traced._is_kept(host)


def written(folder, manifest):
    (folder / "program.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return folder


def test_a_manifest_is_read(checked, tmp_path):
    manifest = tiny_manifest("blackhole_p150")
    assert checked.read_manifest(written(tmp_path, manifest)) == manifest
    assert checked.VERSION == VERSION


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('{"card": "wormho', r"program\.json is damaged \(Unterminated string.*\); export again"),
        ("", r"program\.json is damaged \(Expecting value"),
        ("[]", r"is damaged \(it is no object of JSON\)"),
        ({"version": VERSION + 1}, rf"is of version {VERSION + 1}, and the files beside it read version {VERSION};"),
        ({"version": None}, "is of version None"),
        ({"inputs": {}, "states": None}, "inputs is missing or no list; states is missing or no dict"),
        ({"inputs": [{"name": "x"}]}, "an entry of inputs has not all of name, shape, dtype"),
        ({"steps": [1]}, "an entry of steps has not all of index, call, op"),
        ({"grid": [8]}, "grid is not two numbers"),
    ],
)
def test_a_manifest_that_can_not_be_read_is_told(checked, tmp_path, change, message):
    text = change if isinstance(change, str) else {**tiny_manifest("wormhole_n150"), **change}
    with pytest.raises(checked.UseError, match=message):
        checked.read_manifest(written(tmp_path, text))


def test_another_ttnn_is_refused(checked, monkeypatch):
    for found in (TTNN, f"{TTNN}+local"):
        monkeypatch.setattr(checked, "version", lambda _, found=found: found)
        checked.check_library({"ttnn": TTNN})
    monkeypatch.setattr(checked, "version", lambda _: "0.60.0")
    with pytest.raises(checked.UseError, match=rf"made for ttnn {TTNN}, and 0\.60\.0 is installed: pip install -r"):
        checked.check_library({"ttnn": TTNN})


def opened(name, columns, rows):
    """A card as far as it is asked what it is."""
    grid = SimpleNamespace(x=columns, y=rows)
    return SimpleNamespace(arch=lambda: SimpleNamespace(name=name), compute_with_storage_grid_size=lambda: grid)


def test_a_card_must_be_of_the_kind_and_have_the_cores(checked):
    manifest = tiny_manifest("wormhole_n150")
    for columns, rows in ((8, 8), (8, 9)):
        checked.check_card(manifest, opened("WORMHOLE_B0", columns, rows))
    with pytest.raises(
        checked.UseError, match=r"\(wormhole, 8 x 8 cores\), and this card is a blackhole of 13 x 10; exp"
    ):
        checked.check_card(manifest, opened("BLACKHOLE", 13, 10))
    with pytest.raises(checked.UseError, match="this card is a wormhole of 8 x 7; export again, with the --card"):
        checked.check_card(manifest, opened("WORMHOLE_B0", 8, 7))


@pytest.mark.parametrize(
    ("dtype", "values", "fault"),
    [
        ("float32", [0.5, 1e30], None),
        ("float32", [1, 2], None),
        ("float32", [np.nan, 1.0, np.inf], "has 2 of 3 values that are NaN or infinite (in float32)"),
        ("float32", [1e300, 1.0], "has 1 of 2 values that are NaN or infinite (in float32)"),
        ("float32", [1j], "must be real numbers, got complex128"),
        ("float32", ["a"], "must be real numbers, got <U1"),
        ("int64", [1, 2], None),
        ("int64", [1.0], "must be integers, got float64"),
        ("int32", [1, 2**31], "has 1 of 2 values that int32 can't hold"),
        ("uint32", [-1, -2], "has 2 of 2 values that uint32 can't hold"),
    ],
)
def test_values_that_no_program_takes_are_counted(checked, dtype, values, fault):
    manifest = {"inputs": [{"name": "x", "dtype": dtype}, {"name": "y", "dtype": dtype}]}
    assert checked.faults(manifest, {"x": np.array(values)}) == ([] if fault is None else [f"x {fault}"])


def test_files_that_hold_no_arrays_are_told(arrays, tmp_path):
    named = {"text.npz": b"hello", "empty.npz": b"", "text.npy": b"hello", "cut.npz": b"PK\x03\x04 and no more"}
    for name, content in named.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "object.npz", x=np.array([None, {}], object))
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(1))
    for name in (*named, "object.npz"):
        with pytest.raises(arrays.UseError, match=rf"{name} can't be read as arrays of numbers"):
            arrays.read_inputs(tmp_path / name, ["x"])
    with pytest.raises(arrays.UseError, match=r"one\.npz is no \.npz inside; save it by np\.savez"):
        arrays.read_inputs(tmp_path / "one.npz", ["x"])
    np.savez(tmp_path / "many.npz", x=np.zeros(1))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(arrays.UseError, match=r"many\.npy is no \.npy inside"):
        arrays.read_inputs(tmp_path / "many.npy", ["x"])


def test_where_outputs_can_not_go_is_known_before(arrays, tmp_path):
    assert arrays.output_fault(tmp_path / "out.wav", 16000) is None
    assert arrays.output_fault(tmp_path / "out.npz", None) is None
    assert "got out.mp3" in arrays.output_fault(tmp_path / "out.mp3", 16000)
    assert "no sample_rate_hz" in arrays.output_fault(tmp_path / "out.wav", None)
    assert "there is no folder" in arrays.output_fault(tmp_path / "none" / "out.npz", None)
    (tmp_path / "folder.npz").mkdir()
    assert "is a folder" in arrays.output_fault(tmp_path / "folder.npz", None)
