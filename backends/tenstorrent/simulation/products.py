"""Products: steps of the matrix engine as calls of sites, computed by an arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.base import Arithmetic
from backends.tenstorrent.program import CardStep, Constant, Value
from backends.tenstorrent.storage import store_operands
from precision.policy import Scheme
from precision.site import Op
from voice.site_call import ConvOptions, SiteCall

PRODUCTS = ("linear", "matmul", "conv1d", "conv_transpose1d")


class SimulationError(ValueError):
    """A program that contradicts itself, or asks for what no vectors cover."""


@dataclass(frozen=True, slots=True)
class Read:
    """An input of a product."""

    value: Value
    values: Tensor
    constant: Constant | None


def product(step: CardStep, inputs: Sequence[Read], arithmetic: Arithmetic) -> Tensor:
    """Compute a product in the shape of its result.

    The constants hold what was stored, and storing it once more changes nothing; that is checked.

    Raises:
        SimulationError: operands, types or geometry that the arithmetic does not cover.
    """
    x, other, *rest = inputs
    if step.op != "matmul" and other.constant is None:
        raise SimulationError(f"{step.result.name}: the weight of {step.op} must be a constant, got {other.value.name}")
    scheme = _scheme(step, x, other)
    call = _call(step, x.values, other.values, rest[0].values if rest else None)
    if step.op != "matmul":
        _check_stored(call, scheme, other.value.name)
    prepared = arithmetic.prepare(call, scheme)
    result = arithmetic.compute(call, scheme, prepared, None)
    if call.options is not None:
        result = result.transpose(1, 2)  # [batch, length, channels]
    return result.reshape(step.result.shape)


def _scheme(step: CardStep, x: Read, other: Read) -> Scheme:
    compute = step.compute
    if compute is None:
        raise SimulationError(f"{step.result.name}: {step.op} has no compute; every product needs one")
    given = step.options.get("weights_dtype", other.value.dtype)
    held = "fp32" if x.value.dtype == "fp32" else "bf16"
    if step.op == "matmul" and x.value.dtype != other.value.dtype:
        raise SimulationError(
            f"{step.result.name}: operands are {x.value.dtype} and {other.value.dtype}; products of two activations are"
            " covered where both are of one type"
        )
    if given != other.value.dtype or step.result.dtype != held:
        raise SimulationError(
            f"{step.result.name}: {x.value.dtype} by {other.value.dtype} (weights_dtype {given}) to"
            f" {step.result.dtype}; covered are results in {held} of weights in the type that they are stored in"
        )
    along_k = other.constant is not None and other.constant.col_tilize
    return Scheme(
        name=step.site or step.result.name,
        weight=other.value.dtype,
        activation=x.value.dtype,
        accumulate="fp32" if compute.fp32_accumulation else "bf16",
        fidelity=compute.fidelity,
        levers=("col_tilize",) if along_k else (),
        packer_l1_acc=compute.packer_l1_acc,
        in0_block_w=step.options.get("in0_block_w"),
    )


def _call(step: CardStep, x: Tensor, weight: Tensor, bias: Tensor | None) -> SiteCall:
    """The step in torch's layouts."""
    site = step.site or step.result.name
    bias = None if bias is None else bias.reshape(-1)
    if step.op == "matmul":
        return SiteCall(site, "matmul", x, weight, None, None, is_product=True, index=0)
    if step.op == "linear":
        weight = weight.reshape(weight.shape[-2:])
        weight = weight if step.options.get("transpose_b") else weight.mT
        return SiteCall(site, "linear", x, weight.contiguous(), bias, None, is_product=False, index=0)
    options = step.options
    x = x.reshape(options["batch"], options["length"], options["in_channels"]).transpose(1, 2).contiguous()
    left, right = options["padding"]
    extra: tuple[int, ...] = ()
    if step.op == "conv_transpose1d":
        extra = (int(options.get("output_padding", 0)) + left - right,)
        if not 0 <= extra[0] < max(options["stride"], options["dilation"]):
            raise SimulationError(
                f"{site}: padding {left}, {right} of a transposed convolution; the right may be smaller by less than"
                " its stride"
            )
    elif left != right:
        x, left = F.pad(x, (left, right)), 0
    geometry = ConvOptions((options["stride"],), (left,), (options["dilation"],), options["groups"], extra)
    return SiteCall(site, cast(Op, step.op), x, weight.squeeze(2), bias, geometry, is_product=False, index=0)


def _check_stored(call: SiteCall, scheme: Scheme, name: str) -> None:
    weight, bias = store_operands(call, scheme)
    given = [("weight", weight, call.weight), ("bias", bias, call.bias)]
    for operand, stored, held in given:
        if stored is not None and held is not None and not torch.equal(stored, held):
            raise SimulationError(
                f"{name}: the {operand} of {call.site} has numbers that {scheme.weight} does not hold; a program's"
                " constants are what was stored"
            )
