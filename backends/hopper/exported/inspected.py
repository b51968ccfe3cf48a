"""Inspected: what an engine made of each site of its model, by the account of TensorRT's engine inspector.

The account is JSON of a list `Layers`. A layer names the ONNX nodes that went into it in `Metadata`, as
`[ONNX Layer: NAME]` or `[ONNX Layer: NAME | ...]`, several of them side by side or with a control character between,
and older ones only in `Name`, joined by ` + `. A tensor's type is in `Format/Datatype` (TensorRT 10: "Row major linear
FP8 format", "Half") or in `Datatype` (11). The kernel, `TacticName`, often tells operands and sums: in
`e4m3bf16_e4m3f32_f32` the left operand is E4M3, the result bf16, the right operand E4M3, and sums are fp32; that
reading is inferred from such names.

Sources: TensorRT's documentation (engine tools; migration from 10 to 11), its trt-engine-explorer's table of formats,
onnx-tensorrt's `processMetadata`, listings in NVIDIA/TensorRT issues 3737, 4020 and 4397 and in
NVIDIA/TensorRT-Model-Connect pull 1386.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SITE = "site/"
"""What names of a site's nodes begin with: `site/<site>/<role>`, of its second call `site/<site>#2/<role>`."""
COMPUTE = "compute"
NARROWEST = ("fp8_e4m3", "fp8_e5m2", "bf16", "fp16", "tf32", "fp32")
_WORDS = {
    **dict.fromkeys(("fp8", "e4m3", "fp8e4m3", "float8e4m3fn", "e4m3fn"), "fp8_e4m3"),
    **dict.fromkeys(("e5m2", "fp8e5m2", "float8e5m2"), "fp8_e5m2"),
    **dict.fromkeys(("bfloat16", "bf16"), "bf16"),
    **dict.fromkeys(("half", "fp16", "float16", "f16"), "fp16"),
    **dict.fromkeys(("float", "fp32", "float32", "f32"), "fp32"),
    **dict.fromkeys(("int8", "i8"), "int8"),
    "tf32": "tf32",
}
_TYPE = "e4m3|e5m2|bf16|tf32|f16|f32|i8|i32"
_TACTIC = re.compile(rf"_(?P<left>{_TYPE})(?:{_TYPE})_(?P<right>{_TYPE})(?P<sums>{_TYPE})_(?:{_TYPE})(?:_|$)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]|]*?) ?(?:\|[^\]]*)?\]")
_COMPUTING = re.compile(r"conv|correlation|gemm|matri|matmul|fusion|mha|attention|fprop|dgrad", re.IGNORECASE)
_STILL = ("Constant", "Reformat")
"""Layers that compute nothing; a scale is a constant that has its node's name."""
_CONSTANT = re.compile(r"const|weight", re.IGNORECASE)


class UninspectableError(ValueError):
    """The account says too little; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine."""

    name: str
    kind: str
    """TensorRT's `LayerType`."""
    tactic: str
    nodes: tuple[str, ...]
    """Of the model, that went into it."""
    activation: str | None
    """The narrowest format of what it reads that is no constant; None where no float is read."""
    weight: str | None
    """None where no weight is shown."""
    sums: str | None

    @property
    def computing(self) -> bool:
        """Whether its kind or kernel is known to be a product; a generated kernel (`kgen`) may be one, too."""
        return bool(_COMPUTING.search(self.kind) or (self.kind != "kgen" and _COMPUTING.search(self.tactic)))


@dataclass(frozen=True, slots=True)
class Got:
    """How one call of a site computes in an engine."""

    call: str
    layers: tuple[Layer, ...]
    """That compute it; none where no layer names it."""
    fused: tuple[str, ...] = ()
    """Other calls that the same layer computes."""
    apart: Mapping[str, str] | None = None
    """Role -> name of the layer, of those of its nodes that are in no layer that computes it."""
    reformats: int = 0
    """Layers that only bring its operands or its result into another layout."""

    def read(self, field: str) -> str | None:
        """`activation`, `weight` or `sums`, of the layer where it is widest; None where none shows it."""
        shown = [getattr(layer, field) for layer in self.layers if getattr(layer, field) is not None]
        return max(shown, key=lambda name: NARROWEST.index(name) if name in NARROWEST else -1, default=None)


def layers(info: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Read the layers of an account.

    Raises:
        UninspectableError: it has no layers, or only their names.
    """
    found = info.get("Layers")
    if not found:
        raise UninspectableError("the account has no `Layers`: it is no engine inspector's, or the engine keeps none")
    if any(isinstance(layer, str) for layer in found):
        raise UninspectableError(
            "the account has only names of layers: build with profiling verbosity DETAILED, as build.py does"
        )
    return tuple(_layer(layer) for layer in found)


def found(info: Mapping[str, Any], calls: Iterable[str]) -> dict[str, Got]:
    """What became of each call of a site; `calls` are what stands between `site/` and the role in names of nodes.

    Raises:
        UninspectableError: as `layers`.
    """
    every = layers(info)
    return {call: _got(call, every) for call in calls}


def calls_of(names: Iterable[str]) -> tuple[str, ...]:
    """Calls that nodes of a model belong to, by their names, in order."""
    held = (name.removeprefix(SITE).rpartition("/")[0] for name in names if name.startswith(SITE))
    return tuple(dict.fromkeys(held))


def _got(call: str, every: tuple[Layer, ...]) -> Got:
    prefix = f"{SITE}{call}/"
    naming = [layer for layer in every if prefix + COMPUTE in layer.nodes and layer.kind != "Reformat"]
    computing = [layer for layer in naming if layer.computing] or naming
    own = dict.fromkeys(node for layer in computing for node in layer.nodes)
    others = calls_of(node for node in own if node.endswith(f"/{COMPUTE}"))
    apart = {
        node.removeprefix(prefix): layer.name
        for layer in every
        for node in layer.nodes
        if layer not in computing and node.startswith(prefix) and node not in own and layer.kind not in _STILL
    }
    reformats = sum(layer.kind == "Reformat" and prefix in layer.name for layer in every)
    return Got(call, tuple(computing), tuple(other for other in others if other != call), apart, reformats)


def _layer(data: Mapping[str, Any]) -> Layer:
    name, tactic = str(data.get("Name", "")), str(data.get("TacticName", ""))
    nodes = tuple(_NODE.findall(str(data.get("Metadata", ""))))
    if not nodes:
        nodes = tuple(part.strip() for part in re.split(r" \+ | \|\| ", name) if part.strip())
    read = [(tensor, fmt) for tensor in data.get("Inputs", []) if (fmt := _tensor_format(tensor)) in NARROWEST]
    activation = _narrowest(fmt for tensor, fmt in read if not _CONSTANT.search(str(tensor.get("Name", ""))))
    # Scales and biases are constants, too; only a weight has two axes.
    weight = _narrowest(
        fmt
        for tensor, fmt in read
        if _CONSTANT.search(str(tensor.get("Name", ""))) and sum(size > 1 for size in tensor.get("Dimensions", [])) > 1
    )
    if isinstance(held := data.get("Weights"), Mapping):
        weight = _format(str(held.get("Type", ""))) or weight
    sums = None
    if kernel := _TACTIC.search(tactic):
        left, right, sums = (_WORDS.get(kernel[part], kernel[part]) for part in ("left", "right", "sums"))
        rounded = "tf32" in (left, right)
        activation, weight = ("tf32", "tf32") if rounded else (left, right)
    return Layer(name, str(data.get("LayerType", "")), tactic, nodes, activation, weight, sums)


def _narrowest(formats: Iterable[str]) -> str | None:
    return min(formats, key=NARROWEST.index, default=None)


def _tensor_format(tensor: Mapping[str, Any]) -> str | None:
    for key in ("Datatype", "DataType", "Format/Datatype", "Format"):
        if key in tensor and (fmt := _format(str(tensor[key]))):
            return fmt
    return None


def _format(text: str) -> str | None:
    """Format named in a description of a type; None for integers of more than 8 bits, Booleans and what is unknown."""
    return next((_WORDS[word] for word in re.split(r"[^a-z0-9]+", text.lower()) if word in _WORDS), None)
