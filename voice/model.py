"""Clip and Voice: what the search needs of a model that makes audio."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One utterance: what goes into the model, and where there is one the recording that should come out."""

    name: str
    inputs: tuple[Tensor, ...]
    """What the voice's `render` takes; their meaning is the voice's own."""
    seconds: float
    """Duration of the audio that the voice makes of it."""
    natural: np.ndarray[Any, np.dtype[np.float32]] | None = None
    """The recording [time], in -1..1, at the voice's rate and of the rendered length; None for text alone."""


class Voice(Protocol):
    """A model that renders clips as audio."""

    @property
    def name(self) -> str:
        """Name of the model, as reports show it."""

    @property
    def module(self) -> nn.Module:
        """The network in which sites are found; everything that is searched over runs inside it."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""

    @property
    def protected(self) -> Mapping[str, str]:
        """Sites that are never lowered, and why; may be empty."""

    def unforced(self, clip: Clip) -> Clip | None:
        """The clip with all that is forced on it (durations, F0, tokens) left to the model; None where nothing is."""

    def render(self, clip: Clip) -> Tensor:
        """Give the waveform [time] float32 in -1..1, the same every time, under inference_mode."""


@runtime_checkable
class AdaptableVoice(Voice, Protocol):
    """A voice whose weights can be trained by its sound."""

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        """A stretch of a clip of about that length, or all of a shorter clip; `place` in 0..1 says where it lies."""

    def sound(self, clip: Clip) -> Tensor:
        """What `render` gives, with gradients where they are wanted."""
