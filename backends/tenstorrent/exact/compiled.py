"""Compiled: numba kernels whose cache on disk several processes may fill at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock
from numba.core.caching import FunctionCache

LOCK = "precision_search.lock"


class _SharedCache(FunctionCache):
    """Numba's cache, read and written by one process at a time.

    Numba writes an index and then numbered files, and two processes that compile a kernel for unlike arguments at the
    same time may take one number: who loads it later calls machine code of other arguments (numba issue 4807).
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for the arguments' types; None where there is nothing."""
        with self._alone():
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled."""
        with self._alone():
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]

    def _alone(self) -> FileLock:
        folder = Path(self.cache_path)
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, to run without the GIL, and keep the result on disk."""
    kernel: Any = numba.njit(nogil=True)(function)
    kernel._cache = _SharedCache(function)  # type: ignore[no-untyped-call]
    return kernel
