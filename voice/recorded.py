"""recorded: a recording cut to whole frames, and its log-mel frames, as vocoders take them; and a stretch of those."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voice.mel import MelConfig, log_mel


def recorded(
    name: str, samples: np.ndarray[Any, Any], sample_rate_hz: int, mel: MelConfig
) -> tuple[NDArray[np.float32], Tensor]:
    """Cut a recording to whole frames.

    Args:
        name: of the clip, for messages.
        samples: [time], in -1..1.
        sample_rate_hz: must be that of `mel`.
        mel: the front end.

    Returns:
        The samples [frames * hop] float32, and log-mel frames [1, mels, frames].

    Raises:
        ValueError: for another rate, another shape, NaN or Inf, or less audio than a window.
    """
    if sample_rate_hz != mel.sample_rate_hz:
        raise ValueError(
            f"{name}: audio at {sample_rate_hz} Hz, this voice takes {mel.sample_rate_hz} Hz: resample it first"
        )
    natural = np.asarray(samples, dtype=np.float32)
    if natural.ndim != 1 or not np.isfinite(natural).all():
        raise ValueError(f"{name}: audio must be one channel of finite samples, got shape {natural.shape}")
    if len(natural) < mel.fft:
        raise ValueError(f"{name}: {len(natural)} samples are too short, at least {mel.fft} are needed")
    natural = natural[: len(natural) // mel.hop * mel.hop].copy()
    with torch.inference_mode():
        frames = log_mel(torch.from_numpy(natural)[None], mel)
    return natural, frames


def frames_at(count: int, place: float, wanted: float) -> slice:
    """Frames of an excerpt: about `wanted` of `count`, the first `place` (0..1) of the way through what it can be."""
    length = min(max(round(wanted), 1), count)
    first = min(int(place * (count - length + 1)), count - length)
    return slice(first, first + length)
