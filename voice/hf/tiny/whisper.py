"""A tiny Whisper and a tiny Moonshine."""

from pathlib import Path
from typing import Any

from transformers import (
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from voice.hf.tiny.speech_tokens import strengthen
from voice.noise import paired_noise

TEXT = 200


def whisper(folder: Path) -> None:
    """Save a Whisper of 2 s: two layers on either side, 80 bands, three languages, tokens it never says."""
    config = WhisperConfig(
        vocab_size=TEXT,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=100,
        max_target_positions=40,
        decoder_start_token_id=3,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        begin_suppress_tokens=None,
    )
    with paired_noise(11):
        model = WhisperForConditionalGeneration(config)
        strengthen(model)
    said: Any = model.generation_config
    said._from_model_config = False  # else transformers reads none of what follows
    said.lang_to_id = {"<|en|>": 4, "<|de|>": 5, "<|fr|>": 6}
    said.task_to_id = {"transcribe": 7, "translate": 8}
    said.no_timestamps_token_id = 9
    said.suppress_tokens = list(range(2, 10))
    said.begin_suppress_tokens = [1]
    model.save_pretrained(folder)


def moonshine(folder: Path) -> None:
    """Save a Moonshine of two layers on either side."""
    config = MoonshineConfig(
        vocab_size=TEXT,
        hidden_size=64,
        intermediate_size=128,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    with paired_noise(12):
        model = MoonshineForConditionalGeneration(config)
        strengthen(model)
    model.save_pretrained(folder)
