"""A tiny Dia, with its DAC in a folder beside it."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.speech_tokens import strengthen, voiced
from voice.noise import paired_noise

DELAYS = [0, 2, 3, 4]
CODES = 64


def dia(folder: Path) -> None:
    """Save it: two layers in the encoder and in the decoder, four codebooks, 20 frames a second, guidance of 2."""
    transformers: Any = import_module("transformers")
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 12,
    }
    config = transformers.DiaConfig(
        encoder_config={**sizes, "num_key_value_heads": 4},
        decoder_config={
            **sizes,
            "num_key_value_heads": 2,
            "cross_num_attention_heads": 4,
            "cross_num_key_value_heads": 4,
            "cross_head_dim": 12,
            "cross_hidden_size": 48,
            "vocab_size": CODES + 4,
            "num_channels": len(DELAYS),
            "eos_token_id": CODES,
            "pad_token_id": CODES + 1,
            "bos_token_id": CODES + 2,
        },
        delay_pattern=DELAYS,
    )
    codec = transformers.DacConfig(
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        downsampling_ratios=[4, 5, 5, 8],
        n_codebooks=len(DELAYS),
        codebook_size=CODES,
        sampling_rate=16000,
    )
    with paired_noise(3):
        model = transformers.DiaForConditionalGeneration(config).eval()
        strengthen(model)
        strengthen(model.logits_dense, 0.6)  # guidance adds to them
        model.generation_config.guidance_scale = 2.0
        dac = transformers.DacModel(codec).eval()
        voiced(dac, dac.decoder.conv2, torch.randint(CODES, (1, len(DELAYS), 40)))
    model.save_pretrained(folder)
    dac.save_pretrained(folder / "audio_tokenizer")
    named = {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "audio_tokenizer"}
    (folder / "audio_tokenizer_config.json").write_text(json.dumps(named))
