"""What tiny models that write audio tokens are made of: their codecs, and weights that make something of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from voice.hf.tiny.levels import bring_to

MIMI = {
    "model_type": "mimi",
    "hidden_size": 32,
    "num_filters": 4,
    "upsampling_ratios": [8, 6, 5, 4],
    "codebook_size": 64,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "upsample_groups": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "sliding_window": 50,
    "layer_scale_initial_scale": 0.3,
}
"""24 kHz and 12.5 frames a second, as the real one has."""


def strengthen(module: nn.Module, gain: float = 1.4) -> None:
    """Draw the weights of a language model anew, so strong that its tokens depend on what came before.

    What transformers draws is for training, and gives the same to whatever was said. Matrices stacked by codebook are
    drawn as layers are: the last axis is what they read, or with `[books, in, out]` nearly as long.
    """
    for layer in module.modules():
        for weight in layer.parameters(recurse=False):
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(weight)
            elif weight.ndim >= 2:
                nn.init.normal_(weight, std=gain * weight.shape[-1] ** -0.5)


def voiced(codec: Any, last: nn.Module, codes: Tensor) -> None:
    """Draw the weights of a codec's decoder and its codebooks anew, and bring its sound to the level of speech.

    Transformers may leave codebooks at zero, and its biases are so large that sound is a constant with a hiss.

    Args:
        codec: Mimi, DAC or EnCodec.
        last: its last convolution.
        codes: [1, codebooks, frames] that it is measured by.
    """
    with torch.no_grad():
        for name, buffer in codec.named_buffers():
            if name.endswith((".embed", ".embed_sum")):
                buffer.copy_(torch.randn(buffer.shape))
            if name.endswith(".cluster_usage"):
                buffer.fill_(1.0)
        for layer in codec.decoder.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
                _draw(layer)
    bring_to(last, lambda: _decoded(codec, codes))


def _draw(layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
    reading = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose1d):  # two taps make a sample
        reading = 2 * layer.in_channels // layer.groups
    weight = torch.randn(layer.weight.shape) * 1.2 * reading**-0.5
    if parametrize.is_parametrized(layer, "weight"):
        layer.weight = weight
    else:
        layer.weight.copy_(weight)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.02)


def _decoded(codec: Any, codes: Tensor) -> Tensor:
    if codec.config.model_type == "encodec":
        sound: Tensor = codec.decoder(codec.quantizer.decode(codes.transpose(0, 1)))
        return sound
    values: Tensor = codec.decode(audio_codes=codes).audio_values
    return values
