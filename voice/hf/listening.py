"""Listening: what every adapter of a model has that hears sound and writes text."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.family import Family
from voice.hf.base import HfError, HfVoice, Recording
from voice.model import Clip, Rendering

LONGEST_TOKENS = 16
"""Tokens of an answer at most: enough to see every step's arithmetic, and few enough for a 7B on a CPU."""
_EXTRACTORS = ("preprocessor_config.json", "processor_config.json")


class Listening(HfVoice):
    """A model that hears a recording and writes of it; a clip's inputs are what it hears, and the forced tokens.

    The forced tokens are what the model itself writes in fp32, the likeliest token of each step, made once with the
    clip. All steps are then computed in one forward, each given the tokens before it. Where the model stops, a free
    answer stops.
    """

    family: ClassVar[Family] = "understanding"
    token_argument: ClassVar[str] = "input_ids"
    """What the model's forward calls the tokens of text."""
    inputs_heard: ClassVar[int]
    """How many tensors `heard` gives; of a clip, what follows them is forced."""
    keeps: ClassVar[bool] = True
    """Whether the forward takes `logits_to_keep`, so that its head is run on the last steps alone."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio that it listens to."""
        rate: int = self.extractor.sampling_rate
        return rate

    @property
    def model(self) -> Any:
        """The module, whose attributes are those of its class in transformers."""
        return self.module

    @abstractmethod
    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """What the model is given of a recording, a batch of one; the last is the prompt, tokens [prompt]."""

    @abstractmethod
    def opening(self, *heard: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the first forward, and those that every further step is given, too; the prompt among neither."""

    @abstractmethod
    def plain_extractor(self) -> Any:
        """The feature extractor that the model's configuration asks for, where none lies beside the weights."""

    def heard_seconds(self, recording: Recording) -> float:
        """How much of a recording the model hears."""
        return len(recording.samples) / self.sample_rate_hz

    def stops(self) -> frozenset[int]:
        """Tokens that end an answer."""
        found = self.model.generation_config.eos_token_id
        return frozenset() if found is None else frozenset([found] if isinstance(found, int) else found)

    def chosen(self, logits: Tensor, step: int) -> int:
        """The token that a free answer goes on with, of logits [vocabulary]."""
        return int(logits.argmax())

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Recordings, and what the model itself writes of them."""
        if len(recordings) < count:
            raise HfError(
                f"{self.name} listens: {count} clips need as many recordings, and there are {len(recordings)}"
            )
        return tuple(self._clip(recording) for recording in recordings[:count])

    def unforced(self, clip: Clip) -> Clip:
        """The clip without its tokens."""
        return Clip(clip.name, clip.inputs[: self.inputs_heard], clip.seconds)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Logits of the text: of the forced tokens, or of those that it writes where none are forced."""
        heard, forced = inputs[: self.inputs_heard], inputs[self.inputs_heard :]
        return Rendering(None, {"text": self.forced(heard, *forced) if forced else self.written(heard)[1]})

    def forced(self, heard: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Logits [steps, vocabulary] of every step, given the tokens [steps] before it."""
        steps = len(tokens)
        text = torch.cat([heard[-1], tokens[:-1]])
        keep = {"logits_to_keep": steps} if self.keeps else {}
        first, _ = self.opening(*heard)
        found: Tensor = self.model(**first, **{self.token_argument: text[None]}, **keep, use_cache=False).logits
        return found[0, -steps:].float()

    def written(self, heard: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens [steps] that the model writes, and their logits [steps, vocabulary]."""
        arguments, kept = self.opening(*heard)
        arguments = {**arguments, self.token_argument: heard[-1][None]}
        keep = {"logits_to_keep": 1} if self.keeps else {}
        tokens: list[int] = []
        logits: list[Tensor] = []
        while len(tokens) < LONGEST_TOKENS and not (tokens and tokens[-1] in self.stops()):
            found = self.model(**arguments, **keep, use_cache=True)
            logits.append(found.logits[0, -1].float())
            tokens.append(self.chosen(logits[-1], len(tokens)))
            text = torch.tensor([tokens[-1:]], device=heard[-1].device)
            arguments = {**kept, self.token_argument: text, "past_key_values": found.past_key_values}
        return torch.tensor(tokens, device=heard[-1].device), torch.stack(logits)

    @cached_property
    def extractor(self) -> Any:
        """The feature extractor beside the weights, or the configuration's."""
        if any((Path(self.folder) / name).is_file() for name in _EXTRACTORS):
            return import_module("transformers").AutoFeatureExtractor.from_pretrained(self.folder)
        return self.plain_extractor()

    def features(self, recording: Recording, **options: Any) -> Mapping[str, Tensor]:
        """What the feature extractor makes of a recording, as tensors with a batch axis of one."""
        found: Mapping[str, Tensor] = self.extractor(
            recording.samples, sampling_rate=self.sample_rate_hz, return_tensors="pt", **options
        )
        return found

    def _clip(self, recording: Recording) -> Clip:
        with torch.inference_mode():
            heard = self.heard(recording)
            tokens, _ = self.written(heard)
        return Clip(recording.name, (*heard, tokens), self.heard_seconds(recording))
