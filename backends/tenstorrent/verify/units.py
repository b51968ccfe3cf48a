"""Layouts of the units by themselves: single steps of the matrix engine, packer, unpacker, host conversions."""

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from backends.tenstorrent.exact.host import host_decode, host_pack, host_pack_bf16
from backends.tenstorrent.exact.matmul import elwmul_step, mvmul_step
from backends.tenstorrent.exact.operations import Values
from backends.tenstorrent.exact.packer import l1_accumulate, pack, pack_bytes
from backends.tenstorrent.exact.tiles import bytes_to_tiles, tiles_to_bytes
from backends.tenstorrent.exact.unpacker import unpack_bf16, unpack_bfp, unpack_tf32
from backends.tenstorrent.shards import TILE
from backends.tenstorrent.verify.vectors import Array, Layout, UncheckedError, Vectors, match

_BLOCKS: dict[str, Literal["bfp8_b", "bfp4_b"]] = {"bfp8": "bfp8_b", "bfp4": "bfp4_b"}


def _steps(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(r"(?P<stem>(?P<op>mvmul|elwmul)__p(?P<phase>[0-3])__(?P<dst>dst16|dst32))__out_(?P<chip>wh|bh)", key)
    a, b, dst = (vectors.floats(f"{parts['stem']}__{name}") for name in ("srca", "srcb", "dst"))
    step = mvmul_step if parts["op"] == "mvmul" else elwmul_step
    names = {"wh": "Wormhole", "bh": "Blackhole"}
    return {
        names[chip]: step(a, b, dst, int(parts["phase"]), parts["dst"] == "dst16", chip == "wh")
        for chip in vectors.chips(key)
    }


def _packer(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(
        r"(?P<dst>dst16|dst32)__((?P<plain>fp32|bf16)|(?P<kind>bfp8|bfp4)(?P<precise>_precise|)_(?P<form>bytes|regs))",
        key,
    )
    dst16 = parts["dst"] == "dst16"
    dst = _dst(vectors.floats("in"), dst16)
    if parts["plain"] is not None:
        plain = _plain(parts["plain"])
        return {"": _stored(pack(dst, plain, dst16), plain)}
    fmt = _BLOCKS[parts["kind"]]
    packed = pack_bytes(dst.reshape(-1, dst.shape[-1]), fmt, dst16, bool(parts["precise"]))
    if parts["form"] == "bytes":
        return {"": tiles_to_bytes(*packed, fmt)}
    return {"": unpack_bfp(*packed, fmt).reshape(dst.shape)}


def _packer_l1acc(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(r"(?P<dst>dst16|dst32)__(?P<fmt>fp32|bf16)", key)
    dst16, fmt = parts["dst"] == "dst16", _plain(parts["fmt"])
    old = vectors.floats("prior32" if fmt == "fp32" else "prior16")
    new = pack(_dst(vectors.floats("dst"), dst16), fmt, dst16)
    return {"": _stored(l1_accumulate(old, new, fmt), fmt)}


def _unpacker(vectors: Vectors, key: str) -> Mapping[str, Array]:
    if key in ("bf16_regs19", "fp32_to_tf32_regs19", "fp32_to_bf16_regs19"):
        source, _, target = key.removesuffix("_regs19").partition("_to_")
        given = vectors.floats(f"{source}_in")
        if source == "bf16":
            return {"": _regs19(given)}  # copied unchanged
        return {"": _regs19(unpack_tf32(given) if target == "tf32" else unpack_bf16(given))}
    parts = match(r"(?P<kind>bfp8|bfp4)_(?P<form>table|regs19)", key)
    fmt = _BLOCKS[parts["kind"]]
    if parts["form"] == "table":
        codes = np.arange(256 if fmt == "bfp8_b" else 16, dtype=np.uint8)
        exponents = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, len(codes) // 16))
        return {"": _regs19(unpack_bfp(np.ascontiguousarray(exponents), np.tile(codes, (256, 1)), fmt))}
    data = f"{parts['kind']}_bytes"
    if data not in vectors:
        raise UncheckedError(f"needs {data}, which the file lacks")
    tiles = vectors[data]
    stored = bytes_to_tiles(tiles, fmt, (TILE * len(tiles), TILE))
    return {"": _regs19(unpack_bfp(*stored, fmt).reshape(-1, TILE, TILE))}


def _host(vectors: Vectors, key: str) -> Mapping[str, Array]:
    parts = match(r"(?P<source>fp32|bf16src)__((?P<kind>bfp8|bfp4)_(?P<form>bytes|value)|bf16)", key)
    given = vectors.floats("in" if parts["source"] == "fp32" else "bf16src_in")
    if parts["kind"] is None:
        return {"": _stored(host_pack_bf16(given), "bf16")}
    fmt = _BLOCKS[parts["kind"]]
    packed = host_pack(given.reshape(-1, given.shape[-1]), fmt)
    if parts["form"] == "bytes":
        return {"": tiles_to_bytes(*packed, fmt)}
    return {"": host_decode(*packed, fmt).reshape(given.shape)}


def _plain(name: str) -> Literal["fp32", "bf16"]:
    return "fp32" if name == "fp32" else "bf16"


def _dst(values: Values, dst16: bool) -> Values:
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if dst16 else values


def _stored(values: Values, fmt: str) -> Array:
    return (values.view(np.uint32) >> 16).astype(np.uint16) if fmt == "bf16" else values


def _regs19(registers: Values) -> Array:
    return registers.view(np.uint32) >> 13


STEPS = Layout(
    "steps",
    """{mvmul,elwmul}__p{0..3}__{dst16,dst32}__{srca,srcb,dst}   uint32 registers and old Dst
    ..._out_{wh,bh}                               new Dst after one step; out_wh alone holds for both""",
    re.compile(r"(mvmul|elwmul)__p\d__.+"),
    re.compile(r"(mvmul|elwmul)__p[0-3]__(dst16|dst32)__(srca|srcb|dst)"),
    _steps,
)
PACKER = Layout(
    "packer",
    """in                                            uint32 [T, 32, 32] Dst
    {dst16,dst32}__{fp32,bf16,bfp8_bytes,...}     as packed; _precise: bfp8_pack_precise; _regs: unpacked again""",
    re.compile(r"(dst16|dst32)__bfp[48](_precise)?_(bytes|regs)"),
    re.compile(r"in"),
    _packer,
)
PACKER_L1ACC = Layout(
    "packer_l1acc",
    """dst, prior32, prior16                         Dst and the old memory
    {dst16,dst32}__{fp32,bf16}                    the new memory""",
    re.compile(r"prior(16|32)"),
    re.compile(r"dst|prior32|prior16"),
    _packer_l1acc,
)
UNPACKER = Layout(
    "unpacker",
    """bfp8_table, bfp4_table                        registers (19 bits) of [256 exponents, all codes]
    bfp*_bytes, fp32_in, bf16_in                  given; *_regs19: registers of them""",
    re.compile(r"bfp[48]_table|.+_regs19"),
    re.compile(r"bfp[48]_bytes|fp32_in|bf16_in"),
    _unpacker,
)
HOST = Layout(
    "host",
    """in, bf16src_in                                float32 and bf16 patterns given to ttnn.from_torch
    {fp32,bf16src}__{bfp8,bfp4}_{bytes,value}, fp32__bf16   stored; value: after ttnn.to_torch""",
    re.compile(r"(fp32|bf16src)__bfp[48]_(bytes|value)"),
    re.compile(r"in|bf16src_in"),
    _host,
)
