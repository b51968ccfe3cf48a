"""Output: what a model made of one clip, as numpy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audio_eval.clip import Clip, Samples, as_clip
from audio_eval.tokens import Heads

Logits = Mapping[str, npt.NDArray[np.float32]]
"""Head -> [steps, vocabulary], each step given the same tokens before it: `text`, or `text.NAME`, and `audio.0`,
`audio.1` ... for codebooks."""


def kind_of(head: str) -> str:
    """What a head chooses, `text` or `audio`: its name up to the first point."""
    return head.partition(".")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """Sound, logits of token heads, or both."""

    samples: Samples | Clip | None
    """[time] in -1..1; None for a model that makes no sound."""
    logits: Logits = field(default_factory=dict)
    _kinds: dict[str, Heads] = field(default_factory=dict, init=False, repr=False)

    def heads(self, kind: str) -> Heads:
        """The heads of a kind, which remember what metrics compute from them; UndefinedScore where there are none."""
        if kind not in self._kinds:
            self._kinds[kind] = Heads({head: values for head, values in self.logits.items() if kind_of(head) == kind})
        return self._kinds[kind]

    def remembering(self, sample_rate_hz: int) -> "Output":
        """The same, its samples as a Clip that remembers what metrics compute from it."""
        if self.samples is None or isinstance(self.samples, Clip):
            return self
        return Output(as_clip(self.samples, sample_rate_hz), self.logits)

    @property
    def signal(self) -> Samples:
        """The samples, or where there are none all logits in a row: one vector to take a difference of."""
        if self.samples is not None:
            return self.samples.samples if isinstance(self.samples, Clip) else self.samples
        whole: Samples = np.concatenate([self.logits[head].ravel() for head in sorted(self.logits)])
        return whole


def as_output(given: "Samples | Clip | Output") -> Output:
    """What was given, as an Output."""
    return given if isinstance(given, Output) else Output(given)
