"""One call of HiGHS, made quiet and checked for its status."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csc_array

from precision.search.unit import Array

_OPTIMAL, _INFEASIBLE = 0, 2


def minimise_mixed(
    objective: Array, rows: csc_array, lower: Array, upper: Array, binary: NDArray[np.bool_], most: Array
) -> Array | None:
    """Minimise objective . x over 0 <= x <= most, some x in {0, 1}, with lower <= rows . x <= upper, to the end.

    Args:
        objective: [variable] finite.
        rows: [row, variable] finite.
        lower: [row], -inf allowed.
        upper: [row], +inf allowed.
        binary: [variable] whether it must be 0 or 1.
        most: [variable] > 0, +inf allowed.

    Returns:
        x [variable], or None where no x fits.

    Raises:
        RuntimeError: HiGHS gave up, with and without presolve.
    """
    message = ""
    for presolve in (True, False):
        with _silent_stdout():
            result = milp(
                objective,
                integrality=binary.astype(np.int64),
                bounds=Bounds(np.zeros(objective.size), most),
                constraints=LinearConstraint(rows, lower, upper),
                options={"mip_rel_gap": 0.0, "presolve": presolve},
            )
        if result.status == _INFEASIBLE:
            return None
        if result.status == _OPTIMAL and result.x is not None:
            return np.asarray(result.x, dtype=np.float64)
        message = str(result.message)
    raise RuntimeError(
        f"scipy.optimize.milp neither solved nor refuted a problem of {objective.size} variables: {message}"
    )


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Send the C library's standard output nowhere.

    HiGHS 1.12 prints a line of its own whatever it is told (jump-dev/HiGHS.jl issue 312), which would break `--json`.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    try:
        kept = os.dup(1)
    except OSError:  # no standard output: nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        if libc is not None:
            libc.fflush(None)
        os.dup2(nowhere, 1)
        yield
    finally:
        if libc is not None:
            libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
