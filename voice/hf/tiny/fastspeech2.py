"""Twins of FastSpeech2-Conformer: with its HiFi-GAN in one checkpoint, and the two apart."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.vocoder import MELS, hifigan_shape, level_hifigan, strengthen
from voice.noise import paired_noise

FRAMES = 4.5
"""Of a token, about."""


def with_vocoder(folder: Path) -> None:
    """Write a twin as espnet/fastspeech2_conformer_with_hifigan is: one speaker, one checkpoint."""
    library = import_module("transformers")
    vocoder = library.FastSpeech2ConformerHifiGanConfig(**hifigan_shape(MELS))
    config = library.FastSpeech2ConformerWithHifiGanConfig(
        model_config=_acoustic().to_dict(), vocoder_config=vocoder.to_dict()
    )
    with paired_noise(11):
        model = library.FastSpeech2ConformerWithHifiGan(config).eval()
        _tune(model.model)
        strengthen(model.vocoder)
        level_hifigan(model.vocoder, MELS)
    model.save_pretrained(folder)


def vocoder_apart(folder: Path) -> None:
    """Write a twin of three speakers and two languages, its vocoder in a folder of its own."""
    library = import_module("transformers")
    with paired_noise(12):
        model = library.FastSpeech2ConformerModel(
            _acoustic(num_speakers=3, num_languages=2, speaker_embed_dim=6, speaking_speed=1.2)
        ).eval()
        _tune(model)
        vocoder = library.FastSpeech2ConformerHifiGan(
            library.FastSpeech2ConformerHifiGanConfig(**hifigan_shape(MELS))
        ).eval()
        strengthen(vocoder)
        level_hifigan(vocoder, MELS)
    model.save_pretrained(folder)
    vocoder.save_pretrained(folder / "vocoder")


def _acoustic(**changes: Any) -> Any:
    shape = {
        "hidden_size": 24,
        "vocab_size": 30,
        "num_mel_bins": MELS,
        "encoder_num_attention_heads": 2,
        "encoder_layers": 1,
        "encoder_linear_units": 48,
        "decoder_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_linear_units": 48,
        "decoder_kernel_size": 7,
        "speech_decoder_postnet_layers": 2,
        "speech_decoder_postnet_units": 16,
        "duration_predictor_channels": 16,
        "energy_predictor_channels": 16,
        "pitch_predictor_channels": 16,
        "pitch_predictor_layers": 2,
        "max_source_positions": 500,
    }
    return import_module("transformers").FastSpeech2ConformerConfig(**shape, **changes)


def _tune(model: Any) -> None:
    """Make its frames of a token a handful, which random weights do not."""
    linear = model.duration_predictor.linear
    torch.nn.init.normal_(linear.weight, std=0.1)
    linear.bias.data.fill_(torch.tensor(FRAMES + 1.0).log())
