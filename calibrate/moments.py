"""Moments: means and second moments of what goes into a site, which levers that use data need."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of the rows of a site's input, in the order of K that `voice.gemm.to_rows` has."""

    mean: Tensor
    """[groups, k], float64."""
    second: Tensor
    """Mean of x x^T, [groups, k, k], float64; not centred."""
    rows: int
    """Rows that were counted."""
