"""Reading: what an ONNX model shows of each site, whoever wrote it; nothing here knows of a policy."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

from onnx import ModelProto, NodeProto, TensorProto

from backends.hopper.exported.inspected import SITE
from backends.hopper.exported.widening import tensor_types
from precision.policy import Granularity, ScaleMode

FORMATS: Mapping[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT8E4M3FN: "fp8_e4m3",
    TensorProto.FLOAT8E5M2: "fp8_e5m2",
}
_MOVES = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Expand")
"""What leaves numbers as they are."""


@dataclass(frozen=True, slots=True)
class Read:
    """An operand of a product, as the graph has it."""

    fmt: str
    """What its numbers were last rounded to, or are stored in."""
    granularity: Granularity | None = None
    """What one scale covers; None where there is no scale, or one channel, of which it says nothing."""
    scale: ScaleMode | None = None
    """Whether the scale is a constant of the graph; None where there is no scale."""
    constant: bool = False
    """Whether the operand itself is a constant of the graph."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One call of a site."""

    site: str
    left: Read
    """The input; of a product of two activations the left one."""
    right: Read
    """The weight, or the right activation."""
    computed: str
    """Format that the product is typed in; beside FP8 operands that is fp32."""
    stored: str
    """Format that the result is rounded to."""


def shown(model: ModelProto, sites: Container[str]) -> Iterator[Shown]:
    """Read every call of every site of a model, in the order of its nodes.

    Args:
        model: with islands as `lower` names them; ONNX infers their types.
        sites: names of those that may be there; a name may have `#` in it.

    Raises:
        onnx.shape_inference.InferenceError: types do not fit.
    """
    graph = _Graph(model)
    for node in model.graph.node:
        if node.name.startswith(SITE) and node.name.endswith("/compute"):
            call = node.name.removeprefix(SITE).removesuffix("/compute")
            site = call if call in sites else call.rpartition("#")[0]
            left, right = (graph.read(name) for name in node.input[:2])
            if right.granularity is not None and graph.channels(node) == 1:
                right = replace(right, granularity=None)
            computed, stored = graph.types[node.output[0]], graph.stored(node.output[0], f"{SITE}{call}/")
            yield Shown(site, left, right, FORMATS[computed], FORMATS[stored])


class _Graph:
    """A model's graph, to be walked from value to value."""

    def __init__(self, model: ModelProto) -> None:
        self.types = tensor_types(model)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def read(self, name: str) -> Read:
        """Follow an operand back to what gave its numbers their format."""
        source = self._source(name)
        maker = self._makers.get(source)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self._scaled(maker)
        if maker is not None and maker.op_type == "Cast":
            # A weight may be stored in FP8 and multiplied in 16 bits.
            behind = self._makers.get(self._source(maker.input[0]))
            if behind is not None and behind.op_type == "DequantizeLinear" and self._scaled(behind).constant:
                return self._scaled(behind)
        return Read(FORMATS[self.types[name]], constant=source in self._constants)

    def channels(self, node: NodeProto) -> int | None:
        """Output channels of a product with a constant weight; None of others."""
        name = node.input[1]
        while name not in self._constants:
            if name not in self._makers:
                return None
            name = self._makers[name].input[0]
        groups = next((held.i for held in node.attribute if held.name == "group"), 1)
        axis, each = {"Conv": (0, 1), "ConvTranspose": (1, groups)}.get(node.op_type, (-1, 1))
        return int(self._constants[name].dims[axis]) * each

    def stored(self, name: str, island: str) -> int:
        """Type of a product's result where it leaves its island: of all that it passes through the narrowest."""
        held = self.types[name]
        readers = self._readers.get(name, [])
        while len(readers) == 1 and readers[0].name.startswith(island):
            name = readers[0].output[0]
            held = held if self.types[name] == TensorProto.FLOAT else self.types[name]
            readers = self._readers.get(name, [])
        return held

    def _source(self, name: str) -> str:
        """The value whose numbers, maybe in another order or times a constant, these are."""
        while (maker := self._makers.get(name)) is not None:
            scaled = maker.op_type == "Mul" and maker.name.startswith(SITE) and maker.input[1] in self._constants
            if maker.op_type not in _MOVES and not scaled:
                break
            name = maker.input[0]
        return name

    def _scaled(self, node: NodeProto) -> Read:
        codes, scale = (self._source(name) for name in node.input[:2])
        maker = self._makers.get(codes)
        held = codes if maker is None else self._source(maker.input[0])
        constant = self._constants.get(scale)
        # Of a transposed convolution in groups, the scales of channels lie along two axes, and are multiplied apart.
        scales = [scale, *(reader.input[1] for reader in self._readers[node.output[0]] if reader.op_type == "Mul")]
        per_channel = any(len(self._constants[name].dims) > 0 for name in scales if name in self._constants)
        return Read(
            FORMATS[self.types[codes]],
            "channel" if per_channel else "tensor",
            "dynamic" if constant is None else "static",
            held in self._constants,
        )
