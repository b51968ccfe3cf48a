"""Clip, Rendering and Voice: what the search needs of a model that makes audio, or understands it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from voice.family import Family


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One utterance: what goes into the model, and where there is one the recording that should come out."""

    name: str
    inputs: tuple[Tensor, ...]
    """What the voice's `render` takes, forced durations, tokens and noise included; what they mean is its own."""
    seconds: float
    """Duration of the audio that the voice makes of it, or listens to."""
    natural: np.ndarray[Any, np.dtype[np.float32]] | None = None
    """The recording [time], in -1..1, at the voice's rate and of the rendered length; None for text alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """What a voice makes of a clip: sound, logits of token heads, or both."""

    waveform: Tensor | None
    """[time] float32 in -1..1; None for a model that makes no sound."""
    logits: Mapping[str, Tensor] = field(default_factory=dict)
    """Head -> [steps, vocabulary] float32, each step given the clip's own tokens before it; `text`, or `text.NAME`, and
    `audio.0`, `audio.1` ... for codebooks. Empty for a model without tokens."""

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All that was made: the waveform, where there is one, and the logits of each head."""
        return (*(() if self.waveform is None else (self.waveform,)), *self.logits.values())

    @property
    def sound(self) -> Tensor:
        """The waveform [time] of a model that makes sound; ValueError where it makes none."""
        if self.waveform is None:
            raise ValueError("this model makes no sound; ask for its logits")
        return self.waveform


class Voice(Protocol):
    """A model that renders clips."""

    @property
    def name(self) -> str:
        """Name of the model, as reports show it."""

    @property
    def family(self) -> Family:
        """What kind of model it is; by it the protocol of a comparison is chosen."""

    @property
    def module(self) -> nn.Module:
        """The network in which sites are found; everything that is searched over runs inside it."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made, or listened to."""

    @property
    def protected(self) -> Mapping[str, str]:
        """Sites that are never lowered, and why; may be empty."""

    def unforced(self, clip: Clip) -> Clip | None:
        """The clip with all that is forced on it (durations, F0, tokens) left to the model; None where nothing is."""

    def reseeded(self, clip: Clip, seed: int) -> Clip | None:
        """The clip with other noise, all else forced as it was; None where the model draws none."""

    def render(self, clip: Clip) -> Rendering:
        """Give what the clip sounds like, the same every time, under inference_mode."""


@runtime_checkable
class AdaptableVoice(Voice, Protocol):
    """A voice whose weights can be trained by its sound."""

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        """A stretch of a clip of about that length, or all of a shorter clip; `place` in 0..1 says where it lies."""

    def sound(self, clip: Clip) -> Tensor:
        """The waveform that `render` gives, with gradients where they are wanted."""
