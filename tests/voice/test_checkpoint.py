"""Checkpoints that load, and the clear refusal of each one that must not."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from voice.checkpoint import CheckpointError, content_digest, load_into, load_state_dict


class Bomb:
    """Runs a command where it is unpickled carelessly."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


@pytest.mark.parametrize(
    "save",
    [
        lambda path: save_file(state(), path),
        lambda path: torch.save(state(), path),
        lambda path: torch.save({"generator": state()}, path),
        lambda path: torch.save({"epoch": 3, "state_dict": state()}, path),
        lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model"])
def test_formats(tmp_path: Path, save: Callable[[Path], None], name: str) -> None:
    path = tmp_path / name
    save(path)
    loaded = load_state_dict(path)
    assert loaded.keys() == state().keys()
    assert all(torch.equal(loaded[key], value) for key, value in state().items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool, name: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / name
    torch.save({"w": torch.ones(1), "x": Bomb(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"could run code; refused"):
        load_state_dict(path)
    assert not trace.exists()


def test_a_bare_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    for protocol in range(2, 6):
        trace, path = tmp_path / "trace", tmp_path / f"{protocol}.pt"
        path.write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
        with pytest.raises(CheckpointError, match=r"could run code; refused"):
            load_state_dict(path)
        assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=r"truncated|end is missing|neither a safetensors"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text of some length", "neither a safetensors file nor a torch checkpoint"),
        (b"\x80\x02", "damaged or truncated"),
        (b"\x80\x04garbage", "refused"),
        (b"PK\x03\x04garbage", "end is missing"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "damaged or truncated safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["m.pt", "m.bin"])
def test_no_checkpoint(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(path)


def test_missing_file_folder_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state_dict(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state_dict(tmp_path)
    path = tmp_path / "m.pt"
    for content, message in (
        ([1, 2], "holds a list"),
        ({}, "holds a dict"),
        ({"a": state(), "b": state(), "c": 1}, r"found 2; its keys: a, b, c"),
        ({"epoch": 3}, "found 0"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            load_state_dict(path)


def test_every_mismatch_in_one_message_and_nothing_loaded() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = content_digest(module.state_dict())
    bad = {
        "0.weight": torch.ones(2, 4),
        "0.bias": torch.tensor([1.0, float("nan")]),
        "1.bias": torch.tensor([1.0, float("inf")]),
        **{f"extra.{index}": torch.ones(1) for index in range(15)},
    }
    with pytest.raises(CheckpointError) as caught:
        load_into(module, bad, Path("w.pt"))
    message = str(caught.value)
    assert message.startswith("w.pt: does not fit Sequential: missing keys: 1.weight; unknown keys: extra.0, ")
    assert "extra.11 and 3 more; wrong shapes: 0.weight is (2, 4), must be (2, 3)" in message
    assert message.endswith("weights with NaN or Inf: 0.bias, 1.bias")
    assert content_digest(module.state_dict()) == before


def test_load_into_copies() -> None:
    module = nn.Linear(3, 2)
    load_into(module, {name: value.half() for name, value in state().items()}, Path("w"))
    assert torch.equal(module.weight, state()["weight"])
    assert module.weight.dtype == torch.float32


def test_digest_sees_content_only() -> None:
    digest = content_digest(state())
    assert digest == content_digest(dict(reversed(state().items())))
    assert digest == content_digest(state() | {"weight": state()["weight"].T.contiguous().T})
    assert len(digest) == 16
    others = [
        state() | {"weight": state()["weight"].reshape(3, 2)},
        state() | {"bias": torch.tensor([1.0, 1.0])},
        state() | {"bias": state()["bias"].bfloat16()},
        state() | {"scale": torch.tensor(1.0)},
        {"w" + name: value for name, value in state().items()},
    ]
    assert len({digest, *(content_digest(other) for other in others)}) == 6
