"""HfVoice: what every adapter of a Hugging Face model has, and what it must say for itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voice.family import Family
from voice.model import Clip, Rendering


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording that a model is to listen to, code or say again."""

    name: str
    samples: NDArray[np.float32]
    """[time] in -1..1, at the voice's rate."""
    text: str | None = None
    """What is said in it, where that is known."""


@dataclass(frozen=True)
class HfVoice(ABC):
    """A model of transformers as a Voice; its module is in eval mode, fp32, and wants no gradients."""

    name: str
    """Of the checkpoint: the last part of the repository's or the folder's name."""
    module: nn.Module
    folder: str
    """What it was loaded from, for processors and tokenizers beside the weights."""

    family: ClassVar[Family]
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Pattern of site names -> why they stay at the baseline."""

    def __post_init__(self) -> None:  # noqa: B027
        """Do nothing: a subclass makes its module ready here, and is called also where it is no dataclass itself."""

    @property
    @abstractmethod
    def sample_rate_hz(self) -> int:
        """Rate of the audio made, or listened to."""

    @property
    def protected(self) -> Mapping[str, str]:
        """Sites that are never lowered, and why."""
        return self.fragile

    @abstractmethod
    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Clips with everything forced that the family's comparison forces, the same every time.

        Args:
            count: how many; of models that listen, recordings beyond them are left out.
            recordings: at the voice's rate; a model that only speaks does without.

        Raises:
            HfError: the model listens, and there are fewer recordings than clips.
        """

    def unforced(self, clip: Clip) -> Clip | None:
        """The clip with all that is forced on it left to the model; None where nothing is."""
        return None

    def reseeded(self, clip: Clip, seed: int) -> Clip | None:
        """The clip with other noise, all else forced as it was; None where the model draws none."""
        return None

    def render(self, clip: Clip) -> Rendering:
        """Sound and logits of a clip, the same every time."""
        with torch.inference_mode():
            return self.rendered(*clip.inputs)

    @abstractmethod
    def rendered(self, *inputs: Tensor) -> Rendering:
        """Run the model on a clip's inputs."""


class HfError(ValueError):
    """A model that cannot be loaded or used, and what to do about it."""
