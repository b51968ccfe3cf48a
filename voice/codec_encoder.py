"""CodecEncoder: sound to RVQ codes, 12.5 frames a second, by causal convolutions over log-mel columns.

Residual vector quantization after SoundStream (Zeghidour et al. 2021, arXiv 2107.03312): each codebook codes what
those before it left. The codebooks are those of the decoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.codec_decoder import CodecDecoder
from voice.mel import MelConfig, log_mel

CODEC_MEL = MelConfig(sample_rate_hz=16000, fft=640, hop=160, window=640)
"""100 columns a second; a window ends where its column does."""
STRIDES = (2, 2, 2)
KERNEL = 5
WIDTHS = (128, 160, 192)


class CodecEncoder(nn.Module):
    """Log-mel columns to latents; a frame hears nothing that comes after its 80 ms."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        befores = (CODEC_MEL.mels, *WIDTHS[:-1])
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, stride=stride)
            for before, after, stride in zip(befores, WIDTHS, STRIDES, strict=True)
        )
        self.out = nn.Conv1d(WIDTHS[-1], latent, 3)

    def forward(self, columns: Tensor) -> Tensor:
        """Map log-mel columns [batch, mels, 8 * frames] to latents [batch, frames, latent]."""
        x = columns
        for conv, stride in zip(self.convs, STRIDES, strict=True):
            x = F.elu(conv(F.pad(x, (KERNEL - stride, 0))))
        latents: Tensor = self.out(F.pad(x, (2, 0)))
        return latents.mT


def columns_of(samples: Tensor) -> Tensor:
    """Log-mel columns [batch, mels, time // 160] of sound [batch, time] in -1..1, by windows that look back alone."""
    # log_mel looks at both sides: what it mirrors at the end is cut off with the columns that hear it.
    ahead = (CODEC_MEL.fft - CODEC_MEL.hop) // 2
    return log_mel(F.pad(samples, (ahead, 0)), CODEC_MEL)[..., : samples.shape[1] // CODEC_MEL.hop]


def coded(latents: Tensor, decoder: CodecDecoder) -> tuple[Tensor, Tensor]:
    """Codes [codebooks, ..., frames] of latents [..., frames, latent], and the sums of entries that they stand for.

    In each codebook it is the nearest entry to what those before it left.
    """
    left, chosen = latents, []
    for book in range(decoder.config.codebooks):
        entries = codebook(decoder, book)
        chosen.append(distances(left, entries).argmax(dim=-1))
        left = left - entries[chosen[-1]]
    return torch.stack(chosen), latents - left


def codebook(decoder: CodecDecoder, book: int) -> Tensor:
    """Entries [codes, latent] of a codebook."""
    begin = book * (decoder.config.codes + 1)
    return decoder.entries.weight[begin : begin + decoder.config.codes]


def distances(x: Tensor, entries: Tensor) -> Tensor:
    """Negative squared distance [..., codes] of x [..., latent] from each entry, but for what they all share."""
    return 2 * F.linear(x, entries) - entries.square().sum(dim=1)
