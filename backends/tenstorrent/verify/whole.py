"""Layouts of whole ttnn operations: linear, element-wise, conv1d."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from backends.tenstorrent.exact.binary import Binary, binary
from backends.tenstorrent.exact.convolution import conv1d
from backends.tenstorrent.exact.linear import linear
from backends.tenstorrent.exact.operations import Format, Program
from backends.tenstorrent.verify.vectors import FIDELITY, Array, Chip, Layout, UncheckedError, Vectors, match
from precision.policy import Fidelity

_FORMATS: dict[str, Format] = {"bf16": "bf16", "bfp8": "bfp8_b", "bfp4": "bfp4_b", "fp32": "fp32"}
_IN = "(?P<in0>bf16|bfp8|bfp4|fp32)_(?P<in1>bf16|bfp8|bfp4|fp32)"
_OUT = "out_(?P<out>bf16|bfp8|bfp4|fp32)"
_RUN = rf"{FIDELITY}__(?P<dst>dst16|dst32)__(?P<acc>noacc|l1acc)"
_LINEAR = rf"(?P<dist>.+)__C__(?P<config>{_IN}__{_RUN}__{_OUT}__(?P<bias>bias|nobias)(__(?P<program>\w+))?)"
_BINARY = rf"(?P<dist>.+)__C__(?P<op>add|sub|mul)__{_IN}__{_OUT}"
_CONV = rf"y__w_(?P<w>bf16|bfp8|bfp4)__dil(?P<dil>\d+)__{_RUN}__(?P<bias>bias|nobias)(__w(?P<width>\d+))?"
_CHOSEN: dict[tuple[int, int, int], tuple[int, int]] = {
    (32, 64, 32): (2, 2),
    (64, 256, 96): (1, 1),
    (128, 512, 128): (2, 1),
    (32, 512, 512): (2, 2),
    (512, 512, 512): (2, 1),
    (512, 2048, 512): (8, 1),
    (1024, 256, 1024): (1, 1),
    (128, 1536, 384): (6, 1),
    (64, 448, 64): (1, 1),
    (32, 96, 32): (1, 1),
    (2048, 64, 64): (2, 2),
}
"""in0_block_w that ttnn 0.81.1 chose for (M, K, N) on the simulator's Wormhole and Blackhole grids."""
_CONV_CHOSEN = {(64, 7): 2}
"""The same of block-sharded conv1d, for (channels, taps)."""


def _linear(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(_LINEAR, key)
    chip = vectors.chip()
    x, weight = vectors.floats(f"{parts['dist']}__A_raw"), vectors.floats(f"{parts['dist']}__B_raw")
    bias = vectors.floats(f"{parts['dist']}__bias_raw").reshape(-1) if parts["bias"] == "bias" else None
    width = _block_width(vectors, chip, (len(x), len(weight), weight.shape[1]), parts["config"], parts["program"])
    program = _program(parts, chip, _FORMATS[parts["out"]], width)
    return {"": linear(x, weight, bias, program, _FORMATS[parts["in0"]], _FORMATS[parts["in1"]])}


def _binary(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(_BINARY, key)
    x, y = (vectors.floats(f"{parts['dist']}__{name}_raw") for name in "AB")
    formats = (_FORMATS[parts[name]] for name in ("in0", "in1", "out"))
    return {"": binary(cast(Binary, parts["op"]), x, y, *formats, wormhole=vectors.chip() == "wh")}


def _conv1d(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(_CONV, key)
    x, weight = vectors.floats("x_raw"), vectors.floats("w_raw")
    bias = vectors.floats("bias_raw").reshape(-1) if parts["bias"] == "bias" else None
    _, channels, taps = weight.shape
    width: int | None = None
    if not vectors.path.name.startswith("conv1dh_"):
        width = int(parts["width"]) if parts["width"] else _CONV_CHOSEN.get((channels, taps))
        if width is None:
            raise UncheckedError(
                f"in0_block_w of a block-sharded conv1d of {channels} channels and {taps} taps is not known: add it to "
                f"the array's name, as {key}__w2"
            )
    dilation = int(parts["dil"])
    program = _program(parts, vectors.chip(), "bf16", width)
    padding = dilation * (taps // 2)
    fmt = _FORMATS[parts["w"]]
    outputs = [conv1d(row, weight, bias, program, fmt, padding=padding, dilation=dilation) for row in x]
    return {"": np.concatenate(outputs)}


def _program(parts: re.Match[str], chip: Chip, output: Format, width: int | None) -> Program:
    return Program(
        cast(Fidelity, parts["fidelity"].lower()),
        dst16=parts["dst"] == "dst16",
        wormhole=chip == "wh",
        output=output,
        packer_l1_acc=parts["acc"] == "l1acc",
        in0_block_w=width,
    )


def _block_width(vectors: Vectors, chip: Chip, shape: tuple[int, int, int], config: str, program: str | None) -> int:
    """in0_block_w: named in the array's name, else in a configs_*.json beside the file, else from what is known."""
    explicit = re.search(r"(?:^|_)w(\d+)", program or "")
    if explicit is not None:
        return int(explicit[1])
    name = "x".join(map(str, shape)) + "__" + config
    for path in sorted(vectors.path.parent.glob(f"configs_{chip}_mm*.json")):
        configs = vectors.once(path.name, partial(_configs, path))
        entry = configs.get(name) or configs.get("x" + name)
        try:
            if entry is not None:
                return int(entry["args"]["in0_block_w"])
        except (KeyError, TypeError, ValueError) as error:
            raise UncheckedError(f"{path.name} has no args.in0_block_w for {name}: record it there") from error
    if program is None and shape in _CHOSEN:
        return _CHOSEN[shape][0 if chip == "wh" else 1]
    raise UncheckedError(
        f"in0_block_w that ttnn chose is not known: end the array's name in __w2 (its tiles of K in a block), or put "
        f'configs_{chip}_mm.json beside the file: {{"{name}": {{"args": {{"in0_block_w": 2}}}}}}'
    )


def _configs(path: Path) -> dict[str, Any]:
    try:
        configs = json.loads(path.read_text())
    except ValueError as error:
        raise UncheckedError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(configs, dict):
        raise UncheckedError(f"{path.name} holds a {type(configs).__name__}, not an object of configurations")
    return configs


LINEAR = Layout(
    "ops linear",
    """DIST__{A,B,bias}_raw                          float32 given to ttnn.from_torch; bias is stored as bf16
    DIST__C__IN0_IN1__FIDELITY__DST__ACC__out_FMT__BIAS[__wN]    ttnn.to_torch(ttnn.linear(A, B, bias=bias));
        ACC noacc or l1acc, BIAS bias or nobias, wN in0_block_w; file name ends in _wh or _bh""",
    re.compile(_LINEAR),
    re.compile(r".+__(A|B|bias)_raw"),
    _linear,
)
BINARY = Layout(
    "ops element-wise",
    "DIST__{A,B}_raw, DIST__C__{add,sub,mul}__IN0_IN1__out_FMT    as ops linear",
    re.compile(_BINARY),
    re.compile(r".+__[AB]_raw"),
    _binary,
)
CONV1D = Layout(
    "ops conv1d",
    """x_raw [1, time, channels], w_raw [out, channels, taps], bias_raw    float32
    y__w_FMT__dilN__FIDELITY__DST__ACC__BIAS[__wN]    bf16 output of ttnn.conv1d with padding N * (taps // 2);
        conv1d_*: block-sharded, conv1dh_*: height-sharded""",
    re.compile(_CONV),
    re.compile(r"(x|w|bias)_raw"),
    _conv1d,
)
