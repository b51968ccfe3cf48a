"""Fitting: the figures of a `GemmFormula` from measured products of a card."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from backends.gemm_formula import GemmFormula, Numbers, Product

ROWS = 4000
"""Rows that a fit looks at, drawn with a seed; more change no figure by what matters."""
SPREAD = 0.1
"""Relative error from which a row counts as an outlier, whose weight in the fit falls (soft L1)."""
START: Mapping[str, tuple[float, float, float]] = {
    "launch_us": (2.5, 0.5, 8.0),
    "operand_gb_per_s": (100.0, 10.0, 2000.0),
    "tile_us": (0.5, 0.01, 5.0),
    "split_us": (1.0, 0.1, 20.0),
    "l2_share": (1.0, 0.1, 3.0),
    "l2_edge": (4.0, 1.0, 30.0),
    "blend": (2.0, 1.0, 10.0),
    "quantize_us": (9.5, 1.0, 20.0),
    "quantize_gb_per_s": (2000.0, 100.0, 20000.0),
}
"""Where a fit begins, and between what it stays; rate and bandwidth begin at 0.7 of the data sheet's and stay below."""
_QUANTIZING = ("quantize_us", "quantize_gb_per_s")


def fit(
    shapes: NDArray[np.int64],
    latency_us: Numbers,
    *,
    multiprocessors: int,
    l2_mib: float,
    peak_tflops: float,
    peak_gb_per_s: float,
    bf16: GemmFormula | None = None,
    seed: int = 0,
) -> GemmFormula:
    """Fit the formula to measured products, by least squares of the logs of predicted by measured.

    Args:
        shapes: [row, 3] m, n and k.
        latency_us: [row] what they took.
        multiprocessors: of the card.
        l2_mib: of its L2 cache.
        peak_tflops: of the data sheet, for these operands.
        peak_gb_per_s: of its memory.
        bf16: the same card's formula in bf16 where rows are of FP8 with the activation's quantization in them. FP8
            takes its launch over: in rows of FP8 alone launch and quantization cannot be told apart.
        seed: of the draw of rows.
    """
    chosen = np.random.default_rng(seed).permutation(len(shapes))[:ROWS]
    m, n, k = shapes[chosen].astype(np.float64).T
    measured = np.log(latency_us[chosen])
    bits = 16 if bf16 is None else 8
    product = Product(m, n, k, left_bits=bits, right_bits=bits)
    free = {name: bounds for name, bounds in START.items() if bf16 is not None or name not in _QUANTIZING}
    if bf16 is not None:
        del free["launch_us"]
    free |= {"tflops": (0.7 * peak_tflops, 0.1 * peak_tflops, peak_tflops)}
    # Where so few bytes come from L2 that its rate hardly shows, a fit would put it below DRAM's.
    free |= {"l2_gb_per_s": (2 * peak_gb_per_s, peak_gb_per_s, 10 * peak_gb_per_s)}
    free |= {"write_gb_per_s": (peak_gb_per_s, 0.3 * peak_gb_per_s, 10 * peak_gb_per_s)}
    free |= {"dram_gb_per_s": (0.7 * peak_gb_per_s, 0.1 * peak_gb_per_s, peak_gb_per_s)}
    start, low, high = np.log(np.array(list(free.values()))).T
    launch = {} if bf16 is None else {"launch_us": bf16.launch_us}

    def formula(logs: Numbers) -> GemmFormula:
        figures = dict(zip(free, np.exp(logs).tolist(), strict=True))
        return GemmFormula(multiprocessors, l2_mib, **launch, **figures)

    def misses(logs: Numbers) -> Numbers:
        tried = formula(logs)
        quantizing = 0.0 if bf16 is None else tried.quantize_activation_us(m * k)
        missed: Numbers = np.log(tried.product_us(product) + quantizing) - measured
        return missed

    # The formula has steps (waves), which a derivative over a thousandth of a figure looks past.
    step = np.full(len(start), 1e-3)
    found = least_squares(
        misses, start, bounds=(low, high), loss="soft_l1", f_scale=SPREAD, diff_step=step, max_nfev=60
    )
    figures = {name: float(f"{value:.4g}") for name, value in zip(free, np.exp(found.x).tolist(), strict=True)}
    return GemmFormula(multiprocessors, l2_mib, **launch, **figures)
