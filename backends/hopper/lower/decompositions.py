"""Decompositions: operations of torch that its ONNX exporter lacks, or writes with shapes that hang on numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten
MAX_RUN = 2**22
"""Longest axis along which a running maximum may be asked of a model whose axis is dynamic."""


def repeat_interleave(x: Tensor, counts: Tensor, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """As torch has it: entry i of what comes out is the first of `x` whose running sum of counts is above i.

    Raises:
        NotImplementedError: no `output_size` is given; a size would hang on what a tensor holds.
    """
    if output_size is None:
        raise NotImplementedError("repeat_interleave by a tensor needs output_size: force the durations by the inputs")
    if dim is None:
        x, dim = x.flatten(), 0
    places = torch.arange(output_size, dtype=counts.dtype)
    passed = counts.cumsum(0)[:, None] <= places[None]
    return x.index_select(dim, passed.to(torch.int64).sum(0))


def cummax(x: Tensor, dim: int) -> tuple[Tensor, None]:
    """Running maximum, by doubling the stretch that is looked at; not its positions, which torch gives beside."""
    dim %= x.ndim
    size = x.shape[dim]
    limit = size if type(size) is int else MAX_RUN
    after = [0] * (2 * (x.ndim - 1 - dim))
    running, step = x, 1
    while step < limit:
        shifted = F.pad(running, [*after, step, 0], value=float("-inf")).narrow(dim, 0, size)
        running = torch.maximum(running, shifted)
        step *= 2
    return running, None


DECOMPOSITIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    aten.repeat_interleave.self_Tensor: repeat_interleave,
    aten.cummax.default: cummax,
}
"""By operation."""
