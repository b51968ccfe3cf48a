"""Dia: an encoder of bytes, a decoder that writes all codebooks of DAC at once in a delay pattern, and DAC.

Nari Labs 2025, Dia-1.6B. The codec is a model of its own, which the processor's settings beside the weights name
(descript/dac_44khz). Row r of the decoder holds codebook c of frame r - 1 - delay[c].
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voice.hf.base import HfError
from voice.hf.sources import folder_of, require_weights
from voice.hf.token_voice import TokenModel, Tokens, TokenVoice

SETTINGS = ("processor_config.json", "audio_tokenizer_config.json")
"""Files that may say which codec is used; the first as newer processors have it."""


class Dia(TokenModel):
    """DiaForConditionalGeneration and DacModel with all rows in one forward; the prompt is bytes of a text [bytes]."""

    def __init__(self, model: Any, codec: Any) -> None:
        super().__init__()
        self.model = model
        self.codec = codec
        decoder = model.config.decoder_config
        self.sample_rate_hz = codec.config.sampling_rate
        self.frames_per_second = self.sample_rate_hz / codec.config.hop_length
        self.delays: list[int] = model.config.delay_pattern
        self.begin, self.end, self.rest = decoder.bos_token_id, decoder.eos_token_id, decoder.pad_token_id
        self.codes = codec.config.codebook_size
        scale = getattr(model.generation_config, "guidance_scale", None)
        self.guidance = None if scale in (None, 1, 1.0) else float(scale)
        """How far logits are moved away from those with no text; None: there is no second pass."""

    def prompt(self, text: Tensor | None, seed: int) -> Tensor:
        """The text's bytes; there is always a text, for every byte is a token."""
        assert text is not None
        return text

    def logits(self, prompt: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """By codebook [frames, vocabulary], with guidance where the model is used with it.

        The first codebook can also end the speech; the others have codes alone, as in use.
        """
        (codes,) = tokens
        rows = self._rows(codes)
        hidden = self._encoded(prompt)
        decoded = self.model.model.decoder(
            input_ids=rows[None].expand(len(hidden), -1, -1), encoder_hidden_states=hidden, use_cache=False
        )
        logits = self._guided(decoded.last_hidden_state)
        frames = codes.shape[1]
        return {
            f"audio.{book}": logits[delay : delay + frames, book, : self.end + (book == 0)]
            for book, delay in enumerate(self.delays)
        }

    def sound(self, tokens: Tokens) -> Tensor:
        """DAC's decoder, in one go."""
        sound: Tensor = self.codec.decode(audio_codes=tokens[0][None]).audio_values.flatten()
        return sound

    def write(self, prompt: Tensor, seconds: float, *, ends: bool) -> Tokens:
        """Codes [codebooks, frames]."""
        frames = max(1, round(seconds * self.frames_per_second))
        hidden, cache = self._encoded(prompt), self._cache()
        codes = torch.zeros(len(self.delays), 0, dtype=torch.long)
        row = 0
        while row < frames + max(self.delays):
            given = self._rows(codes, frames)[row]
            decoded = self.model.model.decoder(
                input_ids=given[None, None].expand(len(hidden), -1, -1),
                encoder_hidden_states=hidden,
                past_key_values=cache,
                use_cache=True,
            )
            logits = self._guided(decoded.last_hidden_state)[0]
            if ends and 0 < row < frames and bool(logits[0, : self.end + 1].argmax() == self.end):
                frames = row
            codes = self._with(codes, row, logits[:, : self.codes].argmax(1))
            row += 1
        return (codes[:, :frames],)

    def _cache(self) -> Any:
        """Of keys and values of the decoder itself, and of the text; its own code makes none below the whole model."""
        transformers, config = import_module("transformers"), self.model.config.decoder_config
        return transformers.EncoderDecoderCache(*(transformers.DynamicCache(config=config) for _ in range(2)))

    def _with(self, codes: Tensor, row: int, chosen: Tensor) -> Tensor:
        """Codes with those that a row adds; a code that is not there yet is 0, and never read."""
        codes = nn.functional.pad(codes, (0, 1))
        for book, delay in enumerate(self.delays):
            if row >= delay:
                codes[book, row - delay] = chosen[book]
        return codes

    def _rows(self, codes: Tensor, frames: int | None = None) -> Tensor:
        """The decoder's rows [frames + longest delay, codebooks] of codes [codebooks, frames].

        Args:
            codes: as many frames as there are yet.
            frames: how many there will be; None: no more.
        """
        frames = codes.shape[1] if frames is None else frames
        count = frames + max(self.delays)
        columns = []
        for delay, known in zip(self.delays, codes[:, :frames], strict=True):
            column = torch.full((count,), self.rest)
            column[: 1 + delay] = self.begin
            column[1 + delay : 1 + delay + len(known)] = known[: count - 1 - delay]
            column[1 + delay + frames : 2 + delay + frames] = self.end
            columns.append(column)
        return torch.stack(columns, 1)

    def _encoded(self, prompt: Tensor) -> Tensor:
        """The text [1, bytes, width]; with guidance [2, bytes, width], the second of no text."""
        text = prompt[None] if self.guidance is None else torch.stack([prompt, torch.zeros_like(prompt)])
        encoded: Tensor = self.model.model.encoder(input_ids=text).last_hidden_state
        return encoded

    def _guided(self, hidden: Tensor) -> Tensor:
        """Logits [rows, codebooks, vocabulary] of hidden states [1 or 2, rows, width]."""
        logits: Tensor = self.model.logits_dense(hidden).unflatten(-1, (len(self.delays), -1))
        return logits[0] if self.guidance is None else logits[0] + (logits[0] - logits[1]) * self.guidance


class DiaVoice(TokenVoice):
    """Dia as a voice of one speaker.

    Codes of every frame are forced; logits are `audio.0` ... `audio.8`, guided as in use, before tokens are cut to the
    likeliest. Guidance runs the decoder twice, and multiplies what an error does to the logits; it is part of the
    model's cost and of its damage. Only run on tiny weights here, never on nari-labs/Dia-1.6B-0626.
    """

    def around(self, model: Any) -> Dia:
        """Take a DiaForConditionalGeneration, and the codec that is named beside it; HfError where none is."""
        folder = folder_of(_codec_of(Path(self.folder)))
        require_weights(folder)
        codec = import_module("transformers").DacModel.from_pretrained(
            str(folder), dtype="float32", use_safetensors=True
        )
        return Dia(model, codec)

    def ids(self, text: str) -> Tensor:
        """The bytes of a text; speaker 1 is the byte 1."""
        return torch.tensor([1, *f" {text}".encode()])


def _codec_of(folder: Path) -> str:
    """Folder or repository of the codec; a folder's name is taken from the model's own folder."""
    for file in SETTINGS:
        if (folder / file).is_file():
            settings = json.loads((folder / file).read_text(encoding="utf-8"))
            settings = settings.get("audio_tokenizer", settings)
            source = settings.get("audio_tokenizer_name_or_path")
            if source:
                return str(folder / source) if (folder / source).is_dir() else str(source)
    raise HfError(
        f"{folder}: no codec is named; {' or '.join(SETTINGS)} must say audio_tokenizer_name_or_path, as"
        " descript/dac_44khz or a folder in this one"
    )
