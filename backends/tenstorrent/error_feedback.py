"""Error feedback: weights rounded one input after the other, each taking in what rounding those before it lost.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) in the form of Babai's nearest plane, which gives the same weights without
the inverse of the Hessian (Chen et al. 2025, arXiv 2507.18553): with H = R R^T, R upper triangular, the loss
|| (Q - W) R ||^2 is a sum over columns, and column j holds what inputs 0..j have lost. Q_j is chosen to cancel it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from backends.tenstorrent.levers import codes_for_lofi, exponents_for_lofi
from backends.tenstorrent.rounding import BLOCK, MAGNITUDE_BITS, WeightBlocks

DAMPING = 0.01
"""Share of the mean of the Hessian's diagonal that is added to all of it."""
_LAZY = 128
"""Columns between two updates of all that come after."""


class Grid(Protocol):
    """The values that a stored weight may take."""

    @property
    def run(self) -> int:
        """Neighbours along K whose grid is fixed together, before the first of them is rounded."""

    def fix(self, weight: Tensor) -> Callable[[Tensor, int], Tensor]:
        """Fix the grid of a run by its weights [channels, run], float32, of which only the first is final.

        Returns:
            A function of (weights [channels, 1], place in the run): the nearest stored values.
        """


@dataclass(frozen=True, slots=True)
class ColumnGrid:
    """Where a column is stored without regard to its neighbours: floats, and blocks along output channels."""

    store: Callable[[Tensor], Tensor]
    """Rounding of [channels, 1]."""
    run: int = 1

    def fix(self, weight: Tensor) -> Callable[[Tensor, int], Tensor]:
        """See `Grid.fix`."""
        return lambda values, _: self.store(values)


@dataclass(frozen=True, slots=True)
class RunGrid:
    """Blocks along K: a block's exponent is set before its weights take in what the first of them lose.

    What then exceeds the block's largest code is held at it.
    """

    fmt: str
    """bfp8_b or bfp4_b."""
    for_lofi: bool
    """Whether bfp8_b codes have at most 5 significant bits."""
    run: int = BLOCK

    def fix(self, weight: Tensor) -> Callable[[Tensor, int], Tensor]:
        """See `Grid.fix`."""
        rows = weight.mT.contiguous()
        blocks = WeightBlocks(len(rows), 1)
        for_lofi = self.for_lofi and self.fmt == "bfp8_b"
        shared = (exponents_for_lofi(rows, blocks) if for_lofi else blocks.shared_exponent(rows))[:1].mT
        nearest = codes_for_lofi if for_lofi else partial(_codes, width=MAGNITUDE_BITS[self.fmt])
        return lambda values, _: torch.copysign(nearest(values.abs().double(), shared), values.double()).float() + 0.0


def _codes(magnitude: Tensor, shared: Tensor, width: int) -> Tensor:
    quantum = torch.ldexp(torch.ones_like(magnitude), shared - 126 - width)
    return torch.where(shared > 0, (magnitude / quantum).round().clamp_max(2.0**width - 1), 0.0) * quantum


def feed_back(target: Tensor, hessian: Tensor, grid: Grid, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Stored weights whose outputs are nearest to a target's, as far as one pass over K finds them.

    Inputs go from the strongest to the weakest, which has the most to give back; in their own order where neighbours
    along K share an exponent.

    Args:
        target: [channels, k], float64, finite.
        hessian: mean of x x^T of the inputs that meet the stored weights, [k, k], float64.
        grid: of the storage format.
        read: what the multiplier sees of stored weights, of any shape.

    Returns:
        [channels, k], float32, each value one of the grid.
    """
    channels, k = target.shape
    order = torch.arange(k)
    if grid.run == 1:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    target, factor = target[:, order], upper_factor(hessian[order][:, order])
    stored = torch.empty(channels, k)
    lost = torch.zeros(channels, k, dtype=torch.float64)  # target - what is read
    lazy = max(_LAZY // grid.run, 1) * grid.run
    diagonal = factor.diagonal()
    for begin in range(0, k, lazy):
        end = min(begin + lazy, k)
        # How far each column of (target - read) @ R is off by what lies before this stretch.
        carried = lost[:, :begin] @ factor[:begin, begin:end]
        within = factor[begin:end, begin:end]
        for start in range(begin, end, grid.run):
            stop = min(start + grid.run, end)
            here = slice(start - begin, stop - begin)
            off = carried[:, here] + lost[:, begin:start] @ within[: start - begin, here]
            wanted = target[:, start:stop] + off / diagonal[start:stop]
            nearest = grid.fix(wanted.float())
            for place, column in enumerate(range(start, stop)):
                so_far = lost[:, start:column] @ factor[start:column, column, None]
                value = wanted[:, place, None] + so_far / diagonal[column]
                stored[:, column, None] = nearest(value.float(), place)
                lost[:, column] = target[:, column] - read(stored[:, column, None])[:, 0].double()
    return stored[:, order.argsort()]


def upper_factor(hessian: Tensor) -> Tensor:
    """R, upper triangular, with R R^T = the damped Hessian; of one that is all zero, R = 1."""
    level = float(hessian.diagonal().mean())
    damped = hessian + torch.eye(len(hessian), dtype=torch.float64) * (DAMPING * level if level > 0 else 1.0)
    lower: Tensor = torch.linalg.cholesky(damped.flip(0, 1))
    return lower.flip(0, 1)


def compensated(
    target: Tensor, second: Tensor, gain: float, spread: float, missing: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Target and Hessian where the multiplier cuts its activations: x is read as gain * x plus noise.

    The noise is taken as independent in every input, of `spread` times the mean square of that input. Then
    E|x_read Q - x W|^2 is, but for a constant, |Q - W'|^2 under the Hessian that is returned, W' being its minimum.

    With something missing from the results, W' makes up for as much of it as goes along with the inputs.

    Args:
        target: exact weights [channels, k], float64.
        second: mean of x x^T, [k, k], float64.
        gain: E[x_read x] / E[x^2].
        spread: variance of the noise over E[x^2].
        missing: mean of what is missing from each result times x, [channels, k].
    """
    hessian = gain**2 * second + spread * torch.diag(second.diagonal())
    factor = upper_factor(hessian)
    noise = target * (spread * second.diagonal()) - gain**2 * missing
    # W' = H^-1 gain (S W + M), with H = gain^2 S + N: (W - H^-1 (N W - gain^2 M)) / gain.
    half = torch.linalg.solve_triangular(factor, noise.mT, upper=True)
    lost: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=False).mT
    return (target - lost) / gain, hessian
