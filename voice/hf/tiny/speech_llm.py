"""Tiny language models that hear."""

from pathlib import Path
from typing import Any

from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from voice.hf.tiny.speech_tokens import strengthen
from voice.noise import paired_noise

TEXT: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WHISPER: dict[str, Any] = {
    "num_mel_bins": 80,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "d_model": 64,
    "max_source_positions": 100,
}
"""An encoder of 2 s."""
AUDIO = 190
"""Token of sound."""


def qwen2_audio(folder: Path) -> None:
    """Save a Qwen2-Audio with two layers on either side."""
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **WHISPER},
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_index=AUDIO,
    )
    save(Qwen2AudioForConditionalGeneration, config, 21, folder)


def voxtral(folder: Path) -> None:
    """Save a Voxtral with two layers on either side; four positions of the encoder are a vector, as in the real one."""
    audio = {
        "num_mel_bins": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "hidden_size": 64,
        "max_source_positions": 100,
    }
    config = VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", **audio},
        text_config={"model_type": "llama", **TEXT},
        audio_token_id=AUDIO,
    )
    save(VoxtralForConditionalGeneration, config, 24, folder)


def qwen3_asr(folder: Path) -> None:
    """Save a Qwen3-ASR with two layers on either side."""
    audio = {
        "num_mel_bins": 80,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "d_model": 64,
        "output_dim": 64,
        "downsample_hidden_size": 16,
    }
    config = Qwen3ASRConfig(
        audio_config={"model_type": "qwen3_asr_encoder", **audio},
        text_config={"model_type": "qwen3", **TEXT},
        audio_token_id=AUDIO,
        timestamp_token_id=191,
        pad_token_id=0,
        eos_token_id=2,
    )
    save(Qwen3ASRForConditionalGeneration, config, 23, folder)


def save(make: Any, config: Any, seed: int, folder: Path) -> None:
    """Save a model with weights drawn by `seed`."""
    with paired_noise(seed):
        model = make(config)
        strengthen(model)
    model.save_pretrained(folder)
