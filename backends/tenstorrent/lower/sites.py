"""Sites: the products of a model, each under its scheme, as operations of the card."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.tenstorrent.lower.arranged import IDENTITY, Arranged, Four, axis_of, four, padded
from backends.tenstorrent.lower.builder import Builder
from backends.tenstorrent.lower.operands import Operands
from backends.tenstorrent.lower.reading import UnsupportedError
from backends.tenstorrent.program import Compute, Value
from backends.tenstorrent.rounding import MAGNITUDE_BITS
from backends.tenstorrent.shards import TILE
from precision.policy import Scheme
from voice.graph import SiteNode
from voice.site_call import ConvOptions

CHANNELS_LAST: Four = (0, 1, 3, 2)


def lower_site(
    build: Builder,
    site: SiteNode,
    scheme: Scheme,
    operands: Operands | None,
    read: Callable[[Any, str], Arranged],
    shape: tuple[int, ...],
) -> Arranged:
    """Add what computes a site.

    Args:
        build: takes the steps.
        site: of the graph.
        scheme: of the policy; the backend does not refuse it.
        operands: stored weight and bias; None for a product of two activations.
        read: gives an input of the node on the card; the type is that in which a host value is moved there.
        shape: of the result, in torch.

    Raises:
        UnsupportedError: a convolution over a batch, or in two dimensions.
    """
    held = _held(scheme)
    assert scheme.fidelity is not None
    compute = Compute(scheme.fidelity, scheme.accumulate == "fp32", scheme.packer_l1_acc)
    x = read(site.x, held)
    if site.op == "matmul":
        return _product(build, site, scheme, compute, x, read(site.weight, held), shape)
    assert operands is not None
    if site.op == "linear":
        result = _linear(build, site, scheme, compute, x, operands, shape)
    elif site.op in ("conv1d", "conv_transpose1d"):
        result = _convolution(build, site, scheme, compute, x, operands, shape)
    else:
        raise UnsupportedError(f"{site.op} is not lowered; only conv1d and conv_transpose1d are")
    if scheme.bias_apart and operands.bias is not None:
        bias = build.constant(f"{site.site}_bias", _rows(operands.bias), "fp32")
        added = build.step("add", [result.value, bias], result.value.shape, held, name=f"{site.site}_with_bias")
        return Arranged(added, result.shape, result.order)
    return result


def _product(
    build: Builder, site: SiteNode, scheme: Scheme, compute: Compute, x: Arranged, y: Arranged, shape: tuple[int, ...]
) -> Arranged:
    left = build.cast(build.ordered(x, IDENTITY).value, scheme.activation)
    right = build.cast(build.ordered(y, IDENTITY).value, scheme.activation)
    four_axes = _four(shape)
    result = build.step(
        "matmul",
        [left, right],
        four_axes,
        _held(scheme),
        name=site.site,
        options={"in0_block_w": scheme.in0_block_w},
        compute=compute,
        site=site.site,
    )
    return Arranged(result, four_axes, IDENTITY)


def _linear(
    build: Builder,
    site: SiteNode,
    scheme: Scheme,
    compute: Compute,
    x: Arranged,
    operands: Operands,
    shape: tuple[int, ...],
) -> Arranged:
    # K must lie along the card's last axis; the others keep the order in which they are.
    last = axis_of(-1, 4)
    rest = [axis for axis in x.order if axis != last]
    x = build.ordered(x, four([*rest, last]))
    transposed = "col_tilize" in scheme.levers
    weight = operands.weight if transposed else operands.weight.mT
    inputs = [
        build.cast(x.value, scheme.activation),
        build.constant(f"{site.site}_weight", _array(weight), scheme.weight, site=site.site, col_tilize=transposed),
    ]
    if operands.bias is not None and not scheme.bias_apart:
        inputs.append(build.constant(f"{site.site}_bias", _rows(operands.bias), "bf16", site=site.site))
    four_axes = _four(shape)
    result = build.step(
        "linear",
        inputs,
        [four_axes[axis] for axis in x.order],
        _held(scheme),
        name=site.site,
        options={"in0_block_w": scheme.in0_block_w, "transpose_b": transposed},
        compute=compute,
        site=site.site,
    )
    return Arranged(result, four_axes, x.order)


def _convolution(
    build: Builder,
    site: SiteNode,
    scheme: Scheme,
    compute: Compute,
    x: Arranged,
    operands: Operands,
    shape: tuple[int, ...],
) -> Arranged:
    geometry = site.options
    assert geometry is not None
    if x.shape[1] != 1:
        raise UnsupportedError(f"a convolution over a batch of {x.shape[1]} is not lowered; render one clip at a time")
    x = build.ordered(x, CHANNELS_LAST)
    # Rows keep ttnn from filling channels up to 32 a tap; types that share exponents exist in tiles only.
    tiles = scheme.activation in MAGNITUDE_BITS or (x.shape[2] % TILE == 0 and scheme.in0_block_w is None)
    value = build.laid_out(build.cast(x.value, scheme.activation), "tile" if tiles else "row_major")
    weight = operands.weight[:, :, None, :]
    # What shares exponents has at most eight significant bits, so bf16 holds it, and ttnn packs it as it was.
    stored = "fp32" if scheme.weight == "fp32" else "bf16"
    inputs = [value, _host_constant(build, f"{site.site}_weight", weight, scheme.weight, stored, site.site)]
    if operands.bias is not None and not scheme.bias_apart:
        bias = operands.bias[None, None, None, :]
        inputs.append(_host_constant(build, f"{site.site}_bias", bias, scheme.weight, stored, site.site))
    four_axes = _four(shape)
    result = build.step(
        site.op,
        inputs,
        [four_axes[axis] for axis in CHANNELS_LAST],
        _held(scheme),
        name=site.site,
        options=_geometry(site, geometry, x.shape, four_axes)
        | {"weights_dtype": scheme.weight, "in0_block_w": scheme.in0_block_w},
        compute=compute,
        site=site.site,
    )
    return Arranged(result, four_axes, CHANNELS_LAST)


def _geometry(site: SiteNode, geometry: ConvOptions, x: Four, result: Four) -> dict[str, Any]:
    (padding,) = geometry.padding
    options = {
        "batch": 1,
        "length": x[3],
        "in_channels": x[2],
        "out_channels": result[2],
        "kernel": int(site.weight.meta["val"].shape[-1]),
        "stride": geometry.stride[0],
        "padding": (padding, padding),
        "dilation": geometry.dilation[0],
        "groups": geometry.groups,
    }
    if site.op == "conv_transpose1d":
        options["output_padding"] = geometry.output_padding[0] if geometry.output_padding else 0
    return options


def _host_constant(build: Builder, name: str, values: Tensor, dtype: str, stored: str, site: str) -> Value:
    return build.constant(
        name,
        _array(values),
        dtype,
        layout="row_major",
        file_dtype=stored,
        file_layout="row_major",
        on_host=True,
        site=site,
    )


def _held(scheme: Scheme) -> str:
    """Type of a site's result, and in which a value of the host is moved to it."""
    return "fp32" if scheme.activation == "fp32" else "bf16"


def _four(shape: tuple[int, ...]) -> Four:
    four_axes = padded(shape)
    if four_axes is None:
        raise UnsupportedError(f"a tensor of {len(shape)} axes is not lowered; ttnn's operations take four")
    return four_axes


def _rows(bias: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return _array(bias[None, None, None, :])


def _array(values: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    array: np.ndarray[Any, np.dtype[np.float32]] = values.detach().to(torch.float32).contiguous().cpu().numpy()
    return array
