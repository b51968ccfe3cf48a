"""Family: the kinds of voice models, and how a model of each is compared with itself.

Two renderings can be compared sample by sample only where the same decisions were taken on both sides: the same
durations, tokens and noise. So whatever a model decides or draws is held equal while sound is judged, and left to the
model once at the end, where no more than statistics can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from precision.family import Family

__all__ = ["COMPARISONS", "Comparison", "Family"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a family is judged."""

    forced: str
    """What is the same on both sides while sound is judged."""
    judged: tuple[Literal["tokens", "sound"], ...]
    """What is held against gates, in this order."""
    free: bool
    """Whether there is something to leave to the model in a last check."""


COMPARISONS: Mapping[Family, Comparison] = MappingProxyType(
    {
        "vocoder": Comparison("frames, and noise where it is drawn", ("sound",), False),
        "non_autoregressive": Comparison("durations, F0 where it is predicted, and noise", ("sound",), True),
        "autoregressive": Comparison(
            "every step is given the reference's tokens, and sound is decoded from them", ("tokens", "sound"), True
        ),
        "codec": Comparison("the decoder is given the reference's codes", ("tokens", "sound"), True),
        "sampler": Comparison("the first noise and each step's, the real sampler with all its steps", ("sound",), True),
        "understanding": Comparison("every step is given the reference's tokens", ("tokens",), False),
    }
)
"""The comparison by family."""
