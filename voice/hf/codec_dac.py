"""DAC (Kumar et al. 2023, arXiv 2306.06546), and X-Codec (Ye et al. 2024, arXiv 2408.17175), which is built on it."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.hf.codec import Codebook, Codec, CodecVoice


class DirectionCodebook(Codebook):
    """Entries that are searched by direction, both sides at unit length, and read at their own."""

    def __init__(self, entries: Tensor) -> None:
        """Take the entries [entries, width]."""
        super().__init__(F.normalize(entries))
        self.table = nn.Parameter(entries.detach().clone(), requires_grad=False)

    def forward(self, rest: Tensor) -> Tensor:
        """As `Codebook.forward`, of the direction of each frame."""
        return super().forward(F.normalize(rest))

    def entry(self, codes: Tensor) -> Tensor:
        """What codes [frames] stand for [frames, width]."""
        return F.embedding(codes, self.table)


class DacCodec(Codec):
    """Convolutions and Snake; each stage of the quantizer projects to 8 channels or so, and back."""

    quantizers = "quantizer.quantizers"

    def encoded(self, sound: Tensor) -> Tensor:
        """Frames of a sound, which is filled up to a whole number of them."""
        frames: Tensor = self.encoder(F.pad(sound, (0, -len(sound) % self.hop))[None, None])
        return frames

    def decoded(self, quantized: Tensor) -> Tensor:
        """Sound; odd strides, as at 16 and 24 kHz, lose some samples at its end."""
        sound: Tensor = self.decoder(quantized)
        return sound[0, 0]

    def _codebook(self, codebook: Any) -> Codebook:
        return DirectionCodebook(codebook.weight)

    def searched(self, stage: Any, rest: Tensor) -> Tensor:
        """Its projection."""
        return super().searched(stage, stage.in_proj(rest))

    def entry(self, stage: Any, codes: Tensor) -> Tensor:
        """Projected back."""
        found: Tensor = stage.out_proj(super().entry(stage, codes))
        return found


class DacVoice(CodecVoice):
    """DAC with all of its codebooks. Run on tiny random weights; descript/dac_16khz, _24khz and _44khz load alike."""

    codec: ClassVar[type[Codec]] = DacCodec


class XcodecCodec(Codec):
    """DAC's encoder beside a speech model (HuBERT or WavLM), whose hidden states are averaged over its layers."""

    quantizers = "quantizer.quantizers"
    semantic_model: Any
    encoder_semantic: Any
    acoustic_encoder: Any
    acoustic_decoder: Any
    fc: Any
    fc2: Any

    def encoded(self, sound: Tensor) -> Tensor:
        """Both kinds of frames, side by side and mixed."""
        around = self.hop // 2
        padded = F.pad(sound, (around, around))
        states = torch.stack(self.semantic_model(padded[None], output_hidden_states=True).hidden_states)
        semantic = self.encoder_semantic(states.mean(0).transpose(1, 2))
        acoustic = self.acoustic_encoder(sound[None, None])
        if acoustic.shape[2] != semantic.shape[2]:
            acoustic = self.acoustic_encoder(padded[None, None])
        mixed: Tensor = self.fc(torch.cat([acoustic, semantic], 1).transpose(1, 2))
        return mixed.transpose(1, 2)

    def decoded(self, quantized: Tensor) -> Tensor:
        """Sound; the semantic half of the model is for training alone."""
        sound: Tensor = self.acoustic_decoder(self.fc2(quantized.transpose(1, 2)).transpose(1, 2))
        return sound[0, 0]


class XcodecVoice(CodecVoice):
    """X-Codec with all of its codebooks. Run on tiny random weights, with HuBERT."""

    codec: ClassVar[type[Codec]] = XcodecCodec
