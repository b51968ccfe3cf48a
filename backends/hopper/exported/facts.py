"""Facts: what a model's file says of itself, and the shapes an engine is built for; needs onnx and no TensorRT."""

import ast
import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from onnx import ModelProto, load

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, usual and largest shape of an input."""
SIZES = ("min", "opt", "max")

_OPERATIONS: Mapping[type[ast.AST], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


class FactError(ValueError):
    """A model, or what it is to be built for, does not fit; the message says what is missing."""


def read(path: Path) -> ModelProto:
    """Read a model, without what it holds in other files.

    Raises:
        FactError: it is not there, or is no ONNX.
    """
    if not path.is_file():
        raise FactError(f"{path} is not there: build.py stands beside the model.onnx that it was exported with")
    try:
        return load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, of several classes
        raise FactError(f"{path} is no ONNX model: {error}") from error


def engine_model(folder: Path) -> Path:
    """The model that an engine is built of: all of it, or what is left where part of it runs on the host before."""
    device = folder / "device.onnx"
    return device if device.is_file() else folder / "model.onnx"


def digest(path: Path) -> str:
    """SHA-256 of a model's file and of the files that hold its weights: 64 hexadecimal digits.

    Raises:
        FactError: one of them is not there.
    """
    model = read(path)
    held = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    total = hashlib.sha256()
    for file in (path, *(path.parent / name for name in sorted(held))):
        if not file.is_file():
            raise FactError(f"{file} is not there: the model's weights are in it")
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def inputs(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Shape of each input, states too; of an axis that may vary its name, or its size in terms of such names."""
    held = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(axis.dim_param or int(axis.dim_value) for axis in value.type.tensor_type.shape.dim)
        for value in model.graph.input
        if value.name not in held
    }


def axes_of(shapes: Mapping[str, Sequence[int | str]]) -> set[str]:
    """Names that sizes of inputs are made of; FactError as `profile` has it."""
    named = {axis for shape in shapes.values() for axis in shape if isinstance(axis, str)}
    return {name for axis in named for name in _names(axis)}


def profile(shapes: Mapping[str, Sequence[int | str]], axes: Mapping[str, Mapping[str, int]]) -> dict[str, Profile]:
    """Smallest, usual and largest shape of each input of which an axis varies; what an engine is built for.

    Args:
        shapes: as `inputs` gives them; an axis is a size, a name, or a sum, difference, product or quotient (`//`) of
            names and numbers, as torch.export writes sizes that hang together (`2*frames + 1`).
        axes: of each name `min`, `opt` and `max`: those of program.json.

    Raises:
        FactError: names without limits, limits that are none, or an axis that is no such expression; all at once.
    """
    wrong = [
        f"axis {name} has min, opt, max {[limits.get(size) for size in SIZES]}; 0 < min <= opt <= max is needed"
        for name, limits in axes.items()
        if not _ordered([limits.get(size) for size in SIZES])
    ]
    needed = sorted(axes_of(shapes) - set(axes))
    if needed:
        wrong.append(f"axes {', '.join(needed)} vary and have no limits: give NAME=MIN:OPT:MAX for each")
    if wrong:
        raise FactError("; ".join(wrong))
    found = {}
    for name, shape in shapes.items():
        if all(isinstance(axis, int) for axis in shape):
            continue
        sized = [
            tuple(_size(axis, {key: held[size] for key, held in axes.items()}) for axis in shape) for size in SIZES
        ]
        if not all(_ordered(extents) for extents in zip(*sized, strict=True)):
            raise FactError(f"input {name}: sizes {sized} do not grow from min to max")
        found[name] = (sized[0], sized[1], sized[2])
    return found


def _ordered(sizes: Sequence[Any]) -> bool:
    if not all(isinstance(size, int) for size in sizes):
        return False
    return bool(sizes[0] > 0 and all(less <= more for less, more in pairwise(sizes)))


def _names(axis: str) -> set[str]:
    return {node.id for node in ast.walk(_parsed(axis)) if isinstance(node, ast.Name)}


def _parsed(axis: str) -> ast.expr:
    try:
        return ast.parse(axis, mode="eval").body
    except SyntaxError as error:
        raise FactError(f"an axis is called {axis!r}, which is neither a name nor a size in terms of names") from error


def _size(axis: int | str, sizes: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else _value(_parsed(axis), sizes, axis)


def _value(node: ast.expr, sizes: Mapping[str, int], axis: str) -> int:
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left, sizes, axis), _value(node.right, sizes, axis)
        return _OPERATIONS[type(node.op)](left, right)
    raise FactError(f"an axis has the size {axis!r}; sums, differences, products and // of names and numbers are known")
