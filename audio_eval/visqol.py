"""ViSQOL: a second opinion beside PESQ, under a free licence; needs the extra `visqol`.

ViSQOL v3 (Chinen et al., QoMEX 2020, arXiv 2004.09584) in the speech mode of `visqol-python`, which follows Google's
C++ program to 0.001. Its score is the polynomial fit of TCD-VOIP, scaled to 5 for identical clips: it only falls as
similarity does. The lattice network that the C++ program asks by default does not: of two embedded voices in fp16 it
scored both above the clip itself (3.976 against 3.905, and 4.147 against 4.110).
"""

import functools
import importlib
import importlib.util
import threading
from typing import Any

import numpy as np

from audio_eval.audio import resample
from audio_eval.clip import SILENT_PEAK, Clip, Samples, UndefinedScore, pair

PACKAGE = "visqol"
VISQOL_HZ = 16000
SHORTEST_SECONDS = 0.7
"""One patch: 0.58 s of frames and the window of the last."""
_ALONE = threading.Lock()
"""The package lets numba compute in parallel, whose simplest threads end the process if two ask them at once."""


def missing() -> str | None:
    """How to install the package, or None where it is."""
    if importlib.util.find_spec(PACKAGE) is not None:
        return None
    return "visqol needs the package visqol-python: pip install 'precision-search[visqol]'"


@functools.cache
def _judge() -> Any:
    judge = importlib.import_module(PACKAGE).VisqolApi()
    judge.create(mode="speech", use_lattice_model=False)
    return judge


def visqol(*, reference: Samples | Clip, degraded: Samples | Clip, sample_rate_hz: int) -> float:
    """ViSQOL in speech mode, MOS-LQO: 5 for identical clips, 1 at worst; higher is better. Deaf above 8 kHz.

    Sample rates above 16 kHz pass through the one resampler of audio.py. One thread at a time; 40 ms a second of audio,
    and some seconds once for compiling.

    Args:
        reference: float32 or float64 [time] in -1..1.
        degraded: the same, of equal length.
        sample_rate_hz: 16 kHz or more.

    Raises:
        UndefinedScore: the extra is not installed; NaN, Inf, a silent clip, lengths that differ, under 0.7 s, a rate
            under 16 kHz, or no patch of the reference that the package takes for voice.
    """
    absent = missing()
    if absent is not None:
        raise UndefinedScore(absent)
    first, second = pair(reference, degraded, sample_rate_hz)
    if sample_rate_hz < VISQOL_HZ:
        raise UndefinedScore(f"ViSQOL needs 16 kHz or more, got {sample_rate_hz} Hz")
    if first.seconds < SHORTEST_SECONDS:
        raise UndefinedScore(f"ViSQOL needs at least {SHORTEST_SECONDS} s, got {first.seconds:.3f} s")
    if second.peak < SILENT_PEAK:
        raise UndefinedScore(f"the degraded clip is silent (peak {second.peak:.3g}): ViSQOL has no score for it")
    wide = (resample(clip.samples, sample_rate_hz, VISQOL_HZ).astype(np.float64) for clip in (first, second))
    try:
        with _ALONE, np.errstate(all="ignore"):
            score = float(_judge().measure_from_arrays(*wide, VISQOL_HZ).moslqo)
    except (ValueError, IndexError, ArithmeticError) as fault:
        raise UndefinedScore(f"ViSQOL has no score for these clips: {fault}") from fault
    if not np.isfinite(score):
        raise UndefinedScore("ViSQOL gave NaN for these clips")
    return score
