"""Tracing: a SiteGraph as an ONNX model in which every site is one node of a domain of its own."""

import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn
from torch.fx import Interpreter

from backends.hopper.lower.decompositions import DECOMPOSITIONS
from voice.graph import SiteGraph
from voice.graph.dynamic_sizes import Axis, Size
from voice.graph.tracing import call_of

OPSET = 22
"""The first in which Conv and ConvTranspose may be bf16; FP8 in Q/DQ is there from 19."""
DOMAIN, SITE = "precision_search", "Site"
_SITE = torch.ops.precision_search.site.default
_GEOMETRY = ("stride", "padding", "dilation", "groups", "output_padding")


class LoweringError(ValueError):
    """A graph cannot become an ONNX model under a policy; the message names all that is in the way."""


def site_model(graph: SiteGraph) -> ModelProto:
    """Bring a graph to ONNX, whatever is to be computed of its sites.

    Args:
        graph: of a voice, or of a step; its constants become initializers.

    Returns:
        Opset 22. A call of a site is a node `Site` of the domain `precision_search` with the inputs x, weight and,
        where there is one, bias, and the attributes site, op and those of the geometry that it has. Inputs and outputs
        are as `lower` says. Nothing names a place in a source file.

    Raises:
        LoweringError: torch's exporter has no ONNX for an operation.
    """
    placeholders = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    # By target: torch.fx names a node for an input `input` or `max` otherwise, for Python has these words already.
    names = [str(node.target) for node in placeholders]
    examples = tuple(_example(graph, name, node.meta["val"]) for name, node in zip(names, placeholders, strict=True))
    shapes = getattr(graph, "dynamic_shapes", None)
    with torch.no_grad(), warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")  # of torch.onnx: deprecations of its own
        try:
            program = torch.onnx.export(
                _Symbolic(graph),
                examples,
                dynamo=True,
                verbose=False,
                optimize=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[*output_names(graph).values()],
                dynamic_shapes=None if shapes is None else (tuple(shapes().values()),),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise LoweringError(_reason(error)) from error
    assert program is not None
    model = program.model_proto
    _check_axes(model, {} if shapes is None else shapes())
    _name_axes(model, [axis for axes in getattr(graph, "symbols", {}).values() for axis in axes])
    _strip(model)
    return model


def output_names(graph: SiteGraph) -> dict[str, str]:
    """Part, or state, by name -> what the model calls it, or its new value.

    Parts keep their names, but where an input has it already: in ONNX both share one space. Such a part is
    `<part>_out`, and the new value of a state `<state>_next`.
    """
    inputs = {*graph.inputs, *graph.states}
    parts = {part: f"{part}_out" if part in inputs else part for part in graph.parts}
    return parts | {state: f"{state}_next" for state in graph.states}


def site_of(node: NodeProto) -> Mapping[str, Any] | None:
    """Attributes of a node that stands for a call of a site; None of any other."""
    if (node.domain, node.op_type) != (DOMAIN, SITE):
        return None
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


class _Symbolic(nn.Module):
    """A graph's module with sites as operations that torch's exporter hands through."""

    def __init__(self, graph: SiteGraph) -> None:
        super().__init__()
        self.held = graph.module
        self.train(graph.module.training)

    def forward(self, *tensors: Tensor) -> Any:
        """Run it."""
        return _SymbolicRun(self.held).run(*tensors)


class _SymbolicRun(Interpreter):
    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a node."""
        if target is not _SITE:
            return super().call_function(DECOMPOSITIONS.get(target, target), args, kwargs)
        site, op, x, weight, bias = args[:5]
        result = call_of(args).compute()
        geometry = {name: value for name, value in zip(_GEOMETRY, args[5:10], strict=True) if value not in ([], ())}
        attributes = {"site": site, "op": op, **({} if op in ("linear", "matmul") else geometry)}
        inputs = (x, weight) if bias is None else (x, weight, bias)
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{SITE}", inputs, attributes, dtype=result.dtype, shape=result.shape, version=1
        )


def _example(graph: SiteGraph, name: str, value: Tensor) -> Tensor:
    given = graph.examples.get(name)
    with torch.inference_mode(False):  # fake tensors cannot stand for those that were made in it
        return torch.zeros(tuple(value.shape), dtype=value.dtype) if given is None else given.clone()


def _check_axes(model: ModelProto, shapes: Mapping[str, Mapping[int, Any] | None]) -> None:
    """Refuse a model whose axes torch's exporter fixed, which it does without a word where it cannot keep them."""
    fixed = [
        f"{value.name}, axis {axis}"
        for value in model.graph.input
        for axis in shapes.get(value.name) or {}
        if not value.type.tensor_type.shape.dim[axis].dim_param
    ]
    if fixed:
        raise LoweringError(f"torch's ONNX exporter cannot keep these lengths open: {'; '.join(fixed)}")


def _name_axes(model: ModelProto, axes: Iterable[Axis]) -> None:
    """Write lengths in terms of the graph's that torch.export names itself, for it takes them of one symbol alone."""
    given = {value.name: value for value in model.graph.input}
    sizes = {axis.size for axis in axes}
    known = {symbol for size in sizes for symbol, _ in size.terms}
    spelled: dict[str, str] = {}
    for axis in axes:
        name = given[axis.input].type.tensor_type.shape.dim[axis.axis].dim_param
        if name.isidentifier() and name not in known:
            spelled[name] = _spelled(axis.size)
    if not spelled:
        return
    named = re.compile(rf"\b({'|'.join(spelled)})\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in spelled:
                dim.dim_param = spelled[dim.dim_param]
            elif named.search(dim.dim_param):
                dim.dim_param = named.sub(lambda found: f"({spelled[found[0]]})", dim.dim_param)


def _spelled(size: Size) -> str:
    """A size in whole numbers, as torch.export writes those that it knows."""
    divisor = size.divisor
    factors = [(symbol, int(factor * divisor)) for symbol, factor in size.terms]
    total = " + ".join(symbol if factor == 1 else f"{factor}*{symbol}" for symbol, factor in factors)
    total += f" + {int(size.constant * divisor)}" if size.constant else ""
    total = total.replace("+ -", "- ")
    return total if divisor == 1 else f"({total})//{divisor}"


def _strip(model: ModelProto) -> None:
    """Drop what says where torch's exporter stood: paths, lines, its own version of every operation."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    del model.functions[:]


def _reason(error: Exception) -> str:
    """What torch's exporter has to say, in a line or two."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    node = next((line.strip() for line in str(error).splitlines() if "translating node" in line), "")
    return f"torch's ONNX exporter cannot write the model: {first}" + (f"\n  {node}" if node else "")


class _Quiet:
    """Keeps torch's exporter from telling, line by line, which packages it does without."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("torch.onnx._internal.exporter._registration")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
