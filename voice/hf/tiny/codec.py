"""Tiny twins of codecs. Entries are frames of the twin's own encoder: codes vary, and each stage leaves less over."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from voice.hf.codec import Codec
from voice.hf.codec_continuous import ContinuousCodec, PocketCodec, VibeVoiceCodec
from voice.hf.codec_dac import DacCodec, XcodecCodec
from voice.hf.codec_encodec import EncodecCodec
from voice.hf.codec_mimi import MimiCodec
from voice.noise import paired_noise

PEAK, GAIN = 0.5, 1.1
SEANET: dict[str, Any] = {"num_filters": 4, "codebook_size": 64}


def mimi(folder: Path) -> None:
    """Ten codebooks, of which eight are used; 24 kHz, 12.5 frames a second."""
    config = _hf("MimiConfig",
        **SEANET, hidden_size=32, codebook_dim=12, vector_quantization_hidden_dimension=12, num_quantizers=10,
        upsample_groups=32, num_hidden_layers=2, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4,
        layer_scale_initial_scale=0.3, sliding_window=20,
    )  # fmt: skip
    model = _seeded("MimiModel", config, 1)
    codec = MimiCodec(_seeded("MimiModel", config, 1), config.num_quantizers)
    frames = codec.encoded(speech(24_000, 14.0))
    for part in codec.parts():
        _fill(codec, part.input_proj(frames), part.layers)
    _finish(model, codec, "embed_sum", model.decoder.decoder_seanet.layers[-1].conv, folder)


def encodec(folder: Path) -> None:
    """Mono at 24 kHz, causal, of ten codebooks eight used."""
    _encodec(_hf("EncodecConfig", **SEANET, hidden_size=12, target_bandwidths=(0.9, 3.6, 4.5)), folder)


def encodec_48khz(folder: Path) -> None:
    """Stereo at 48 kHz, in levelled chunks of a second, not causal, normalized by group."""
    config = _hf("EncodecConfig",
        **SEANET, hidden_size=12, target_bandwidths=(1.8, 3.6), sampling_rate=48_000, audio_channels=2, normalize=True,
        chunk_length_s=1.0, overlap=0.01, norm_type="time_group_norm", use_causal_conv=False,
    )  # fmt: skip
    _encodec(config, folder)


def dac(folder: Path) -> None:
    """Four codebooks at 16 kHz, with a stride of 5, of those that lose samples at the end."""
    config = _hf("DacConfig",
        encoder_hidden_size=4, downsampling_ratios=(2, 4, 5, 8), decoder_hidden_size=64, n_codebooks=4,
        codebook_size=64, codebook_dim=8, sampling_rate=16_000,
    )  # fmt: skip
    model = _seeded("DacModel", config, 4)
    codec = DacCodec(_seeded("DacModel", config, 4), None)
    for stage in (*model.quantizer.quantizers, *codec.stages()):
        # Trained projections go there and back; random ones would leave more over than they took away.
        stage.out_proj.weight.copy_(torch.linalg.pinv(stage.in_proj.weight[..., 0])[..., None])
        stage.out_proj.bias.copy_(-(stage.out_proj.weight[..., 0] @ stage.in_proj.bias))
    _fill(codec, codec.encoded(speech(16_000, 6.0)), codec.stages())
    codec.decoder.tanh = nn.Identity()
    _finish(model, codec, "weight", model.decoder.conv2, folder)


def xcodec(folder: Path) -> None:
    """Eight codebooks at 16 kHz, DAC's encoder beside a HuBERT of two layers."""
    acoustic = _hf("DacConfig",
        encoder_hidden_size=4, downsampling_ratios=(8, 5, 4, 2), decoder_hidden_size=64, hidden_size=16
    )  # fmt: skip
    semantic = _hf("HubertConfig",
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, mask_time_prob=0.0,
    )  # fmt: skip
    config = _hf("XcodecConfig",
        acoustic_model_config=acoustic, semantic_model_config=semantic, codebook_size=64, target_bandwidths=(0.6, 2.4)
    )  # fmt: skip
    model = _seeded("XcodecModel", config, 5)
    codec = XcodecCodec(_seeded("XcodecModel", config, 5), None)
    _fill(codec, codec.encoded(speech(16_000, 6.0)), codec.stages())
    _finish(model, codec, "embed", model.acoustic_decoder.conv2, folder)


def pocket(folder: Path) -> None:
    """Latents of 8 numbers at 12.5 Hz; 24 kHz."""
    config = _hf(
        "PocketTTSAudioTokenizerConfig",
        num_filters=4, hidden_size=32, latent_dim=8, upsample_groups=32, num_hidden_layers=2, intermediate_size=64,
        num_attention_heads=4, num_key_value_heads=4, layer_scale_initial_scale=0.3, sliding_window=100,
    )  # fmt: skip
    model = _seeded("PocketTTSAudioTokenizerModel", config, 6)
    codec = PocketCodec(_seeded("PocketTTSAudioTokenizerModel", config, 6))
    _level(codec, model.decoder.decoder_seanet.layers[-1].conv)
    model.save_pretrained(folder)


def vibevoice(folder: Path) -> None:
    """Latents of 8 numbers at 7.5 Hz; 24 kHz."""
    config = _hf(
        "VibeVoiceAcousticTokenizerConfig",
        num_filters=2, hidden_size=8, depths=(1,) * 7, ffn_expansion=2, layer_scale_init_value=0.3,
    )  # fmt: skip
    model = _seeded("VibeVoiceAcousticTokenizerModel", config, 7)
    _level(VibeVoiceCodec(_seeded("VibeVoiceAcousticTokenizerModel", config, 7)), model.decoder.head.conv)
    model.save_pretrained(folder)


def _encodec(config: Any, folder: Path) -> None:
    model = _seeded("EncodecModel", config, 2)
    codec = EncodecCodec(_seeded("EncodecModel", config, 2), config.num_quantizers)
    sound = speech(config.sampling_rate, 4.0)
    sound = sound / sound.square().mean().sqrt() if config.normalize else sound
    _fill(codec, codec.encoded(sound), codec.stages())
    last = model.decoder.layers[-1]
    _finish(model, codec, "embed", last.norm if config.norm_type == "time_group_norm" else last.conv, folder)


def _hf(name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module("transformers"), name)(*arguments, **options)


def _seeded(name: str, config: Any, seed: int) -> Any:
    """Build a model, its convolutions strong enough that it is no mere average."""
    with paired_noise(seed):
        model = _hf(name, config).eval().requires_grad_(False)
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
                reading = layer.weight[0].numel()
                if isinstance(layer, nn.ConvTranspose1d):  # [in, out, taps], of which two taps make a sample
                    reading = 2 * layer.in_channels
                bias = None if layer.bias is None else 0.02 * torch.randn(layer.bias.shape)
                _set(layer, torch.randn(layer.weight.shape) * GAIN * reading**-0.5, bias)
    return model


def _set(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    # Weight norm takes a new weight apart where it is assigned.
    layer.weight = weight if parametrize.is_parametrized(layer) else nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)


def _fill(codec: Codec, rest: Tensor, stages: Any) -> None:
    """Take the entries of each codebook from the frames that reach it."""
    draw = np.random.default_rng(0)
    for stage in stages:
        frames, book = codec.searched(stage, rest), stage.codebook
        picked = frames[torch.from_numpy(draw.choice(len(frames), len(book.weight), replace=False))]
        noise = torch.from_numpy(draw.standard_normal(picked.shape)).float()
        stage.codebook = type(book)(picked + 0.3 * picked.std() * noise)
        rest = rest - codec.entry(stage, stage.codebook(frames).argmax(1))


def _finish(model: Any, codec: Codec, table: str, last: Any, folder: Path) -> None:
    """Give the model its entries and a sound that is neither silent nor too loud, and write it."""
    _level(codec, last)
    theirs = [book for name, book in model.named_modules() if name.endswith("codebook")]
    for book, stage in zip(theirs, codec.stages(), strict=True):
        getattr(book, table).copy_(stage.codebook.entry(torch.arange(len(stage.codebook.weight))))
    model.save_pretrained(folder)


def _level(codec: Codec | ContinuousCodec, last: Any) -> None:
    """Scale the last layer so that speech peaks at half of full scale."""
    with torch.no_grad():
        made = codec(speech(codec.sample_rate_hz, 2.5))
    sound: Tensor = made[0] if isinstance(made, tuple) else made
    level = PEAK / sound.abs().max()
    _set(last, last.weight * level, last.bias * level)


def speech(rate_hz: int, seconds: float) -> Tensor:
    """Something like speech [time]: a gliding buzz and hiss in turns, with pauses."""
    draw = np.random.default_rng(7)
    time = np.arange(int(rate_hz * seconds)) / rate_hz
    glide = 130 + 50 * np.sin(2 * math.pi * 0.7 * time) + 30 * np.sin(2 * math.pi * 0.31 * time + 1)
    phase = 2 * math.pi * np.cumsum(glide) / rate_hz
    color = 2 + np.sin(2 * math.pi * 1.3 * time)
    buzz = sum(np.sin(k * phase) / k**color for k in range(1, 20))
    hiss = draw.standard_normal(len(time)) * np.maximum(0, np.sin(2 * math.pi * 1.9 * time + 2))
    loudness = 0.2 * np.abs(np.sin(2 * math.pi * 1.7 * time)) * (np.sin(2 * math.pi * 0.45 * time) > -0.7)
    return torch.from_numpy(loudness * (buzz + 0.3 * hiss)).float()
