"""Whisper and Moonshine: an encoder of sound, and a decoder that looks at it and writes."""

import math
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.hf.base import Recording
from voice.hf.listening import Listening

FRAMES_A_POSITION = 2
"""Frames of the spectrogram that become one position of the encoder, by its second convolution's stride."""
FRAMES_A_SECOND = 100


class EncoderDecoder(Listening):
    """A model whose encoder is run once, and whose decoder attends to it at every step."""

    token_argument: ClassVar[str] = "decoder_input_ids"
    keeps: ClassVar[bool] = False
    inputs_heard: ClassVar[int] = 2

    def opening(self, *heard: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """The encoder's output, which every step of the decoder is given."""
        encoded = {"encoder_outputs": self.model.model.encoder(heard[0])}
        return encoded, encoded

    def prompt(self, sound: Tensor) -> Tensor:
        """Tokens [prompt] that the decoder begins with."""
        return torch.tensor([self.model.config.decoder_start_token_id])


class WhisperVoice(EncoderDecoder):
    """Whisper; a clip's inputs are its log-mel spectrogram [1, bands, frames], the prompt and the forced tokens.

    As in use, sound is padded with silence or cut to what the encoder takes, 30 s in every published checkpoint: a
    short recording costs what a long one does. The prompt says language, task and that no times are wanted, where the
    checkpoint's generation_config.json names their tokens; the language is the one that the model hears.

    Run on seeded random weights alone, with an encoder of 2 s.
    """

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Spectrogram and prompt."""
        sound = self.features(recording)["input_features"]
        return sound, self.prompt(sound)

    def heard_seconds(self, recording: Recording) -> float:
        """The recording, or the part of it that the encoder takes."""
        return min(super().heard_seconds(recording), self._longest_seconds)

    def prompt(self, sound: Tensor) -> Tensor:
        """Start, language, task, no times; only the start where the checkpoint names no others."""
        said = self.model.generation_config
        tokens = super().prompt(sound)
        languages = getattr(said, "lang_to_id", None)
        if languages:
            spoken = torch.tensor(sorted(languages.values()))
            first, _ = self.opening(sound)
            logits = self.model(**first, decoder_input_ids=tokens[None]).logits[0, -1]
            tokens = torch.cat([tokens, spoken[logits[spoken].argmax()][None]])
        task = (getattr(said, "task_to_id", None) or {}).get("transcribe")
        rest = [task, getattr(said, "no_timestamps_token_id", None)]
        return torch.cat([tokens, torch.tensor([token for token in rest if token is not None], dtype=tokens.dtype)])

    def chosen(self, logits: Tensor, step: int) -> int:
        """The likeliest token of those that the checkpoint does not suppress."""
        said = self.model.generation_config
        never = [*(said.suppress_tokens or ()), *((said.begin_suppress_tokens or ()) if step == 0 else ())]
        allowed = logits.clone()
        allowed[torch.tensor(never, dtype=torch.long)] = -math.inf
        return int(allowed.argmax())

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number and length."""
        bands, seconds = self.model.config.num_mel_bins, math.ceil(self._longest_seconds)
        return import_module("transformers").WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds)

    @property
    def _longest_seconds(self) -> float:
        positions: int = self.model.config.max_source_positions
        return positions * FRAMES_A_POSITION / FRAMES_A_SECOND


class MoonshineVoice(EncoderDecoder):
    """Moonshine, which hears samples; a clip's inputs are they [1, time], the prompt and the forced tokens.

    Run on seeded random weights alone.
    """

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Samples and prompt."""
        sound = self.features(recording)["input_values"]
        return sound, self.prompt(sound)

    def plain_extractor(self) -> Any:
        """Samples as they are, as the published checkpoints take them."""
        return import_module("transformers").Wav2Vec2FeatureExtractor(feature_size=1, do_normalize=False)
