"""Layouts of single products: whole matrix products and element-wise tiles, as Dst holds them before packing."""

import re
from collections.abc import Mapping
from typing import Literal, cast

from backends.tenstorrent.exact.eltwise import elementwise
from backends.tenstorrent.exact.host import host_pack, host_pack_bf16
from backends.tenstorrent.exact.matmul import matmul
from backends.tenstorrent.exact.operations import Format, Values, host_registers
from backends.tenstorrent.exact.tiles import bytes_to_tiles, tiles_to_bytes
from backends.tenstorrent.exact.unpacker import unpack_bfp
from backends.tenstorrent.verify.vectors import FIDELITY, Array, Layout, Vectors, match
from precision.policy import Fidelity

_KINDS = "(?P<name>[AB])_(?P<kind>bf16|tf32|bfp[48]|bfp[48]_bytes)"
_OPERAND = f"(?P<dist>.+__|){_KINDS}"
_COMBO = r"(?P<in0>bf16|bfp8|bfp4|tf32|fp32tr)_(?P<in1>bf16|bfp8|bfp4|tf32|fp32tr)"
_END = rf"{_COMBO}__{FIDELITY}__(?P<dst>dst16|dst32)__(?P<chip>wh|bh)"
_CHIPS = {"wh": "Wormhole", "bh": "Blackhole"}
_BLOCKS: dict[str, Format] = {"bfp8": "bfp8_b", "bfp4": "bfp4_b"}


def _compute(vectors: Vectors, key: str) -> Mapping[str, Array]:
    operand = re.fullmatch(_OPERAND, key)
    if operand is not None:
        return {"": _operand(vectors, operand["dist"], operand["name"], operand["kind"])}
    parts = match(rf"(?P<dist>.+__|)C__((?P<op>mul|add|sub)__)?{_END}", key)
    a = _registers(vectors, parts["dist"] + "A", parts["in0"])
    b = _registers(vectors, parts["dist"] + "B", parts["in1"])
    fidelity = cast(Fidelity, parts["fidelity"].lower())
    dst16, tf32 = parts["dst"] == "dst16", parts["in0"] == "tf32" or parts["in1"] == "tf32"
    results: dict[str, Array] = {}
    for chip in vectors.chips(key):
        if parts["op"] is None:
            results[_CHIPS[chip]] = matmul(a, b, fidelity, dst16, chip == "wh", None, tf32)
        else:
            op = cast(Literal["add", "sub", "mul"], parts["op"])
            results[_CHIPS[chip]] = elementwise(op, a, b, fidelity, dst16, chip == "wh", tf32)
    return results


def _operand(vectors: Vectors, dist: str, name: str, kind: str) -> Array:
    raw = vectors.floats(f"{dist}{name}_raw")
    if kind == "bf16":
        return host_pack_bf16(raw)
    if kind == "tf32":
        return host_registers(raw, "fp32", dst16=False)
    fmt = _BLOCKS[kind[:4]]
    if kind.endswith("_bytes"):
        return tiles_to_bytes(*host_pack(raw.reshape(-1, raw.shape[-1]), fmt), fmt)
    # Of the file's own bytes, so that packer and unpacker are blamed apart.
    shape = (raw.size // raw.shape[-1], raw.shape[-1])
    stored = bytes_to_tiles(vectors[f"{dist}{name}_{kind}_bytes"], fmt, shape)
    return unpack_bfp(*stored, fmt).reshape(raw.shape)


def _registers(vectors: Vectors, name: str, kind: str) -> Values:
    """Registers made from the raw operand, not from the file's own."""

    def make() -> Values:
        fmt: Format = "fp32" if kind in ("tf32", "fp32tr") else _BLOCKS.get(kind, "bf16")
        return host_registers(vectors.floats(f"{name}_raw"), fmt, dst16=kind == "fp32tr")

    return vectors.once(f"{name}_{kind}", make)


_HOLDS = """{dist}A_raw, {dist}B_raw    float32 operands, A the activations
    {dist}{{A,B}}_{{bf16,tf32,bfp8,bfp4}}, _bytes    as stored and as a register shows them
    {dist}C__{op}IN0_IN1__FIDELITY__DST__CHIP    Dst before packing;
        CHIP wh or bh, a wh array alone holds for both"""

MATMUL = Layout(
    "matmul",
    _HOLDS.format(dist="DIST__", op=""),
    re.compile(rf".+__C__{_END}|.+__{_KINDS}"),
    re.compile(r".+__[AB]_raw"),
    _compute,
)
ELTWISE = Layout(
    "eltwise",
    _HOLDS.format(dist="", op="{add,sub,mul}__"),
    re.compile(rf"C__(mul|add|sub)__{_END}|{_KINDS}"),
    re.compile(r"[AB]_raw|dists"),
    _compute,
)
