"""BL-Voice `mini`: a trained decoder that reads phones aloud, and its codec as a voice of its own.

Of the class of BL-Voice-1, small: voice/data/BLVOICE_CARD.md says how it was trained and how good it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from voice.checkpoint import load_into, load_state_dict
from voice.codec_decoder import CodecDecoder, Past
from voice.codec_encoder import CodecEncoder, codebook, coded, columns_of, distances
from voice.decoder import DecoderVoice, SpeechDecoder
from voice.decoder_config import MINI
from voice.embedded import DATA, EmbeddedVoice, bundled_clips
from voice.family import Family
from voice.hf.base import Recording
from voice.model import Clip, Rendering
from voice.phones import index_of
from voice.reading import prompt_of
from voice.text import to_phones

WEIGHTS = "blvoice.safetensors"
"""Of both parts, `model` and `encoder`, in fp16."""
ROWS = "blvoice_rows.json"
"""What the codec and the training voice's timing make of the bundled clips: prompt and rows of each."""


class BlVoiceModel(nn.Module):
    """All that is stored: the decoder with its codec, and the encoder beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SpeechDecoder(MINI)
        self.encoder = CodecEncoder(MINI.codec.latent)


@cache
def _stored(path: Path) -> BlVoiceModel:
    stored = BlVoiceModel()
    load_into(stored, load_state_dict(path), path)
    return stored.eval().requires_grad_(False)


def _path(checkpoint: Path | None) -> Path:
    return checkpoint or Path(str(DATA / WEIGHTS))


@dataclass(frozen=True)
class BlVoice(DecoderVoice):
    """The trained decoder; a clip's inputs are its prompt, and the rows that the training voice's sound has."""

    name: str = "blvoice_mini"

    @classmethod
    def load(cls, checkpoint: Path | None = None) -> "BlVoice":
        """Load the weights that the package brings, or a checkpoint of the same shape.

        Raises:
            CheckpointError: as `voice.checkpoint` has it.
        """
        return cls(_stored(_path(checkpoint)).model)

    def clips(self, count: int | None = None) -> tuple[Clip, ...]:
        """The bundled sentences, as many as are asked for and there are; none was trained on."""
        natural = {clip.name: clip.natural for clip in bundled_clips()}
        samples = MINI.codec.frame_samples
        found = []
        for row in json.loads((DATA / ROWS).read_text(encoding="utf-8"))[:count]:
            prompt, rows = torch.tensor(row["prompt"]), torch.tensor(row["rows"])
            length = (rows.shape[1] - MINI.delay) * samples
            sound = natural[row["name"]]
            assert sound is not None
            nothing = self.module.none(len(prompt)).clone()
            nothing[0] = prompt
            found.append(Clip(row["name"], (nothing, rows), length / MINI.codec.sample_rate_hz, sound[:length]))
        return tuple(found)

    def speak(self, text: str) -> Tensor:
        """Waveform [time] of a text of at most some 50 phones, its timing and its codes the model's own.

        Raises:
            ValueError: more rows of prompt and speech than have a place.
        """
        front = EmbeddedVoice.load()
        phones = [index_of(phone) for phone in to_phones(text, front.lexicon, front.pronouncer.pronounce)]
        asked = prompt_of(phones)
        prompt = self.module.none(len(asked)).clone()
        prompt[0] = torch.tensor(asked)
        return self.render(Clip(text, (prompt,), 0.08 * len(phones))).sound


class CodecModel(nn.Module):
    """Encoder, codebook search and decoder, on log-mel columns: the STFT in front is the host's."""

    def __init__(self, encoder: CodecEncoder, decoder: CodecDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, columns: Tensor, codes: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Sound of forced codes, or of its own where none are forced, and the distances by which codes are chosen.

        Args:
            columns: [mels, 8 * frames] log-mel.
            codes: [codebooks, frames]; each codebook codes what those before it, forced, left.

        Returns:
            Sound [frames * frame_samples] in -1..1, and by codebook negative distances [frames, codes].
        """
        left = self.encoder(columns[None])[0]
        total, logits = torch.zeros_like(left), {}
        for book in range(self.decoder.config.codebooks):
            entries = codebook(self.decoder, book)
            logits[f"audio.{book}"] = distances(left, entries)
            found = entries[logits[f"audio.{book}"].argmax(dim=1) if codes is None else codes[book]]
            left, total = left - found, total + found
        return self.decoder.sound(total.mT[None], Past())[0], logits


@dataclass(frozen=True)
class BlVoiceCodec:
    """The codec as a voice of its own; a clip's inputs are the columns of its recording, and forced codes."""

    module: CodecModel
    name: str = "blvoice_codec"
    family: Family = "codec"
    protected: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, checkpoint: Path | None = None) -> "BlVoiceCodec":
        """Load the weights that the package brings, or a checkpoint of the same shape; errors as of `BlVoice.load`."""
        stored = _stored(_path(checkpoint))
        return cls(CodecModel(stored.encoder, stored.model.codec).eval())

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the codec."""
        return MINI.codec.sample_rate_hz

    def unforced(self, clip: Clip) -> Clip:
        """The same recording with codes of the model's own."""
        return Clip(clip.name, clip.inputs[:1], clip.seconds, clip.natural)

    def reseeded(self, clip: Clip, seed: int) -> None:
        """Give None: it draws no noise."""

    def render(self, clip: Clip) -> Rendering:
        """Sound and distances of a clip."""
        with torch.inference_mode():
            return Rendering(*self.module(*clip.inputs))

    def clips(self, recordings: Sequence[Recording]) -> tuple[Clip, ...]:
        """Recordings, cut to whole frames, with the codes that the model gives them in fp32."""
        samples, found = MINI.codec.frame_samples, []
        for recording in recordings:
            natural = recording.samples[: len(recording.samples) // samples * samples]
            with torch.no_grad():
                columns = columns_of(torch.from_numpy(natural)[None])[0]
                codes, _ = coded(self.module.encoder(columns[None])[0], self.module.decoder)
            found.append(Clip(recording.name, (columns, codes), len(natural) / MINI.codec.sample_rate_hz, natural))
        return tuple(found)
