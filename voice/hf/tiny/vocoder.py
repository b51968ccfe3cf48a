"""Twins of vocoders: HiFi-GAN and UnivNet."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voice.hf.tiny.levels import bring_to
from voice.noise import paired_noise

MELS = 20
GAIN = 1.2


def hifigan(folder: Path) -> None:
    """Write a twin of SpeechT5's vocoder: 16 kHz, a hop of 256, frames of 20 bands."""
    library = import_module("transformers")
    with paired_noise(5):
        model = library.SpeechT5HifiGan(library.SpeechT5HifiGanConfig(**hifigan_shape(MELS)))
        strengthen(model)
        model.mean += -3.0  # of the logarithms of speech
        level_hifigan(model.eval(), MELS)
    model.save_pretrained(folder)


def univnet(folder: Path) -> None:
    """Write a twin of UnivNet: 24 kHz, a hop of 256, frames of 20 bands."""
    library = import_module("transformers")
    config = library.UnivNetConfig(
        model_in_channels=8,
        model_hidden_channels=6,
        num_mel_bins=MELS,
        resblock_kernel_sizes=[3, 3, 3],
        resblock_stride_sizes=[8, 8, 4],
        resblock_dilation_sizes=[[1, 3], [1, 3], [1, 3]],
        kernel_predictor_num_blocks=1,
        kernel_predictor_hidden_channels=8,
    )
    with paired_noise(6):
        model = library.UnivNetModel(config).eval()
        strengthen(model)
        for block in model.resblocks:
            # Logarithms are far from zero, and what is predicted are kernels: both would be too strong.
            block.kernel_predictor.input_conv.weight.data *= 0.2
            block.kernel_predictor.kernel_conv.weight.data *= 0.25
        noise, frames = torch.randn(1, 40, 8), torch.randn(1, 40, MELS) - 4.0
        bring_to(model.conv_post, lambda: model(frames, noise))
    model.save_pretrained(folder)


def hifigan_shape(mels: int) -> dict[str, Any]:
    """Configuration of a small HiFi-GAN with a hop of 256."""
    return {
        "model_in_dim": mels,
        "upsample_initial_channel": 48,
        "upsample_rates": [8, 8, 4],
        "upsample_kernel_sizes": [16, 16, 8],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 3]],
    }


def strengthen(module: nn.Module) -> None:
    """Draw weights strong enough that the last layer hears the first; transformers draws them for training."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            reading = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose1d):  # [in, out, taps], of which two taps make a sample
                reading = 2 * layer.in_channels
            nn.init.normal_(layer.weight, std=GAIN * reading**-0.5)


def level_hifigan(model: nn.Module, mels: int) -> None:
    """Bring its sound to the level of speech, on random frames around its own mean."""
    mean: Any = model.mean
    frames = mean + torch.randn(40, mels)
    last: Any = model.conv_post
    bring_to(last, lambda: model(frames))
