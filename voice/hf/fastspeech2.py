"""FastSpeech2-Conformer of ESPnet with its HiFi-GAN: text to frames at once, frames to sound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from voice.family import Family
from voice.hf.base import HfVoice, Recording
from voice.hf.forcing import forced
from voice.hf.texts import sentence_ids, unit_vector
from voice.hf.vocoder import WithVocoder, hifigan_hop, hifigan_rate_hz
from voice.model import Clip, Rendering

VOCODER = "espnet/fastspeech2_conformer_hifigan"
RANDOM_TOKENS = 31


class FastSpeech2:
    """The acoustic model alone, which is published apart from its vocoder."""

    @classmethod
    def from_pretrained(
        cls, folder: str, *, output_loading_info: bool, **options: Any
    ) -> tuple[WithVocoder, dict[str, Any]]:
        """Read it with the vocoder in its folder `vocoder`, or else espnet/fastspeech2_conformer_hifigan; as there."""
        classes = ("FastSpeech2ConformerModel", "FastSpeech2ConformerHifiGan")
        return WithVocoder.read(folder, classes, VOCODER, output_loading_info=output_loading_info, **options)


@dataclass(frozen=True)
class FastSpeech2Voice(HfVoice):
    """FastSpeech2ConformerWithHifiGan, or the two apart (Guo et al. 2020, arXiv 2010.13956); run on tiny weights only.

    A clip is (tokens [n], speaker [], durations [n], pitch [n, 1], energy [n, 1]): frames of each token and the values
    that its variance predictors would give are forced. It draws no noise. A model of several speakers takes the one of
    that number, one that reads a speaker's embedding a vector drawn from it, and one of several languages the first.
    """

    family: ClassVar[Family] = "non_autoregressive"
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            f"model.{name}_predictor.*": f"it decides {what}, which clips with forced {what} cannot show"
            for name, what in (("duration", "timing"), ("pitch", "pitch"), ("energy", "energy"))
        }
    )

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""
        return hifigan_rate_hz(self._part("vocoder").config)

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Sentences, or random phones, with the durations, pitch and energy of the model's own."""
        highest = self._part("model").config.vocab_size - 1
        sentences = sentence_ids(self.folder, count, recordings, tokens=RANDOM_TOKENS, lowest=1, highest=highest)
        return tuple(self._clip(number, ids) for number, ids in enumerate(sentences))

    def unforced(self, clip: Clip) -> Clip:
        """The same sentence with durations, pitch and energy of the model's own."""
        return Clip(clip.name, clip.inputs[:2], clip.seconds)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Run both models as transformers has them."""
        tokens, speaker, *values = inputs
        results = dict(zip(self._predictors, (value[None] for value in values), strict=False))
        with forced(results):
            output = self._part("model")(tokens[None], **self._conditions(int(speaker)))
        return Rendering(self._part("vocoder")(output.spectrogram)[0])

    def _clip(self, number: int, tokens: Tensor) -> Clip:
        acoustic = self._part("model")
        speaker = torch.tensor(number % (acoustic.config.num_speakers or 1))
        with torch.no_grad():
            output = acoustic(tokens[None], **self._conditions(int(speaker)))
        durations = output.duration_outputs[0]
        values = (durations, output.pitch_outputs[0], output.energy_outputs[0])
        vocoder = self._part("vocoder").config
        seconds = output.spectrogram.shape[1] * hifigan_hop(vocoder) / hifigan_rate_hz(vocoder)
        return Clip(f"sentence_{number:03}", (tokens, speaker, *values), seconds)

    def _conditions(self, speaker: int) -> dict[str, Tensor]:
        config = self._part("model").config
        found = {}
        if (config.num_speakers or 1) > 1:
            found["speaker_ids"] = torch.tensor([[speaker]])
        if (config.num_languages or 1) > 1:
            found["lang_ids"] = torch.tensor([[0]])
        if config.speaker_embed_dim:
            found["speaker_embedding"] = unit_vector(config.speaker_embed_dim, speaker)[None]
        return found

    @property
    def _predictors(self) -> tuple[nn.Module, ...]:
        return tuple(self.module.get_submodule(f"model.{name}_predictor") for name in ("duration", "pitch", "energy"))

    def _part(self, name: str) -> Any:
        return self.module.get_submodule(name)
