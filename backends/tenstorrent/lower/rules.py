"""Rules: what each of torch's operations becomes on the card. `voice.graph.canon` says which there are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from backends.tenstorrent.lower.arranged import IDENTITY, Arranged
from backends.tenstorrent.lower.elementwise import binary, clamp, gated, gelu, in_fp32, masked_fill, power, unary
from backends.tenstorrent.lower.moves import concatenated, expanded, padded_out, permuted, sliced, viewed
from backends.tenstorrent.lower.reading import Reader, Rule, UnsupportedError, shape_of
from backends.tenstorrent.lower.reductions import norm, reduction, softmax
from backends.tenstorrent.program import Value

aten = torch.ops.aten


def _embedding(reader: Reader, node: fx.Node) -> Arranged:
    table, indices = node.args[0], node.args[1]
    values = reader.constant(table)  # type: ignore[arg-type]
    if values is None:
        raise UnsupportedError("an embedding whose table is no constant of the model")
    name = str(table.target)  # type: ignore[union-attr]
    rest = values.detach().float()
    if not bool(rest.isfinite().all()):
        raise UnsupportedError(f"an embedding whose table {name} has Inf or NaN")
    parts: list[Value] = []
    for _ in range(3 if split(reader, node) else 1):
        part = rest.bfloat16().float()
        rest = rest - part
        if bool(part.any()) or not parts:
            parts.append(reader.build.constant(name, part.numpy(), "bf16", layout="row_major"))
    return looked_up(reader, node, parts, indices)  # type: ignore[arg-type]


def split(reader: Reader, node: fx.Node) -> bool:
    """Whether a table goes in parts: ttnn looks up bf16 alone, and three of those make up any number in fp32."""
    return reader.build.between == "fp32" and not reader.rounds_next(node)


def rows_of(reader: Reader, node: fx.Node, table: Value) -> list[Value]:
    """A table [1, 1, rows, channels] that the card has computed, as what can be looked up."""
    build = reader.build
    if table.dtype == "bf16" or not split(reader, node):
        return [build.laid_out(build.cast(table, "bf16"), "row_major")]
    parts = []
    for left in (2, 1, 0):
        part = build.cast(table, "bf16")
        parts.append(build.laid_out(part, "row_major"))
        if left:
            table = build.step("subtract", [table, part], table.shape, "fp32", name=f"{node.name}_rest")
    return parts


def looked_up(reader: Reader, node: fx.Node, tables: Sequence[Value], indices: fx.Node) -> Arranged:
    """Rows by indices that the host has; of several tables their sum."""
    count = math.prod(int(extent) for extent in indices.meta["val"].shape)
    chosen = reader.build.upload_indices(reader.card_indices(indices), count)
    shape = shape_of(node)
    total: Value | None = None
    for table in tables:
        # ttnn.embedding gives three axes.
        value = reader.build.step("embedding", [chosen, table], (1, count, shape[3]), "bf16", name=node.name)
        if total is None:
            total = value
        else:
            total = reader.build.step("add", [total, value], value.shape, "fp32", name=f"{node.name}_sum")
    assert total is not None
    return Arranged(reader.build.reshaped(total, shape), shape, IDENTITY)


RULES: Mapping[Any, Rule] = {
    aten.add.Tensor: binary("add"),
    aten.add.Scalar: binary("add"),
    aten.sub.Tensor: binary("subtract"),
    aten.sub.Scalar: binary("subtract"),
    aten.rsub.Scalar: binary("subtract", swapped=True),
    aten.mul.Tensor: binary("multiply"),
    aten.mul.Scalar: binary("multiply"),
    aten.div.Tensor: binary("divide"),
    aten.div.Scalar: binary("divide"),
    aten.maximum.default: binary("maximum"),
    aten.minimum.default: binary("minimum"),
    aten.leaky_relu.default: unary("leaky_relu", slope=(1, "negative_slope", 0.01)),
    aten.elu.default: unary("elu", alpha=(1, "alpha", 1.0)),
    aten.relu.default: unary("relu"),
    aten.silu.default: unary("silu"),
    aten.tanh.default: unary("tanh"),
    aten.sigmoid.default: unary("sigmoid"),
    aten.softplus.default: unary("softplus"),
    aten.exp.default: unary("exp"),
    aten.log.default: unary("log"),
    aten.sqrt.default: unary("sqrt"),
    aten.rsqrt.default: unary("rsqrt"),
    aten.abs.default: unary("abs"),
    aten.neg.default: unary("neg"),
    aten.square.default: unary("square"),
    aten.reciprocal.default: unary("reciprocal"),
    aten.sin.default: in_fp32("sin"),
    aten.cos.default: in_fp32("cos"),
    aten.pow.Tensor_Scalar: power,
    aten.gelu.default: gelu,
    aten.glu.default: gated,
    aten.clamp.default: clamp,
    aten.clamp_min.default: clamp,
    aten.permute.default: permuted,
    aten.reshape.default: viewed,
    aten.slice.Tensor: sliced,
    aten.select.int: sliced,
    aten.cat.default: concatenated,
    aten.stack.default: concatenated,
    aten.sum.dim_IntList: reduction("sum"),
    aten.mean.dim: reduction("mean"),
    aten.softmax.int: softmax,
    aten._softmax.default: softmax,
    aten.layer_norm.default: norm("layer_norm"),
    aten.rms_norm.default: norm("rms_norm"),
    aten.group_norm.default: norm("group_norm"),
    aten.embedding.default: _embedding,
    aten.pad.default: padded_out,
    aten.constant_pad_nd.default: padded_out,
    aten.expand.default: expanded,
    aten.masked_fill.Scalar: masked_fill,
}
"""By torch's operation."""
