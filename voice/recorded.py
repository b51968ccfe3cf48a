"""recorded: a recording cut to whole frames, and its log-mel frames, as vocoders take them; and a stretch of those.

And Resynthesis, the Voice of a vocoder that is given such frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voice.family import Family
from voice.mel import MelConfig, log_mel
from voice.model import Clip, Rendering


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


class Resynthesis(ABC):
    """A vocoder as a Voice: speech to log-mel frames, which are a clip's inputs, and back."""

    family: Family = "vocoder"
    protected: Mapping[str, str] = {}

    def __init__(self, module: nn.Module, mel: MelConfig) -> None:
        self.module: Any = module.eval()
        self.mel = mel
        self.sample_rate_hz = mel.sample_rate_hz

    def clip(self, name: str, samples: np.ndarray[Any, Any], sample_rate_hz: int) -> Clip:
        """Make a clip of a recording; ValueError as `recorded` has it."""
        natural, frames = recorded(name, samples, sample_rate_hz, self.mel)
        return Clip(name, (frames,), len(natural) / self.sample_rate_hz, natural)

    def unforced(self, clip: Clip) -> Clip | None:
        """Give None: a vocoder has nothing of its own to put in place of its inputs."""
        return None

    def reseeded(self, clip: Clip, seed: int) -> Clip | None:
        """Give None: it draws no noise."""
        return None

    def render(self, clip: Clip) -> Rendering:
        """Give the waveform [time] float32, about -1..1, of a clip's log-mel frames."""
        with torch.inference_mode():
            return Rendering(self.sound(clip))

    @abstractmethod
    def sound(self, clip: Clip) -> Tensor:
        """Give the waveform that `render` gives, with gradients where they are wanted."""

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        """Give some frames of a clip, the first of them `place` (0..1) of the way through what can be one."""
        (mel,) = clip.inputs
        frames = frames_at(mel.shape[2], place, seconds * self.sample_rate_hz / self.mel.hop)
        inputs = (mel[:, :, frames].clone(),)  # those of `clip` are inference tensors: they train nothing
        length = (frames.stop - frames.start) * self.mel.hop / self.sample_rate_hz
        return Clip(f"{clip.name}+{frames.start}", inputs, length, None)
