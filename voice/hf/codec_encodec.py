"""EnCodec (Défossez et al. 2022, arXiv 2210.13438): convolutions and an LSTM, mono at 24 kHz or stereo in chunks."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.hf.codec import Codec, CodecVoice


class EncodecCodec(Codec):
    """Encoder and decoder of each chunk; the search of the codes runs over the frames of all chunks at once."""

    quantizers = "quantizer.layers"
    usual = 8  # 6 kbit/s at 24 kHz

    def __init__(self, model: Any, codebooks: int | None) -> None:
        """As `Codec`."""
        super().__init__(model, codebooks)
        self.channels = int(model.config.audio_channels)
        self.normalize = bool(model.config.normalize)
        self.chunk_length, self.chunk_stride = model.config.chunk_length, model.config.chunk_stride

    def forward(self, sound: Tensor, codes: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Codec.forward`; `codes` are those of all chunks, one after another."""
        step = self.chunk_stride or len(sound)
        size = self.chunk_length or len(sound)
        chunks = [sound[start : start + size] for start in range(0, len(sound), step)]
        # The level of a chunk is a decision of the encoder; the reference and a candidate see the same recording.
        levels = [chunk.square().mean().sqrt() + 1e-8 if self.normalize else torch.ones(()) for chunk in chunks]
        frames = [self.encoded(chunk / level) for chunk, level in zip(chunks, levels, strict=True)]
        quantized, logits = self.quantized(torch.cat(frames, 2), codes)
        parts = torch.split(quantized, [part.shape[2] for part in frames], 2)
        pieces = [self.decoded(part) * level for part, level in zip(parts, levels, strict=True)]
        waveform = pieces[0] if len(pieces) == 1 else _crossfaded(pieces, step)
        return waveform[: len(sound)], {f"audio.{index}": values for index, values in enumerate(logits)}

    def encoded(self, sound: Tensor) -> Tensor:
        """Frames of a chunk; a stereo model hears it on both channels."""
        frames: Tensor = self.encoder(sound.expand(1, self.channels, -1))
        return frames

    def decoded(self, quantized: Tensor) -> Tensor:
        """Sound of a chunk: the mean of the channels."""
        sound: Tensor = self.decoder(quantized)
        return sound[0].mean(0)


class EncodecVoice(CodecVoice):
    """EnCodec with 8 codebooks at most (6 kbit/s at 24 kHz).

    A recording is mono: a stereo model, as encodec_48khz, is given it on both channels, and the sound is the mean of
    both, so that errors opposite in the channels are not heard. Run on tiny random weights, mono and stereo in chunks;
    facebook/encodec_24khz, encodec_48khz and the one of MusicGen load by the same code.
    """

    codec: ClassVar[type[Codec]] = EncodecCodec


def _crossfaded(pieces: Sequence[Tensor], step: int) -> Tensor:
    """Pieces [time] that start every `step` samples, faded into each other by triangles over a whole piece."""
    ramp = torch.linspace(0, 1, len(pieces[0]) + 2)[1:-1].to(pieces[0])
    triangle = 0.5 - (ramp - 0.5).abs()
    starts = range(0, step * len(pieces), step)
    # Frames are whole, so that the last piece but one may reach further than the last.
    length = max(start + len(piece) for start, piece in zip(starts, pieces, strict=True))
    sound, weights = pieces[0].new_zeros(length), pieces[0].new_zeros(length)
    for start, piece in zip(starts, pieces, strict=True):
        weight = triangle[: len(piece)]
        sound[start : start + len(piece)] += weight * piece
        weights[start : start + len(piece)] += weight
    return sound / weights
