"""Builder: steps in order, with conversions made once and shared by all who read them."""

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.cards import Card
from backends.tenstorrent.lower.arranged import IDENTITY, Arranged, Four, alike, four
from backends.tenstorrent.program import CardStep, Compute, Constant, HostStep, Layout, Program, State, Step, Value

Between = Literal["fp32", "bf16"]


class Builder:
    """What a program grows from; every name in it is unique."""

    def __init__(self, card: Card, between: Between = "fp32", seldom: Collection[str] = ()) -> None:
        """Start empty; `between`: in what vector operations keep their results; `seldom`: inputs that seldom change."""
        self.card = card
        self.between: Between = between
        self._seldom = frozenset(seldom)
        # On Wormhole HiFi4 with fp32 sums gives wrong ones (tt-metal 38306).
        self.vector = Compute("hifi3" if card.architecture == "wormhole" else "hifi4", fp32_accumulation=True)
        self.steps: list[Step] = []
        self.constants: dict[str, Constant] = {}
        self.host_constants: dict[str, NDArray[Any]] = {}
        self.path = ""
        self._names: set[str] = {"device", "weights", "inputs", "state", "folder", "ttnn", "torch", "runtime", "host"}
        self._made: dict[tuple[Any, ...], Value] = {}

    def name(self, wanted: str) -> str:
        """A Python identifier like the one wanted that is not taken; it is from now on."""
        stem = re.sub(r"\W+", "_", wanted).strip("_") or "x"
        if stem[0].isdigit() or keyword.iskeyword(stem):
            stem = f"x_{stem}"
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def step(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        dtype: str,
        *,
        name: str | None = None,
        layout: Layout = "tile",
        options: Mapping[str, Any] | None = None,
        compute: Compute | None = None,
        site: str | None = None,
    ) -> Value:
        """Add an operation on the card and give its result."""
        if op in ("add", "subtract") and "fp32" in (self.between, dtype, *(value.dtype for value in inputs)):
            # Only of fp32 alone are sums the vector unit's in ttnn; else the matrix engine's, which cuts fp32 to tf32.
            inputs = [self.cast(value, "fp32") for value in inputs]
        result = Value(self.name(name or op), tuple(shape), dtype, layout=layout)
        inputs_named = tuple(value.name for value in inputs)
        self.steps.append(CardStep(op, inputs_named, result, dict(options or {}), compute, site, self.path))
        return result

    def cast(self, value: Value, dtype: str) -> Value:
        """The value in a type; converted once."""
        if value.dtype == dtype:
            return value
        key = ("cast", value.name, dtype)
        if key not in self._made:
            source = self.laid_out(value, "tile")  # types that share exponents exist in tiles only
            self._made[key] = self.step("typecast", [source], value.shape, dtype, name=f"{value.name}_{dtype}")
        return self._made[key]

    def laid_out(self, value: Value, layout: Layout) -> Value:
        """The value in a layout; converted once."""
        if value.layout == layout:
            return value
        key = ("layout", value.name, layout)
        if key not in self._made:
            suffix = "rows" if layout == "row_major" else "tiles"
            self._made[key] = self.step(
                "to_layout", [value], value.shape, value.dtype, name=f"{value.name}_{suffix}", layout=layout
            )
        return self._made[key]

    def ordered(self, tensor: Arranged, order: Four) -> Arranged:
        """The tensor with its axes in an order; moved only where it must be, and once."""
        if alike(tensor.shape, tensor.order, order):
            return replace(tensor, order=order)
        places = four([tensor.place(axis) for axis in order])
        key = ("permute", tensor.value.name, places)
        if key not in self._made:
            shape = [tensor.value.shape[place] for place in places]
            self._made[key] = self.step(
                "permute",
                [tensor.value],
                shape,
                tensor.dtype,
                name=f"{tensor.value.name}_turned",
                options={"order": places},
            )
        return Arranged(self._made[key], tensor.shape, order)

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """The value under another shape with the same elements in the same order; once."""
        if value.shape == tuple(shape):
            return value
        key = ("reshape", value.name, tuple(shape))
        if key not in self._made:
            self._made[key] = self.step("reshape", [value], shape, value.dtype, options={"shape": tuple(shape)})
        return self._made[key]

    def permuted(self, tensor: Arranged, axes: Sequence[int]) -> Arranged:
        """The tensor under `permute(axes)` of torch, which may have fewer axes than four; nothing moves."""
        missing = 4 - len(axes)
        return tensor.transposed([*range(missing), *(int(axis) + missing for axis in axes)])

    def viewed(self, tensor: Arranged, shape: Four) -> Arranged:
        """The tensor under another shape; moved only where more than axes of one element come or go."""
        seen = tensor.viewed(shape)
        if seen is not None:
            return seen
        return Arranged(self.reshaped(self.ordered(tensor, IDENTITY).value, shape), shape, IDENTITY)

    def cut(self, tensor: Arranged, axis: int, begin: int, end: int, name: str) -> Arranged:
        """A run along an axis of the padded shape; the tensor itself where that is all of it."""
        if (begin, end) == (0, tensor.shape[axis]):
            return tensor
        place = tensor.place(axis)
        begins, ends = [0, 0, 0, 0], list(tensor.value.shape)
        begins[place], ends[place] = begin, end
        lengths = [last - first for first, last in zip(begins, ends, strict=True)]
        options = {"begins": tuple(begins), "ends": tuple(ends)}
        value = self.step("slice", [tensor.value], lengths, tensor.dtype, name=name, options=options)
        shape = four([end - begin if at == axis else extent for at, extent in enumerate(tensor.shape)])
        return Arranged(value, shape, tensor.order)

    def constant(
        self,
        wanted: str,
        values: NDArray[Any],
        dtype: str,
        *,
        layout: Layout = "tile",
        file_dtype: str | None = None,
        file_layout: Layout | None = None,
        on_host: bool = False,
        site: str | None = None,
        col_tilize: bool = False,
    ) -> Value:
        """A constant of the card; the same wish with the same numbers gives the same one."""
        kind = np.uint32 if dtype == "uint32" else np.float32
        array = np.ascontiguousarray(values, dtype=kind)
        key = ("constant", wanted, array.shape, dtype, layout, array.tobytes())
        if key not in self._made:
            value = Value(self.name(wanted), array.shape, dtype, layout=layout)
            self.constants[value.name] = Constant(
                value, array, file_dtype or dtype, file_layout or layout, on_host, site, col_tilize
            )
            self._made[key] = value
        return self._made[key]

    def upload(self, value: Value, shape: Four, order: Four, dtype: str) -> Value:
        """A host value on the card; moved once for each type and order."""
        key = ("upload", value.name, shape, order, dtype)
        if key not in self._made:
            on_card = [shape[axis] for axis in order]
            options: dict[str, Any] = {"view": shape, "order": order}
            if value.name in self._seldom:
                options["kept"] = True
            self._made[key] = self.step(
                "upload", [value], on_card, dtype, name=f"{value.name}_on_card", options=options
            )
        return self._made[key]

    def upload_indices(self, value: Value, count: int) -> Value:
        """Whole numbers of the host as what an embedding reads, [1, count]."""
        key = ("indices", value.name)
        if key not in self._made:
            options = {"view": (1, count), "order": (0, 1)}
            self._made[key] = self.step(
                "upload",
                [value],
                (1, count),
                "uint32",
                name=f"{value.name}_on_card",
                layout="row_major",
                options=options,
            )
        return self._made[key]

    def download(self, tensor: Arranged, shape: Sequence[int], wanted: str) -> Value:
        """A value of the card on the host, float32, in torch's order of axes."""
        options = {"order": four([tensor.place(axis) for axis in range(4)]), "shape": tuple(shape)}
        result = Value(self.name(wanted), tuple(shape), "float32", place="host")
        self.steps.append(CardStep("download", (tensor.value.name,), result, options, None, None, self.path))
        return result

    def program(
        self,
        inputs: Sequence[Value],
        outputs: Mapping[str, str],
        states: Mapping[str, State],
        streaming_sites: frozenset[str],
    ) -> Program:
        """All that was added and is read."""
        used = {*outputs.values(), *(state.update for state in states.values())}
        steps: list[Step] = []
        for step in reversed(self.steps):
            results = step.results if isinstance(step, HostStep) else (step.result,)
            if any(value.name in used for value in results):
                used.update(step.inputs)
                steps.append(step)
        steps.reverse()
        return Program(
            self.card.architecture,
            self.card.name,
            tuple(inputs),
            {name: constant for name, constant in self.constants.items() if name in used},
            self.host_constants,
            tuple(steps),
            dict(outputs),
            dict(states),
            streaming_sites,
        )

    def host_step(self, inputs: Sequence[str], results: Sequence[Value], code: str) -> None:
        """Add operations of torch on the host."""
        self.steps.append(HostStep(tuple(inputs), tuple(results), code, self.path))
