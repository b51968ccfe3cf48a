"""VITS and MMS-TTS: text to sound through a stochastic duration predictor, a flow and a HiFi-GAN of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.family import Family
from voice.folding import fold_parametrizations
from voice.hf.base import Recording
from voice.hf.forcing import SeededVoice, forced, noted
from voice.hf.texts import sentence_ids
from voice.model import Clip, Rendering
from voice.noise import paired_noise

RANDOM_TOKENS = 41


@dataclass(frozen=True)
class VitsVoice(SeededVoice):
    """VitsModel (Kim et al. 2021, arXiv 2106.06103), of one speaker or several; run on tiny weights only.

    A clip is (tokens [n], speaker [], seed [], durations [n]): frames of each token are forced, and the seed gives the
    noise of the prior and of the duration predictor alike. Without durations the model draws its own.

    Of the two flows the duration predictor's decides a length, through a spline and a ceiling, and is fragile. The one
    over frames only adds and subtracts what its convolutions give: errors add up in it as in any stack of layers, and
    the search is left to find how many it bears.
    """

    family: ClassVar[Family] = "non_autoregressive"
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"duration_predictor.*": "it decides timing, which clips with forced durations cannot show"}
    )

    def __post_init__(self) -> None:
        # Convolutions of the flow are kept as a direction and a length.
        fold_parametrizations(self.module)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""
        return int(self._config.sampling_rate)

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Sentences with the durations that the model draws for them, speakers in turn, each with noise of its own."""
        highest = self._config.vocab_size - 1
        sentences = sentence_ids(
            self.folder, count, recordings, tokens=RANDOM_TOKENS, lowest=min(1, highest), highest=highest
        )
        return tuple(self._clip(number, ids) for number, ids in enumerate(sentences))

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Run the model as transformers has it."""
        tokens, speaker, seed, *durations = inputs
        predictor = self.module.get_submodule("duration_predictor")
        results = {predictor: self._logarithms(durations[0])} if durations else {}
        with forced(results), paired_noise(int(seed)):
            output = self.module(tokens[None], speaker_id=int(speaker))
        return Rendering(output.waveform[0])

    @property
    def _config(self) -> Any:
        return self.module.config

    def _clip(self, number: int, tokens: Tensor) -> Clip:
        config = self._config
        inputs = (tokens, torch.tensor(number % config.num_speakers), torch.tensor(number))
        with torch.no_grad(), noted(self.module.get_submodule("duration_predictor")) as found:
            self.rendered(*inputs)
        # As the model rounds them; it makes at least one frame of every token.
        durations = torch.ceil(torch.exp(found[0][0, 0]) / self._rate).long()
        seconds = int(durations.sum()) * prod(config.upsample_rates) / self.sample_rate_hz
        return Clip(f"sentence_{number:03}", (*inputs, durations), seconds)

    def _logarithms(self, durations: Tensor) -> Tensor:
        """What the duration predictor gives [1, 1, tokens] for the model to round up to these frames."""
        return torch.log((durations.float() - 0.5) * self._rate)[None, None]

    @property
    def _rate(self) -> float:
        rate: Any = self.module.speaking_rate
        return float(rate)
