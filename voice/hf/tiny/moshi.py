"""A tiny Moshi."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.speech_tokens import MIMI, strengthen, voiced
from voice.noise import paired_noise

BOOKS = 4


def moshi(folder: Path) -> None:
    """Save it: two layers over time, two in the depth decoder, four codebooks, text of 96 ids."""
    transformers: Any = import_module("transformers")
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.MoshiConfig(
        vocab_size=96,
        hidden_size=64,
        ffn_dim=192,
        **heads,
        num_codebooks=BOOKS,
        sliding_window=60,
        audio_encoder_config=MIMI | {"num_quantizers": BOOKS},
        depth_decoder_config={"hidden_size": 48, "ffn_dim": 96, **heads},
    )
    with paired_noise(3):
        model = transformers.MoshiForConditionalGeneration(config).eval()
        for part in (model.decoder, model.depth_decoder, model.embed_tokens):
            strengthen(part)
        strengthen(model.depth_decoder.lm_heads, 0.4)  # no norm stands before them
        codec = model.audio_encoder
        voiced(codec, codec.decoder.decoder_seanet.layers[-1], torch.randint(64, (1, BOOKS, 25)))
    model.save_pretrained(folder)
