"""Codecs without codes: the audio tokenizers of Pocket TTS and of VibeVoice, sound to latents and back to sound."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.family import Family
from voice.hf.base import HfVoice, Recording
from voice.hf.codec import adopt, check_recordings
from voice.model import Clip, Rendering


class ContinuousCodec(nn.Module):
    """Encoder and decoder, at the paths that they have in transformers."""

    encoder: Any
    decoder: Any

    def __init__(self, model: Any) -> None:
        """Take a model of transformers in.

        Raises:
            HfError: the model has one half alone.
        """
        super().__init__()
        adopt(self, model)
        self.sample_rate_hz, self.hop = self._frames(model.config)

    def forward(self, sound: Tensor) -> Tensor:
        """Code a recording [time] and decode it again [time]; it is filled up to whole frames on the way."""
        filled = F.pad(sound, (0, -len(sound) % self.hop))
        return self._again(filled[None, None])[0, 0, : len(sound)]

    @abstractmethod
    def _again(self, sound: Tensor) -> Tensor:
        """Sound [1, 1, time] of sound."""

    @abstractmethod
    def _frames(self, config: Any) -> tuple[int, int]:
        """Samples of a second, and of a frame."""


@dataclass(frozen=True)
class ContinuousCodecVoice(HfVoice):
    """A codec whose latents are numbers: nothing is chosen, so that it is judged by its sound, as a vocoder is.

    A clip's input is the recording [time]; what comes out went through both halves, with no noise on the latents.
    """

    family: ClassVar[Family] = "vocoder"
    codec: ClassVar[type[ContinuousCodec]]
    module: ContinuousCodec

    def __post_init__(self) -> None:
        """Take the model of transformers apart."""
        if not isinstance(self.module, ContinuousCodec):
            object.__setattr__(self, "module", self.codec(self.module).eval().requires_grad_(False))

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the recordings and of the sound."""
        return self.module.sample_rate_hz

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """The recordings."""
        check_recordings(self, count, recordings, self.module.hop)
        rate = self.sample_rate_hz
        return tuple(
            Clip(one.name, (torch.from_numpy(one.samples),), len(one.samples) / rate, one.samples)
            for one in recordings[:count]
        )

    def rendered(self, *inputs: Tensor) -> Rendering:
        """The recording again."""
        return Rendering(self.module(*inputs))


class PocketCodec(ContinuousCodec):
    """Mimi's encoder and decoder around latents of 32 numbers."""

    latent_proj: Any

    def _again(self, sound: Tensor) -> Tensor:
        latents = self.encoder(sound, use_streaming=False).latents
        again: Tensor = self.decoder(self.latent_proj(latents), use_cache=False).audio_values
        return again

    def _frames(self, config: Any) -> tuple[int, int]:
        return int(config.sampling_rate), int(config.frame_size)


class PocketCodecVoice(ContinuousCodecVoice):
    """The tokenizer of Pocket TTS. Run on tiny random weights."""

    codec: ClassVar[type[ContinuousCodec]] = PocketCodec


class VibeVoiceCodec(ContinuousCodec):
    """Causal ConvNeXt blocks on both sides; the mean of the latents, where VibeVoice may draw around it."""

    def _again(self, sound: Tensor) -> Tensor:
        latents = self.encoder(sound, use_cache=False).latents
        again: Tensor = self.decoder(latents.transpose(1, 2), use_cache=False).audio
        return again

    def _frames(self, config: Any) -> tuple[int, int]:
        return 24_000, int(config.hop_length)  # the rate stands in its feature extractor alone


class VibeVoiceCodecVoice(ContinuousCodecVoice):
    """The acoustic tokenizer of VibeVoice, 7.5 frames a second. Run on tiny random weights."""

    codec: ClassVar[type[ContinuousCodec]] = VibeVoiceCodec
