"""SpeechT5 text to speech with its HiFi-GAN: mel frames one step after another, then sound."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from voice.family import Family
from voice.hf.base import HfError, Recording
from voice.hf.forcing import SeededVoice
from voice.hf.texts import sentence_ids, unit_vector
from voice.hf.vocoder import WithVocoder, hifigan_hop, hifigan_rate_hz
from voice.model import Clip, Rendering
from voice.noise import paired_noise

VOCODER = "microsoft/speecht5_hifigan"
SPEAKERS = "speakers.npy"
RANDOM_TOKENS, FIRST_LETTER = 24, 4
"""Ids of padding, beginning, end and the unknown come before the letters."""


class SpeechT5:
    """The acoustic model, which is published apart from its vocoder."""

    @classmethod
    def from_pretrained(
        cls, folder: str, *, output_loading_info: bool, **options: Any
    ) -> tuple[WithVocoder, dict[str, Any]]:
        """Read it with the vocoder in its folder `vocoder`, or else microsoft/speecht5_hifigan; as there."""
        classes = ("SpeechT5ForTextToSpeech", "SpeechT5HifiGan")
        return WithVocoder.read(folder, classes, VOCODER, output_loading_info=output_loading_info, **options)


@dataclass(frozen=True)
class SpeechT5Voice(SeededVoice):
    """SpeechT5ForTextToSpeech (Ao et al. 2022, arXiv 2110.07205) and SpeechT5HifiGan; run on tiny weights only.

    A clip is (tokens [n], speaker [embedding], seed [], frames [steps, mels]). Its tokens are mel frames: every step of
    the decoder is forced to the frame that the reference made before it, in one forward, and what it makes of it goes
    through the postnet to the vocoder. So each step's own error is heard, none is carried on to the next, and the
    decoder, the postnet and the vocoder are judged by one sound. To carry them on is left to the unforced clip.

    The one thing that it chooses is to stop: `text.stop` are the logits of going on and of stopping, frame by frame.
    The prenet draws dropout in use, too, as the paper of Tacotron 2 wants it; the clip's seed gives it.

    Speakers are the rows of `speakers.npy` [speakers, embedding] beside the weights, in turn; without that file they
    are vectors drawn from the clip's number, which no one's voice is.
    """

    family: ClassVar[Family] = "autoregressive"
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"model.speech_decoder_postnet.prob_out": "it decides where speech ends, which clips with forced frames hide"}
    )

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the vocoder."""
        return hifigan_rate_hz(self._part("vocoder").config)

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Sentences with the frames that the model itself makes of them, speakers in turn.

        Raises:
            HfError: `speakers.npy` does not fit the model.
        """
        highest = self._part("model").config.vocab_size - 1
        sentences = sentence_ids(
            self.folder, count, recordings, tokens=RANDOM_TOKENS, lowest=FIRST_LETTER, highest=highest
        )
        speakers = self._speakers()
        found = []
        for number, tokens in enumerate(sentences):
            given = None if speakers is None else speakers[number % len(speakers)]
            found.append(self._clip(number, tokens, given))
        return tuple(found)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """One forward where frames are forced; else the loop of transformers, which gives no logits."""
        tokens, speaker, seed, *frames = inputs
        model, vocoder = self._part("model"), self._part("vocoder")
        with paired_noise(int(seed)):
            if not frames:
                return Rendering(model.generate_speech(tokens[None], speaker[None], vocoder=vocoder))
            hidden = model.speecht5(
                input_values=tokens[None],
                decoder_input_values=frames[0][None],
                speaker_embeddings=speaker[None],
                use_cache=False,
            ).last_hidden_state
        _, made, ends = model.speech_decoder_postnet(hidden)
        return Rendering(vocoder(made)[0], {"text.stop": torch.stack([torch.zeros_like(ends[0]), ends[0]], dim=1)})

    def _clip(self, number: int, tokens: Tensor, given: Tensor | None) -> Clip:
        config = self._part("model").config
        speaker = unit_vector(config.speaker_embedding_dim, number) if given is None else given
        inputs = (tokens, speaker, torch.tensor(number))
        with torch.no_grad(), _read(self._part("model").speecht5.decoder.prenet) as frames:
            self.rendered(*inputs)
        vocoder = self._part("vocoder").config
        made = len(frames[-1]) * config.reduction_factor
        seconds = made * hifigan_hop(vocoder) / hifigan_rate_hz(vocoder)
        return Clip(f"sentence_{number:03}", (*inputs, frames[-1]), seconds)

    def _speakers(self) -> Tensor | None:
        path = Path(self.folder) / SPEAKERS
        if not path.is_file():
            return None
        found = np.load(path, allow_pickle=False)
        size = self._part("model").config.speaker_embedding_dim
        if found.ndim != 2 or not len(found) or found.shape[1] != size:
            raise HfError(f"{path}: holds {found.shape}; give embeddings [speakers, {size}]")
        return torch.from_numpy(found.astype(np.float32))

    def _part(self, name: str) -> Any:
        return self.module.get_submodule(name)


@contextmanager
def _read(prenet: nn.Module) -> Iterator[list[Tensor]]:
    """Note the frames [steps, mels] that the prenet reads in each step of the loop: all those before it."""
    found: list[Tensor] = []
    handle = prenet.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0][0]))
    try:
        yield found
    finally:
        handle.remove()
