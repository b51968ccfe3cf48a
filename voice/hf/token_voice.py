"""TokenVoice: what speech language models that write audio tokens have in common, however they are built.

A `TokenModel` is put around the model of transformers, so that one forward takes all tokens at once and the codec makes
sound of them: nothing is chosen and no cache is kept. Its `write` chooses, step by step with a cache, the likeliest
token each time; clips are made by it once, and a clip with no tokens forced leaves it to the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from voice.family import Family
from voice.hf.base import HfVoice, Recording
from voice.model import Clip, Rendering

FORCED_SECONDS = 2.0
"""Sound of a clip."""
FREE_SECONDS = 3.0
"""Sound at most where the model is left to end by itself."""
Tokens: TypeAlias = tuple[Tensor, ...]
"""What the model wrote, each tensor as its own `write` gives it."""
LINES = (
    "The ferry leaves at half past seven, so bring a coat.",
    "She counted eleven grey stones along the river.",
    "Please put the kettle on before the guests arrive.",
    "Nobody had told him that the bridge was closed.",
    "We could hear the rain long before we saw it.",
    "A small dog slept on the steps of the town hall.",
)
"""What is said where no text is given."""


class TokenModel(nn.Module, ABC):
    """A language model of audio tokens with its codec."""

    sample_rate_hz: int

    def forward(self, prompt: Tensor, *tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sound [time] and logits by head [steps, vocabulary] of forced tokens; of its own where none are forced."""
        tokens = tokens or self.write(prompt, FREE_SECONDS, ends=True)
        return self.sound(tokens), self.logits(prompt, tokens)

    @abstractmethod
    def prompt(self, text: Tensor | None, seed: int) -> Tensor:
        """What it speaks after, of a text's ids [ids], or of random ones where there is no tokenizer."""

    @abstractmethod
    def logits(self, prompt: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """Logits [steps, vocabulary] by head, each step given the prompt and the tokens before it."""

    @abstractmethod
    def sound(self, tokens: Tokens) -> Tensor:
        """Sound [time] of the tokens."""

    @abstractmethod
    def write(self, prompt: Tensor, seconds: float, *, ends: bool) -> Tokens:
        """Tokens of about that many seconds, the likeliest of each step, at least one frame.

        Args:
            prompt: as `prompt` gives it.
            seconds: the most, or with `ends` off all.
            ends: whether the model may end before.
        """


@dataclass(frozen=True)
class TokenVoice(HfVoice):
    """A TokenModel as a Voice; a clip's inputs are a prompt, and forced tokens."""

    module: TokenModel

    family: ClassVar[Family] = "autoregressive"

    def __post_init__(self) -> None:
        """Put a TokenModel around the model of transformers."""
        if not isinstance(self.module, TokenModel):
            object.__setattr__(self, "module", self.around(self.module).eval().requires_grad_(False))

    @abstractmethod
    def around(self, model: Any) -> TokenModel:
        """Make a TokenModel of a model of transformers, which is changed, and of no further use by itself."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the codec."""
        return self.module.sample_rate_hz

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Prompts, and what the model itself says to them; of recordings only the text is read."""
        return tuple(
            self._clip(number, recordings[number] if number < len(recordings) else None) for number in range(count)
        )

    def unforced(self, clip: Clip) -> Clip:
        """The same prompt with tokens of the model's own, FREE_SECONDS at most."""
        return Clip(clip.name, clip.inputs[:1], clip.seconds)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """One forward over all tokens, and their sound."""
        return Rendering(*self.module(*inputs))

    def first(self, number: int, recording: Recording | None) -> Tensor:
        """The prompt of a clip."""
        text = None if recording is None else recording.text
        return self.module.prompt(self.ids(text or LINES[number % len(LINES)]), number)

    def ids(self, text: str) -> Tensor | None:
        """A text's ids [ids] by the tokenizer beside the weights; None where there is none."""
        folder = Path(self.folder)
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            return None
        tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(self.folder)
        return torch.tensor(tokenizer(self.written(text), add_special_tokens=False)["input_ids"])

    def written(self, text: str) -> str:
        """The text as the model was trained to read it."""
        return text

    def _clip(self, number: int, recording: Recording | None) -> Clip:
        with torch.inference_mode():
            prompt = self.first(number, recording)
            tokens = self.module.write(prompt, FORCED_SECONDS, ends=False)
            samples = len(self.module.sound(tokens))
        name = f"prompt_{number:03}" if recording is None else recording.name
        # What inference_mode made cannot be used outside it.
        inputs = tuple(tensor.clone() for tensor in (prompt, *tokens))
        return Clip(name, inputs, samples / self.sample_rate_hz)


class PerCodebook(nn.ModuleList):
    """One linear layer a codebook, of matrices that a model stacks in one parameter and takes by their number.

    A matrix taken by its number is a copy, in which nobody can see a weight; a layer has a weight.
    """

    def __init__(self, matrices: Tensor) -> None:
        """Take the matrices [codebooks, out, in]; their memory is shared."""
        super().__init__(_layer(matrix) for matrix in matrices)

    def forward(self, x: Tensor) -> Tensor:
        """Results [batch, codebooks, out] of x [batch, codebooks, in]: of the first codebooks, where it has no more."""
        return torch.stack([layer(x[:, index]) for index, layer in zip(range(x.shape[1]), self, strict=False)], 1)


def random_ids(count: int, low: int, high: int, seed: int) -> Tensor:
    """Ids in low..high-1, the same everywhere."""
    return torch.randint(low, high, (count,), generator=torch.Generator().manual_seed(seed))


def _layer(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(matrix.detach(), requires_grad=False)
    return layer
