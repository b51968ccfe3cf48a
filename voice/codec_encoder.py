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
    """Sound to latents and codes; a frame hears nothing that comes after its 80 ms."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        befores = (CODEC_MEL.mels, *WIDTHS[:-1])
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, stride=stride)
            for before, after, stride in zip(befores, WIDTHS, STRIDES, strict=True)
        )
        self.out = nn.Conv1d(WIDTHS[-1], latent, 3)

    def forward(self, samples: Tensor) -> Tensor:
        """Map sound [batch, frames * 1280] in -1..1 to latents [batch, frames, latent]."""
        # log_mel looks at both sides: what it mirrors at the end is cut off with the columns that hear it.
        ahead = (CODEC_MEL.fft - CODEC_MEL.hop) // 2
        x = log_mel(F.pad(samples, (ahead, 0)), CODEC_MEL)[..., : samples.shape[1] // CODEC_MEL.hop]
        for conv, stride in zip(self.convs, STRIDES, strict=True):
            x = F.elu(conv(F.pad(x, (KERNEL - stride, 0))))
        latents: Tensor = self.out(F.pad(x, (2, 0)))
        return latents.mT

    def codes(self, samples: Tensor, decoder: CodecDecoder) -> Tensor:
        """Codes [codebooks, frames] of sound [frames * 1280]: at each codebook the nearest entry to what is left."""
        left = self(samples[None])[0]
        chosen = []
        for book in range(decoder.config.codebooks):
            entries = codebook(decoder, book)
            chosen.append(nearest(left, entries))
            left = left - entries[chosen[-1]]
        return torch.stack(chosen)


def codebook(decoder: CodecDecoder, book: int) -> Tensor:
    """Entries [codes, latent] of a codebook."""
    begin = book * (decoder.config.codes + 1)
    return decoder.entries.weight[begin : begin + decoder.config.codes]


def nearest(x: Tensor, entries: Tensor) -> Tensor:
    """Index [rows] of the entry nearest to each row of x [rows, latent]."""
    return (2 * F.linear(x, entries) - entries.square().sum(dim=1)).argmax(dim=1)
