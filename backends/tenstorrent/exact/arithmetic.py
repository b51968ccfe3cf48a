"""ExactTensix: the arithmetic of whole operations to the bit, for any call of a model; slow, for the last word."""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.base import Prepared
from backends.tenstorrent.exact.convolution import convolution_registers
from backends.tenstorrent.exact.linear import linear_registers
from backends.tenstorrent.exact.operations import Format, Program, Values, device_registers, host_registers
from backends.tenstorrent.partials import bias_shape, is_matmul
from backends.tenstorrent.storage import store_operands
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Scheme
from voice.gemm import from_rows, to_columns, to_rows
from voice.site_call import SiteCall

Architecture = Literal["wormhole_b0", "blackhole"]
_UNFOLDED = 1 << 24
"""Values of an unfolded input held at a time (64 MB)."""


@dataclass(frozen=True, slots=True)
class ExactTensix:
    """Wormhole and Blackhole as ttsim v1.10.0 and ttnn 0.81.1 have them; formats bf16, bfp8_b, bfp4_b, fp32.

    Inputs are stored by the packer from fp32, weights by the host. A linear layer or product of activations runs as
    `ttnn.linear`, a convolution as `ttnn.conv1d`: with `in0_block_w` None height-sharded, with a number block-sharded.
    One of a single tap is a matrix product there, too. A transposed convolution is one over its spread input. Results
    are stored as bf16, or as fp32 where the scheme's activation is.

    Linear layers and stride-1 convolutions of whole eights of channels were measured on the simulator. The rest follows
    the same rules, but ttnn may lay out K otherwise: groups (here one product each) and odd numbers of channels.
    """

    architecture: Architecture

    @property
    def name(self) -> str:
        """tensix_exact_ and the card."""
        return f"tensix_exact_{self.architecture}"

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """Store weight and bias, levers included, and give what a source register shows of them.

        A product of two activations has nothing to prepare.

        Raises:
            ValueError: weight or bias is not finite; a lever needs moments and there are none that fit.
        """
        if call.is_product:
            return Prepared(None, None)
        weight, bias = store_operands(call, scheme, moments)
        if scheme.weight == "fp32":
            weight = torch.from_numpy(host_registers(_array(weight), "fp32", scheme.accumulate == "bf16"))
        return Prepared(weight, bias)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`; the calibration is not used.

        NaN and Inf among activations become Inf of their sign where they are stored as bf16, Inf and its block's end
        where as bfp8_b or bfp4_b; as fp32 a NaN counts as a number beyond 2**128. Results beyond the range are Inf.

        Raises:
            ValueError: 8 channels of a convolution do not fit in `in0_block_w` tiles.
        """
        program = self._program(scheme)
        tf32 = not program.dst16 and "fp32" in (scheme.weight, scheme.activation)
        x = _read(call.x, scheme, 1 if call.options is not None else -1)
        weight = _read(call.weight, scheme, -1) if prepared.weight is None else prepared.weight
        apart = prepared.bias if scheme.bias_apart else None
        bias = None if prepared.bias is None or apart is not None else _array(prepared.bias)
        if call.options is None:
            total = _products(x, to_columns(weight, call.op), bias, program, tf32=tf32)
        else:
            columns = _array(to_columns(weight, call.op, call.options.groups))
            total = from_rows(call, _convolve(call, x, columns, bias, program, tf32=tf32))
        if apart is not None:
            # ttnn adds fp32 tensors on the vector unit, which no vectors cover: taken to be IEEE addition.
            total = total + apart.cpu().view(bias_shape(call))
        return total.to(call.x.device)

    def _program(self, scheme: Scheme) -> Program:
        return Program(
            scheme.fidelity or "hifi4",
            dst16=scheme.accumulate == "bf16",
            wormhole=self.architecture == "wormhole_b0",
            output="fp32" if scheme.activation == "fp32" else "bf16",
            packer_l1_acc=scheme.packer_l1_acc,
            in0_block_w=scheme.in0_block_w,
        )


def _array(values: Tensor) -> Values:
    return values.detach().cpu().contiguous().numpy()


def _read(x: Tensor, scheme: Scheme, axis: int) -> Tensor:
    """An activation as a source register shows it once the packer has stored it; blocks lie along `axis`."""
    rows = _array(x.detach().movedim(axis, -1))
    read = device_registers(rows, cast(Format, scheme.activation), scheme.accumulate == "bf16")
    return torch.from_numpy(read).movedim(-1, axis)


def _products(x: Tensor, columns: Tensor, bias: Values | None, program: Program, *, tf32: bool) -> Tensor:
    """Matrix products of [..., m, k] and [..., k, n]; leading axes are broadcast, of one matrix on the right merged."""
    n = columns.shape[-1]
    if columns.ndim == 2:
        rows = _array(x).reshape(-1, x.shape[-1])
        return torch.from_numpy(linear_registers(rows, _array(columns), bias, program, tf32=tf32)).view(
            *x.shape[:-1], n
        )
    batch = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(columns.shape[:-2]))
    left = _array(x.expand(*batch, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
    right = _array(columns.expand(*batch, *columns.shape[-2:])).reshape(-1, *columns.shape[-2:])
    products = [linear_registers(a, b, bias, program, tf32=tf32) for a, b in zip(left, right, strict=True)]
    stacked = np.stack(products) if products else np.zeros((0, x.shape[-2], n), np.float32)
    return torch.from_numpy(stacked).view(*batch, x.shape[-2], n)


def _convolve(
    call: SiteCall, x: Tensor, columns: Values, bias: Values | None, program: Program, *, tf32: bool
) -> Tensor:
    """Products [batch, groups, positions, n] of the unfolded input and columns [groups, k, n], a stretch at a time."""
    one_tap = is_matmul(call, program.in0_block_w)
    call = _plain(call, x)
    options = call.options
    assert options is not None
    groups, depth, n = columns.shape
    taps = prod(call.weight.shape[2:])
    reach = [d * (count - 1) for d, count in zip(options.dilation, call.weight.shape[2:], strict=True)]
    sizes = [(size - r - 1) // s + 1 for size, r, s in zip(call.x.shape[2:], reach, options.stride, strict=True)]
    across = prod(sizes[1:])
    total = torch.empty(len(x), groups, sizes[0] * across, n)
    stride = options.stride[0]
    stretch = max(1, _UNFOLDED // max(1, len(x) * across * groups * depth))
    for start in range(0, sizes[0], stretch):
        stop = min(start + stretch, sizes[0])
        part = call.x[:, :, start * stride : (stop - 1) * stride + reach[0] + 1]
        unfolded = to_rows(call, part)
        for group in range(groups):
            rows, own = _array(unfolded[:, group]), None if bias is None else bias[group * n : (group + 1) * n]
            if one_tap:
                result = linear_registers(rows.reshape(-1, depth), columns[group], own, program, tf32=tf32)
            else:
                rows, shape = rows.reshape(-1, taps, depth // taps), (taps, depth // taps, n)
                result = convolution_registers(rows, columns[group].reshape(shape), own, program, tf32=tf32)
            total[:, group, start * across : stop * across] = torch.from_numpy(result).view(len(x), -1, n)
    return total


def _plain(call: SiteCall, x: Tensor) -> SiteCall:
    """The same convolution of an input `x`, padded (and spread, if transposed) beforehand."""
    options = call.options
    assert options is not None
    padding = [(amount, amount) for amount in options.padding]
    if call.op == "conv_transpose1d":
        stride = options.stride[0]
        spread = x.new_zeros((*x.shape[:2], (x.shape[2] - 1) * stride + 1))
        spread[..., ::stride] = x
        reach = options.dilation[0] * (call.weight.shape[2] - 1) - options.padding[0]
        x, padding = spread, [(reach, reach + options.output_padding[0])]
        options = replace(options, stride=(1,), output_padding=())
    x = F.pad(x, [amount for pair in reversed(padding) for amount in pair])
    options = replace(options, padding=(0,) * len(options.padding))
    return replace(call, op="conv2d" if call.op == "conv2d" else "conv1d", x=x, options=options)
