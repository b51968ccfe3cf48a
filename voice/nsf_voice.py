"""The source-filter vocoder as a Voice: frames, F0 and noise come with a clip, so that renders differ by arithmetic."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voice.checkpoint import load_into, load_state_dict
from voice.embedded import bundled_clips
from voice.mel import MelConfig
from voice.model import Clip
from voice.nsf import Nsf
from voice.recorded import Resynthesis, frames_at, recorded


class NsfVoice(Resynthesis):
    """A source-filter vocoder as a Voice: speech to log-mel frames, F0 and noise, and back."""

    name = "nsf"
    module: Nsf

    def __init__(self, module: Nsf) -> None:
        super().__init__(module.requires_grad_(False), module.config.mel)

    @classmethod
    def load(cls, checkpoint: Path | None = None) -> "NsfVoice":
        """Load the weights that the package brings, or a checkpoint of the same shape.

        Raises:
            CheckpointError: as `voice.checkpoint` has it.
        """
        path = checkpoint or Path(str(files("voice") / "data" / "nsf.safetensors"))
        module = Nsf()
        load_into(module, load_state_dict(path), path)
        return cls(module)

    def clip(
        self,
        name: str,
        samples: np.ndarray[Any, Any],
        sample_rate_hz: int,
        f0_hz: Tensor | None = None,
        seed: int = 0,
    ) -> Clip:
        """Make a clip of a recording, its F0 and noise forced on the model.

        Args:
            name: of the clip.
            samples: [time], in -1..1; cut to whole frames.
            sample_rate_hz: must be the voice's own.
            f0_hz: [frames], 0 where unvoiced; None finds it by probabilistic YIN, 60 ms of work a second of audio.
            seed: of the noise.

        Raises:
            ValueError: F0 of another length than the frames, below 0 or not finite; as `voice.recorded` has it.
        """
        natural, frames = recorded(name, samples, sample_rate_hz, self.mel)
        f0 = torch.from_numpy(track_f0(natural, self.mel)) if f0_hz is None else f0_hz.float()
        if f0.shape != frames.shape[2:] or not bool((f0.isfinite() & (f0 >= 0)).all()):
            raise ValueError(
                f"{name}: F0 must be {frames.shape[2]} finite values in Hz, 0 where unvoiced, one a frame of"
                f" {self.mel.hop} samples; got shape {tuple(f0.shape)}"
            )
        inputs = (frames, f0[None], self._noise(frames.shape[2], seed))
        return Clip(name, inputs, len(natural) / self.sample_rate_hz, natural)

    def bundled_clips(self) -> tuple[Clip, ...]:
        """The recordings that the package brings, with their F0; none was trained on."""
        return tuple(
            self.clip(clip.name, clip.natural, self.sample_rate_hz, clip.inputs[2], seed)
            for seed, clip in enumerate(bundled_clips())
            if clip.natural is not None
        )

    def reseeded(self, clip: Clip, seed: int) -> Clip:
        """The clip with other noise."""
        mel, f0_hz, _ = clip.inputs
        return replace(clip, inputs=(mel, f0_hz, self._noise(mel.shape[2], seed)))

    def sound(self, clip: Clip) -> Tensor:
        """Give the waveform that `render` gives, with gradients where they are wanted."""
        device = self.module.crossover.low.device
        waveform: Tensor = self.module(*(tensor.to(device) for tensor in clip.inputs))[0]
        return waveform

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        """Give some frames of a clip, the first of them `place` (0..1) of the way through what can be one.

        The phase begins at 0 there, and so is another than in the whole clip.
        """
        mel, f0_hz, noise = clip.inputs
        frames = frames_at(mel.shape[2], place, seconds * self.sample_rate_hz / self.mel.hop)
        inputs = (mel[:, :, frames].clone(), f0_hz[:, frames].clone(), noise[:, frames].clone())
        length = (frames.stop - frames.start) * self.mel.hop / self.sample_rate_hz
        return Clip(f"{clip.name}+{frames.start}", inputs, length, None)

    def _noise(self, frames: int, seed: int) -> Tensor:
        return torch.randn(1, frames, self.mel.hop, generator=torch.Generator().manual_seed(seed))


def track_f0(samples: NDArray[np.float32], mel: MelConfig) -> NDArray[np.float32]:
    """F0 of each frame [time // hop] in Hz, 80 to 400, by probabilistic YIN; 0 where unvoiced."""
    edge = (mel.fft - mel.hop) // 2
    f0, voiced, _ = librosa.pyin(
        np.pad(samples, edge, mode="reflect"),
        fmin=80,
        fmax=400,
        sr=mel.sample_rate_hz,
        frame_length=mel.fft,
        hop_length=mel.hop,
        center=False,
    )
    return np.where(voiced, np.nan_to_num(f0), 0.0).astype(np.float32)
