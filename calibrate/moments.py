"""Moments: means and second moments of what goes into a site, which levers that use data need."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from calibrate.observing import ObservedCall
from precision.policy import Lever

NEEDS_MOMENTS: frozenset[Lever] = frozenset({"error_feedback", "bias_correction"})
"""Levers that ask for the moments of a site's input."""
_CHUNK = 1024
"""Rows summed in fp32 before they are added in float64."""
CallT = TypeVar("CallT", bound=ObservedCall)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of the rows of a site's input, in the order of K that `voice.gemm.to_rows` has."""

    mean: Tensor
    """[groups, k], float64."""
    second: Tensor
    """Mean of x x^T, [groups, k, k], float64; not centred."""
    rows: int
    """Rows that were counted."""


class MomentsObserver(Generic[CallT]):
    """Sums of the rows that go into some sites; memory is 8 * groups * k**2 bytes a site."""

    def __init__(self, rows: Callable[[CallT], Tensor], sites: Collection[str]) -> None:
        self._rows = rows
        self._sites = frozenset(sites)
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def handle(self, call: CallT) -> Tensor:
        """Count the rows of a call of one of the sites, and compute any call unchanged.

        Products of two activations have no moments. Raises ValueError, naming the site, where a row has NaN or Inf.
        """
        if call.site in self._sites and not call.is_product:
            self._add(call.site, self._rows(call).detach())
        return call.compute()

    def moments(self) -> dict[str, Moments]:
        """Moments of every site observed so far; a site that was not called has none."""
        return {
            site: Moments(total / count, second / count, count)
            for site, (total, second, count) in self._sums.items()
            if count
        }

    def _add(self, site: str, rows: Tensor) -> None:
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"site {site!r}, input: Inf or NaN among activations; calibrate on clips the model survives"
            )
        groups, count, k = rows.shape
        held = self._sums.get(site)
        if held is None:
            zeros = torch.zeros(groups, k, dtype=torch.float64), torch.zeros(groups, k, k, dtype=torch.float64)
            held = self._sums[site] = (*zeros, 0)
        total, second, counted = held
        for start in range(0, count, _CHUNK):
            chunk = rows[:, start : start + _CHUNK].float()
            total += chunk.sum(1, dtype=torch.float64).cpu()
            second += (chunk.mT @ chunk).cpu()
        self._sums[site] = total, second, counted + count


@contextmanager
def observing_moments(
    attach: Callable[[Callable[[CallT], Tensor]], AbstractContextManager[object]],
    rows: Callable[[CallT], Tensor],
    sites: Collection[str],
) -> Iterator[MomentsObserver[CallT]]:
    """Collect moments of everything the model computes inside the context; leaves nothing behind.

    Args:
        attach: opens an interception for a handler.
        rows: rows [groups, m, k] of a call's input, as many as are to be counted.
        sites: names of the sites that are wanted.

    Yields:
        The observer; ask it for its `moments()` after the last clip.
    """
    observer = MomentsObserver(rows, sites)
    with attach(observer.handle):
        yield observer


def save_moments(moments: Mapping[str, Moments], path: Path) -> None:
    """Write moments to a safetensors file, bit for bit."""
    from safetensors.torch import save_file  # late, as all of safetensors here: benchmarks of a card run without it

    tensors = {}
    for site, held in moments.items():
        tensors[f"mean {site}"], tensors[f"second {site}"] = held.mean.contiguous(), held.second.contiguous()
    save_file(tensors, path, {site: str(held.rows) for site, held in moments.items()})


class StoredMoments(Mapping[str, Moments]):
    """Moments in a file of `save_moments`, each read when it is asked for and not kept."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._path = path
        with safe_open(path, "pt") as file:
            self._rows = {site: int(count) for site, count in (file.metadata() or {}).items()}

    def __getitem__(self, site: str) -> Moments:
        """Read the moments of a site; KeyError where the file has none."""
        from safetensors import safe_open

        rows = self._rows[site]
        with safe_open(self._path, "pt") as file:
            return Moments(file.get_tensor(f"mean {site}"), file.get_tensor(f"second {site}"), rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
