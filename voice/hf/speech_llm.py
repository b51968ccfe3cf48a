"""Qwen2-Audio, Voxtral, Qwen3-ASR: an encoder of sound, whose output stands in a language model's prompt."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.hf.base import HfError, Recording
from voice.hf.listening import Listening
from voice.hf.windowed import window

BESIDE = 4
"""Tokens before and behind the sound where no tokenizer lies beside the weights."""
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")


class SpeechLlm(Listening):
    """A language model that hears; its prompt holds a placeholder for each vector of sound.

    The prompt asks what is said, in the words of the family's own template, where a tokenizer lies beside the weights;
    else its text is drawn at random, the same every time, and the answer means nothing.
    """

    template: ClassVar[tuple[str, str]]
    """Text of the prompt before and behind the sound."""

    @abstractmethod
    def vectors(self, features: Tensor, mask: Tensor) -> int:
        """How many vectors the model makes of features [1, bands, frames], of which `mask` [1, frames] are heard."""

    def prompt(self, count: int) -> Tensor:
        """Tokens [prompt] with `count` placeholders in their midst."""
        if count < 1:
            raise HfError(f"{self.name}: the recording is too short to hear anything in; give one of 0.1 s or more")
        before, behind = self.said() or self.drawn()
        return torch.tensor([*before, *[self.placeholder] * count, *behind])

    @property
    def placeholder(self) -> int:
        """The token in whose place sound stands."""
        token: int = self.model.config.audio_token_id
        return token

    def chosen(self, logits: Tensor, step: int) -> int:
        """The likeliest token that is no place of sound: the model would look for sound behind the recording's end."""
        allowed = logits.clone()
        allowed[self.placeholder] = -math.inf
        return super().chosen(allowed, step)

    def said(self) -> tuple[list[int], list[int]] | None:
        """Tokens of the template; None without a tokenizer."""
        if not any((Path(self.folder) / name).is_file() for name in _TOKENIZERS):
            return None
        tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(self.folder)
        before, behind = (tokenizer.encode(text, add_special_tokens=False) for text in self.template)
        return before, behind

    def drawn(self) -> tuple[list[int], list[int]]:
        """Tokens at random, none of them the placeholder."""
        words = self.model.config.get_text_config().vocab_size
        found = torch.randint(words - 1, (2, BESIDE), generator=torch.Generator().manual_seed(0))
        before, behind = (found + (found >= self.placeholder)).tolist()
        return before, behind


class MaskedSpeechLlm(SpeechLlm):
    """One that is told by a mask which frames are heard."""

    inputs_heard: ClassVar[int] = 3
    # Some take logits_to_keep without a word, and run their head on the whole prompt.
    keeps: ClassVar[bool] = False
    mask_argument: ClassVar[str]

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Spectrogram [1, bands, frames], mask [1, frames] and prompt."""
        return self.masked(recording, padding="max_length", truncation=True)

    def masked(self, recording: Recording, **options: Any) -> tuple[Tensor, ...]:
        """Spectrogram, mask and prompt, by options of the feature extractor."""
        found = self.features(recording, return_attention_mask=True, **options)
        features, mask = found["input_features"], found["attention_mask"]
        return features, mask, self.prompt(self.vectors(features, mask))

    def vectors(self, features: Tensor, mask: Tensor) -> int:
        """A vector of four frames, 40 ms."""
        _, lengths = self.model.model.audio_tower._get_feat_extract_output_lengths(mask.sum(-1))
        return int(lengths)

    def heard_seconds(self, recording: Recording) -> float:
        """The recording, or the part of it that is heard."""
        return min(super().heard_seconds(recording), float(self.extractor.chunk_length))

    def opening(self, *heard: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Spectrogram and mask, for the first forward alone."""
        return {"input_features": heard[0], self.mask_argument: heard[1]}, {}

    def hidden(self, heard: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Last hidden states [prompt + steps - 1, hidden] of the prompt and all forced tokens but the last."""
        first, _ = self.opening(*heard)
        text = torch.cat([heard[-1], tokens[:-1]])
        found: Tensor = self.model.model(**first, input_ids=text[None], use_cache=False).last_hidden_state
        return found[0]

    def forced(self, heard: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Logits [steps, vocabulary] of every step, given the tokens [steps] before it."""
        return self.headed(self.hidden(heard, tokens), len(tokens))

    def headed(self, hidden: Tensor, steps: int) -> Tensor:
        """Logits of the last steps; the head is not run on the prompt."""
        logits: Tensor = self.model.lm_head(hidden[-steps:]).float()
        return logits


class Qwen2AudioVoice(MaskedSpeechLlm):
    """Qwen2-Audio: Whisper's encoder, a linear layer, Qwen2; it is given 30 s, and attends to what is no padding.

    A clip's inputs are the log-mel spectrogram [1, bands, frames], the mask [1, frames], the prompt and the forced
    tokens. Run on seeded random weights alone, with an encoder of 2 s.
    """

    mask_argument: ClassVar[str] = "feature_attention_mask"
    template: ClassVar[tuple[str, str]] = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>",
        "<|audio_eos|>\nWhat is said?<|im_end|>\n<|im_start|>assistant\n",
    )

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number and length."""
        return whisper_extractor(self.model.config.audio_config)


class WindowedSpeechLlm(MaskedSpeechLlm):
    """One that attends within windows of the sound, and takes a recording in its own length."""

    def __post_init__(self) -> None:
        """Attend by windows in one product."""
        window(self.model.model.audio_tower)

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Spectrogram as long as the recording, in whole pieces where it has such, mask and prompt."""
        return self.masked(recording, padding="longest")


class Qwen3AsrVoice(WindowedSpeechLlm):
    """Qwen3-ASR: convolutions over pieces of a second, attention over windows of 8 s, Qwen3.

    A clip's inputs are the log-mel spectrogram [1, bands, frames], the mask [1, frames], the prompt and the forced
    tokens. Run on seeded random weights alone.
    """

    mask_argument: ClassVar[str] = "input_features_mask"
    template: ClassVar[tuple[str, str]] = (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>",
        "<|audio_end|><|im_end|>\n<|im_start|>assistant\n",
    )

    def heard_seconds(self, recording: Recording) -> float:
        """All of it."""
        return len(recording.samples) / self.sample_rate_hz

    def vectors(self, features: Tensor, mask: Tensor) -> int:
        """A vector of eight frames, counted piece by piece."""
        tower = self.model.model.audio_tower
        pieces = mask.view(-1, 2 * tower.n_window).sum(-1)
        return int(tower._post_cnn_length(pieces).sum())

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number, in its pieces."""
        audio = self.model.config.audio_config
        extractor = import_module("transformers").Qwen3ASRFeatureExtractor
        return extractor(feature_size=audio.num_mel_bins, n_window=audio.n_window)


class VoxtralVoice(SpeechLlm):
    """Voxtral: Whisper's encoder, four of its positions to a vector, two linear layers, Llama.

    A clip's inputs are the log-mel spectrogram [pieces, bands, frames] of pieces as long as the encoder, 30 s in the
    published checkpoints, the prompt and the forced tokens. Silence behind the recording is heard, too, as in use. The
    prompt asks for a transcript in the tokens that mistral-common gives to a transcription without a language. Run on
    seeded random weights alone, with an encoder of 2 s.
    """

    inputs_heard: ClassVar[int] = 2
    template: ClassVar[tuple[str, str]] = ("<s>[INST][BEGIN_AUDIO]", "[/INST][TRANSCRIBE]")
    # What template is in tekken.json, the tokenizer of every published checkpoint; transformers needs mistral-common
    # to read it.
    tekken_words: ClassVar[int] = 131072
    tekken: ClassVar[tuple[tuple[int, ...], tuple[int, ...]]] = ((1, 3, 25), (4, 34))

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Spectrogram and prompt."""
        audio = self.model.config.audio_config
        frames = 2 * audio.max_source_positions
        samples = frames * self.extractor.hop_length
        found = self.features(recording, padding=True, truncation=False, pad_to_multiple_of=samples)["input_features"]
        features = found.reshape(audio.num_mel_bins, -1, frames).transpose(0, 1).contiguous()
        return features, self.prompt(self.vectors(features, torch.ones(features.shape[::2])))

    def vectors(self, features: Tensor, mask: Tensor) -> int:
        """A vector of eight frames, 80 ms."""
        audio = self.model.config.audio_config
        return int(mask.numel() // 2 * audio.hidden_size // audio.intermediate_size)

    def opening(self, *heard: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Spectrogram, for the first forward alone."""
        return {"input_features": heard[0]}, {}

    def said(self) -> tuple[list[int], list[int]] | None:
        """Tokens of the template in the vocabulary of the published checkpoints."""
        if self.model.config.get_text_config().vocab_size != self.tekken_words:
            return super().said()
        before, behind = self.tekken
        return list(before), list(behind)

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number and length."""
        return whisper_extractor(self.model.config.audio_config)


def whisper_extractor(audio: Any) -> Any:
    """The feature extractor of an encoder built as Whisper's is, of its configuration."""
    seconds = -(-audio.max_source_positions // 50)
    return import_module("transformers").WhisperFeatureExtractor(feature_size=audio.num_mel_bins, chunk_length=seconds)
