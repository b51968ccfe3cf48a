"""Mimi (Défossez et al. 2024, arXiv 2410.00037): causal convolutions and a transformer, one semantic codebook apart."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from voice.hf.codec import Codec, CodecVoice


class MimiCodec(Codec):
    """Encoder and decoder as transformers has them; the semantic quantizer and the acoustic one start side by side."""

    quantizer: Any
    usual = 8  # of 32: what Moshi speaks in

    def encoded(self, sound: Tensor) -> Tensor:
        """Frames at 12.5 Hz; nothing is kept for a next chunk."""
        latents: Tensor = self.encoder(sound[None, None], use_streaming=False).latents
        return latents

    def decoded(self, quantized: Tensor) -> Tensor:
        """Sound of the first channel; Mimi has no other."""
        sound: Tensor = self.decoder(quantized, use_cache=False).audio_values
        return sound[0, 0]

    def quantized(self, frames: Tensor, codes: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Both quantizers code the same frames, and what they give is added."""
        sums, logits = torch.zeros(()), list[Tensor]()
        for part in self.parts():
            rest = frames if part.input_proj is None else part.input_proj(frames)
            given = None if codes is None else codes[len(logits) :]
            total, found = self.residual(rest, part.layers, given)
            sums = sums + (total if part.output_proj is None else part.output_proj(total))
            logits += found
        return sums, logits

    def parts(self) -> tuple[Any, Any]:
        """The semantic quantizer and the acoustic one."""
        return self.quantizer.semantic_residual_vector_quantizer, self.quantizer.acoustic_residual_vector_quantizer

    def stages(self) -> Sequence[Any]:
        """Those of both."""
        return [layer for part in self.parts() for layer in part.layers]

    def _fewest(self) -> int:
        return int(self.parts()[0].num_quantizers) + 1

    def _keep(self, codebooks: int) -> None:
        semantic, acoustic = self.parts()
        del acoustic.layers[codebooks - len(semantic.layers) :]

    def _hop(self, config: Any) -> int:
        return int(config.sampling_rate / config.frame_rate)


class MimiVoice(CodecVoice):
    """Mimi with its first 8 codebooks, 1.1 kbit/s. Run on tiny random weights; kyutai/mimi loads by the same code."""

    codec: ClassVar[type[Codec]] = MimiCodec
