"""Islands: what a call of a site becomes in ONNX under its scheme, values before and behind it being float32.

| scheme | nodes, named `site/<site>/<role>` |
|---|---|
| FP8 | quantize_input, dequantize_input, dequantize_weight -> compute in float32 (-> bias) -> cast_output, cast_back |
| bf16, fp16 | cast_input -> compute in 16 bits (-> bias) -> cast_back |
| FP8 weights alone | dequantize_weight, cast_weight beside cast_input; the rest as above |
| fp32 | compute (-> bias) |

A compiler of strongly typed graphs (TensorRT) takes the product of two dequantized operands for one of FP8, whose sums
are fp32. A product of activations has `quantize_left`, `quantize_right` and so on. A dynamic scale is computed by
`magnitude`, `amax`, `scale` and what keeps it above zero. A second call of a site is named `site/<site>#2/<role>`.

A conv1d in FP8 is one in two dimensions, the second one wide (`lift_input` before, `drop_output` behind): TensorRT has
none in one. Its parser would put the missing axis between DequantizeLinear and Conv (onnx-tensorrt, unsqueezeTensor),
and the two might not be taken for FP8 any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto
from torch import Tensor

from backends.hopper.exported.inspected import SITE
from backends.hopper.numerics import (
    FP8_TYPES,
    activation_scale,
    round_wide,
    site_weight,
    spread_over_weight,
    stored_format,
)
from calibrate.calibration import Calibration, Operand
from precision.formats import FORMATS
from precision.policy import Scheme
from precision.site import Op

TYPES: Mapping[str, int] = {
    "fp32": TensorProto.FLOAT,
    "bf16": TensorProto.BFLOAT16,
    "fp16": TensorProto.FLOAT16,
    "fp8_e4m3": TensorProto.FLOAT8E4M3FN,
    "fp8_e5m2": TensorProto.FLOAT8E5M2,
}
"""ONNX's element type of a format."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of a site as the model has it: names of tensors, and what its weight and bias hold."""

    site: str
    op: Op
    x: str
    right: str | None
    """The right operand of a product of activations."""
    weight: Tensor | None
    """float32, in the layout of `SiteCall`; None for a product."""
    bias: Tensor | None
    geometry: Mapping[str, Sequence[int]]
    """Of a convolution: kernel, stride, padding, dilation, groups, output_padding."""
    result: str
    index: int = 1
    """Which call of the site it is, from 1."""
    bias_index: int = 1
    """Which bias of the site it reads, from 1: layers that share a weight are one site, each with its own."""

    @property
    def groups(self) -> int:
        """Of a convolution; 1 otherwise."""
        return self.geometry.get("groups", (1,))[0]


@dataclass(slots=True, eq=False)
class Island:
    """Nodes of one call, and the constants that they read; a second call of a site reads those of the first."""

    call: Call
    scheme: Scheme
    calibration: Calibration | None
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def build(self) -> None:
        """Make all of it.

        Raises:
            UncalibratedSiteError: a static scale was not measured.
            ValueError: the weight is not finite.
        """
        call, scheme = self.call, self.scheme
        scaled = scheme.activation in FP8_TYPES
        typed = "fp32" if scaled else scheme.activation
        sides: tuple[tuple[str, Operand], ...] = ((call.x, "input"),)
        if call.right is not None:
            sides = ((call.x, "left"), (call.right, "right"))
        operands = [self._scaled(name, side) if scaled else self._cast(name, typed, side) for name, side in sides]
        if call.weight is not None:
            operands.append(self._weight(call.weight, typed))
        bias = None if call.bias is None else self._bias(call.bias, typed)
        stored = stored_format(scheme)
        last = "bias" if bias is not None and not call.geometry else "compute"
        ending = [] if typed == stored == "fp32" else ["cast_back"] if typed == stored else ["cast_output", "cast_back"]
        ending += ["drop_output"] if self._lifted else []
        names = [*dict.fromkeys(("compute", last)), *ending]
        results = {role: self._name(role) for role in names} | {names[-1]: call.result}
        if call.geometry:
            operands += [bias] if bias is not None else []
            kind = "ConvTranspose" if call.op == "conv_transpose1d" else "Conv"
            self._add("compute", kind, operands, results["compute"], **_geometry(call, self._lifted))
        else:
            self._add("compute", "MatMul", operands, results["compute"])
            if bias is not None:
                self._add("bias", "Add", [results["compute"], bias], results["bias"])
        value = results[last]
        for role in ending:
            if role == "drop_output":
                self._add(role, "Squeeze", [value, self._width()], results[role])
                continue
            to = TYPES[stored] if role == "cast_output" else TensorProto.FLOAT
            value = self._add(role, "Cast", [value], results[role], to=to)

    @property
    def _lifted(self) -> bool:
        return self.call.op == "conv1d" and self.scheme.activation in FP8_TYPES

    def _width(self) -> str:
        """The axis behind time, of a plane that is one wide."""
        self.constants["axis.width"] = onnx.numpy_helper.from_array(np.array([3]), "axis.width")
        return "axis.width"

    def _scaled(self, x: str, side: Operand) -> str:
        """Quantize and dequantize an activation."""
        fmt = self.scheme.activation
        if self._lifted:
            x = self._add("lift_input", "Unsqueeze", [x, self._width()])
        if self.scheme.activation_scale == "dynamic":
            scale = self._dynamic(x, side)
        else:
            scale = f"{self.call.site}.{side}_scale"
            self._hold(scale, activation_scale(self.call.site, side, self.scheme, self.calibration))
        zero = f"zero.{fmt}"
        self._hold(zero, torch.zeros((), dtype=FP8_TYPES[fmt]))
        codes = self._add(f"quantize_{side}", "QuantizeLinear", [x, scale, zero], saturate=1)
        return self._add(f"dequantize_{side}", "DequantizeLinear", [codes, scale, zero])

    def _dynamic(self, x: str, ending: str) -> str:
        """The scale of this tensor: its largest magnitude over the format's; 1 where all is zero."""
        largest = f"largest.{self.scheme.activation}"
        for name, value in (("one.fp32", 1.0), ("zero.fp32", 0.0), (largest, self._largest)):
            self._hold(name, torch.tensor(value))
        magnitude = self._add(f"magnitude_{ending}", "Abs", [x])
        amax = self._add(f"amax_{ending}", "ReduceMax", [magnitude], keepdims=0)
        scale = self._add(f"ratio_{ending}", "Div", [amax, largest])
        above = self._add(f"above_{ending}", "Greater", [scale, "zero.fp32"])
        return self._add(f"scale_{ending}", "Where", [above, scale, "one.fp32"])

    @property
    def _largest(self) -> float:
        return FORMATS[self.scheme.activation].max_value

    def _cast(self, x: str, typed: str, side: str) -> str:
        return x if typed == "fp32" else self._add(f"cast_{side}", "Cast", [x], to=TYPES[typed])

    def _weight(self, weight: Tensor, typed: str) -> str:
        """The weight as it is stored, and what makes it an operand of the type that is multiplied."""
        call, scheme, name = self.call, self.scheme, f"{self.call.site}.weight"
        if scheme.weight not in FP8_TYPES:
            self._hold(name, _laid_out(round_wide(weight, scheme.weight), call.op), scheme.weight)
            return name
        codes, scale = site_weight(weight, call.op, call.groups, scheme)
        self._hold(name, _laid_out(codes[..., None] if self._lifted else codes, call.op))
        spread = scale.numel() > 1 and call.op == "conv_transpose1d" and call.groups > 1
        self._hold(f"{name}_scale", torch.ones(()) if spread else scale if scale.numel() > 1 else scale.reshape(()))
        axis: dict[str, Any] = (
            {} if spread or scale.numel() == 1 else {"axis": 0 if call.op in ("conv1d", "conv2d") else 1}
        )
        operand = self._add("dequantize_weight", "DequantizeLinear", [name, f"{name}_scale"], **axis)
        if spread:  # no axis has one scale a channel: output channels lie in groups, along two of them
            self._hold(f"{name}_scales", spread_over_weight(scale, weight, call.op, call.groups).contiguous())
            operand = self._add("scale_weight", "Mul", [operand, f"{name}_scales"])
        return operand if typed == "fp32" else self._add("cast_weight", "Cast", [operand], to=TYPES[typed])

    def _bias(self, bias: Tensor, typed: str) -> str:
        call = self.call
        name = f"{call.site}.bias" if call.bias_index == 1 else f"{call.site}#{call.bias_index}.bias"
        self._hold(name, round_wide(bias, stored_format(self.scheme)), typed)
        return name

    def _hold(self, name: str, values: Tensor, fmt: str | None = None) -> None:
        if fmt is None:
            fmt = next((known for known, dtype in FP8_TYPES.items() if dtype == values.dtype), "fp32")
        self.constants[name] = stored(name, values, fmt)

    def _name(self, role: str) -> str:
        number = "" if self.call.index == 1 else f"#{self.call.index}"
        return f"{SITE}{self.call.site}{number}/{role}"

    def _add(self, role: str, kind: str, inputs: Sequence[str], result: str | None = None, **attributes: Any) -> str:
        name = self._name(role)
        self.nodes.append(onnx.helper.make_node(kind, inputs, [result or name], name=name, **attributes))
        return result or name


def stored(name: str, values: Tensor, fmt: str) -> TensorProto:
    """A tensor as ONNX stores it: values of a format, or its FP8 codes, as raw bytes."""
    dtype = {**FP8_TYPES, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[fmt]
    raw = values.to(dtype).contiguous()
    proto = TensorProto(name=name, data_type=TYPES[fmt], dims=list(values.shape))
    proto.raw_data = raw.reshape(-1).view(torch.uint8).numpy().tobytes()
    return proto


def _laid_out(weight: Tensor, op: Op) -> Tensor:
    return weight.T if op == "linear" else weight


def _geometry(call: Call, lifted: bool) -> dict[str, Any]:
    """Attributes of Conv and ConvTranspose."""
    held, one, none = call.geometry, [1] if lifted else [], [0] if lifted else []
    attributes: dict[str, Any] = {
        "kernel_shape": [*held["kernel"], *one],
        "strides": [*held["stride"], *one],
        "pads": [*held["padding"], *none, *held["padding"], *none],
        "dilations": [*held["dilation"], *one],
        "group": call.groups,
    }
    if call.op == "conv_transpose1d" and any(held.get("output_padding", ())):
        attributes["output_padding"] = list(held["output_padding"])
    return attributes
