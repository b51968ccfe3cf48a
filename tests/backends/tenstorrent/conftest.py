"""Exports to be planned on mock cards: a model written by hand, with its manifest and packed weights."""

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.tenstorrent import engine
from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.exported import FILES, FOLDER
from backends.tenstorrent.manifest import TTNN, VERSION

TINY = Path(__file__).parent / "tiny"
SHAPES = {
    "proj_weight": (64, 96),
    "conv_weight": (32, 64, 1, 7),
    "conv_bias": (1, 1, 1, 32),
    "up_weight": (32, 32, 1, 4),
}
ROW, WIDE, DOUBLE = [1, 1, 64, 64], [1, 1, 64, 96], [1, 1, 128, 32]
STEPS: list[tuple[str, str, str | None, list[int], str]] = [
    ("runtime.upload", "upload", None, ROW, "bf16"),
    ("ttnn.layer_norm", "layer_norm", None, ROW, "bf16"),
    ("ttnn.typecast", "typecast", None, ROW, "bfp8_b"),
    ("ttnn.linear", "linear", "proj", WIDE, "bf16"),
    ("ttnn.softmax", "softmax", None, WIDE, "bf16"),
    ("ttnn.permute", "permute", None, [1, 1, 96, 64], "bf16"),
    ("ttnn.matmul", "matmul", "mix#op0", ROW, "bf16"),
    ("ttnn.linear", "linear", "wrong", WIDE, "bf16"),
    ("ttnn.conv1d", "conv1d", "narrow", [1, 1, 64, 32], "bf16"),
    ("ttnn.conv_transpose2d", "conv_transpose1d", "longer", DOUBLE, "bf16"),
    ("runtime.download", "download", None, DOUBLE, "float32"),
    ("host.host_0", "host", None, [128], "float32"),
    ("ttnn.copy", "copy", None, ROW, "bf16"),
]
HOST = """def host_0(channels):
    return (channels[:, 0],)
"""


def tiny_manifest(card: str) -> dict[str, Any]:
    steps = []
    for index, (call, op, site, shape, dtype) in enumerate(STEPS):
        made = {"shape": shape, "dtype": dtype}
        result = {"results": [{"name": "waveform", **made}]} if op == "host" else {**made, "memory": "dram"}
        place = "host" if op in ("download", "host") else "card"
        steps.append({"index": index, "call": call, "op": op, "site": site, "source": "tiny", "place": place, **result})
    constants = {
        name: {
            "file": f"weights/{name}.tensorbin",
            "shape": list(shape),
            "dtype": "bfp8_b" if name == "proj_weight" else "bf16",
            "layout": "tile" if name == "proj_weight" else "row_major",
            "on_host": name != "proj_weight",
        }
        for name, shape in SHAPES.items()
    }
    kept = {"name": "kept", "shape": ROW, "dtype": "bf16", "layout": "tile", "memory": "dram", "update": "normed"}
    return {
        "version": VERSION,
        "ttnn": TTNN,
        "card": card,
        "architecture": card.split("_")[0],
        "grid": list(CARDS[card].grid),
        "sample_rate_hz": 16000,
        "inputs": [{"name": "x", "shape": [64, 64], "dtype": "float32"}],
        "outputs": {"waveform": {"name": "waveform", "shape": [128], "dtype": "float32", "tolerance": None}},
        "constants": constants,
        "states": {"kept": kept},
        "steps": steps,
    }


def write_tiny(folder: Path, card: str = "wormhole_n150", refused: bool = True) -> Path:
    """The export without its weights; `refused` keeps the operation that ttnn refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(FOLDER / name, folder / name)
    text, manifest = (TINY / "model.py").read_text(), tiny_manifest(card)
    if not refused:
        begin, end = text.index("    wrong = "), text.index("    narrow, (")
        text = text[:begin] + text[end:]
        kept = [step for step in manifest["steps"] if step["site"] != "wrong"]
        manifest["steps"] = [{**step, "index": index} for index, step in enumerate(kept)]
    (folder / "model.py").write_text(text)
    (folder / "host.py").write_text(HOST)
    (folder / "program.json").write_text(json.dumps(manifest))
    return folder


def write_full(folder: Path) -> Path:
    """An export of products that leave too little L1, or take more than there is: 64 x K times K x 64."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(FOLDER / name, folder / name)
    shutil.copy(TINY / "full.py", folder / "model.py")
    inputs = {"tight": [1, 1, 64, 32 * 216], "over": [1, 1, 64, 32 * 256]}
    steps: list[dict[str, Any]] = []
    for name, shape in inputs.items():
        turned = [1, 1, shape[3], shape[2]]
        steps += [{"call": "runtime.upload", "op": "upload", "shape": shape} for shape in (shape, turned)]
        steps.append({"call": "ttnn.matmul", "op": "matmul", "site": name, "shape": ROW})
    steps += [{"call": "runtime.download", "op": "download", "shape": ROW, "dtype": "float32"} for _ in inputs]
    blank = {"site": None, "source": "full", "dtype": "bf16", "memory": "dram", "place": "card"}
    manifest = {
        "version": VERSION,
        "ttnn": TTNN,
        "card": "wormhole_n150",
        "architecture": "wormhole",
        "grid": [8, 8],
        "inputs": [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in inputs.items()],
        "outputs": {},
        "constants": {},
        "states": {},
        "steps": [{**blank, **step, "index": index} for index, step in enumerate(steps)],
    }
    (folder / "program.json").write_text(json.dumps(manifest))
    return folder


def tiny_weights(seed: int = 0) -> Mapping[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="session")
def mock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the mock cards of this session are kept; made once."""
    if importlib.util.find_spec("ttnn") is None:
        pytest.skip("the ttnn wheel is not installed; there is one for CPython 3.12 (and 3.10) on x86-64 Linux only")
    if Path("/dev/tenstorrent").exists():
        pytest.skip("a real card is present, and a mock one is not to be mistaken for it")
    return tmp_path_factory.mktemp("mock-ttnn")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, mock_folder: Path) -> Mapping[str, Path]:
    """Exports for n150: the tiny model, packed, `whole` without the refused operation and `refused` with it; `full`."""
    made = {}
    for name in ("whole", "refused"):
        made[name] = write_tiny(tmp_path_factory.mktemp(name), refused=name == "refused")
        engine.pack(made[name], tiny_weights(), mock_folder)
    return {**made, "full": write_full(tmp_path_factory.mktemp("full"))}
