"""Agreement: by how much the search's fast arithmetic and the exact one differ on the policy that was found."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from audio_eval.clip import Samples
from precision.candidate import numbers


def snr_db(exact: Samples, fast: Samples) -> float:
    """Level of the exact waveform over that of its difference from the fast one, dB.

    Infinite where they are the same; NaN where their lengths differ, a sample is not finite, or the exact one alone is
    silent.
    """
    if exact.shape != fast.shape or not (np.isfinite(exact).all() and np.isfinite(fast).all()):
        return math.nan
    whole = exact.astype(np.float64)
    power, left = float(np.sum(whole**2)), float(np.sum((whole - fast) ** 2))
    if left == 0.0:
        return math.inf
    return 10.0 * math.log10(power / left) if power > 0.0 else math.nan


def agreement(fast: str, exact: str, found: Mapping[str, float]) -> dict[str, Any]:
    """The summary's entry: names of the arithmetics, SNR by clip, its mean in dB and the worst clip.

    NaN, which is worst of all, and infinities are texts.
    """
    worst = min(found, key=lambda clip: -math.inf if math.isnan(found[clip]) else found[clip])
    mean = math.fsum(found.values()) / len(found)
    return {
        "fast": fast,
        "exact": exact,
        "snr_db": numbers(found),
        "worst_clip": worst,
        **numbers({"mean_snr_db": mean, "worst_snr_db": found[worst]}),
    }
