"""A tiny Qwen2.5-Omni, and its thinker alone."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from voice.hf.tiny.speech_llm import AUDIO, TEXT, WHISPER, save
from voice.hf.tiny.speech_tokens import strengthen
from voice.noise import paired_noise

CODES, BANDS, CONDITION = 64, 20, 8
PEAK = 0.5
"""Of the sound of random codes."""
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_THINKER: dict[str, Any] = {
    "audio_config": {**WHISPER, "n_window": 50, "output_dim": 64},
    "vision_config": {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [0],
    },
    "text_config": {**TEXT, "rope_parameters": _ROPE, "tie_word_embeddings": False},
    "audio_token_index": AUDIO,
    "image_token_index": 191,
    "video_token_index": 192,
    "vision_start_token_id": 193,
    "audio_start_token_id": 188,
    "audio_end_token_id": 189,
}
_TALKER: dict[str, Any] = {
    "vocab_size": 80,
    "embedding_size": 64,
    **{name: TEXT[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rope_parameters": _ROPE,
    "audio_token_index": AUDIO,
    "tts_text_start_token_id": 195,
    "tts_text_end_token_id": 196,
    "tts_text_pad_token_id": 194,
    "tts_codec_pad_token_id": 72,
    "tts_codec_start_token_id": 73,
    "tts_codec_end_token_id": 74,
    "tts_codec_mask_token_id": 76,
}
_FLOW: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "emb_dim": 16,
    "num_embeds": CODES,
    "mel_dim": BANDS,
    "look_ahead_layers": [1],
    "look_backward_layers": [0],
    "enc_emb_dim": CONDITION,
    "enc_dim": 16,
    "enc_channels": [32, 32, 32, 32, 96],
    "enc_attention_channels": 16,
    "enc_se_channels": 16,
}
_VOCODER: dict[str, Any] = {
    "mel_dim": BANDS,
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
}
"""240 samples a frame, as the real one has: 24 kHz."""


def thinker(folder: Path) -> None:
    """Save a thinker with two layers on either side, which attends to a second."""
    save(Qwen2_5OmniThinkerForConditionalGeneration, Qwen2_5OmniThinkerConfig(**_THINKER), 31, folder)


def omni(folder: Path) -> None:
    """Save the whole, with two layers in each part and one speaker."""
    config = Qwen2_5OmniConfig(
        thinker_config=_THINKER,
        talker_config=_TALKER,
        token2wav_config={"dit_config": _FLOW, "bigvgan_config": _VOCODER},
    )
    with paired_noise(32):
        model: Any = Qwen2_5OmniForConditionalGeneration(config)
        strengthen(model.thinker)
        strengthen(model.talker)
        model.talker.codec_head.weight.data[CODES:] = 0.0  # what is no code of sound is not the likeliest
        speaker = {"bos_token": 197, "cond": torch.randn(1, CONDITION), "ref_mel": torch.randn(1, 60, BANDS)}
        made = model.token2wav.eval()
        with torch.no_grad():
            sound = made(torch.randint(CODES, (1, 25)), speaker["cond"], speaker["ref_mel"], num_steps=3)
            made.code2wav_bigvgan_model.conv_post.weight *= PEAK / sound.abs().max()
    model.save_pretrained(folder)
    torch.save({"Chelsie": speaker}, folder / "spk_dict.pt")
