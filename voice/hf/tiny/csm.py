"""A tiny CSM."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.speech_tokens import MIMI, strengthen, voiced
from voice.noise import paired_noise

BOOKS, CODES = 4, 64


def csm(folder: Path) -> None:
    """Save it: two layers in the backbone, two in the depth decoder, four codebooks, text of 160 ids."""
    transformers: Any = import_module("transformers")
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
    config = transformers.CsmConfig(
        num_codebooks=BOOKS,
        vocab_size=CODES + 3,
        text_vocab_size=160,
        hidden_size=64,
        **layers,
        pad_token_id=2,
        bos_token_id=1,
        audio_token_id=4,
        audio_eos_token_id=5,
        codebook_pad_token_id=CODES + 2,
        depth_decoder_config={
            "num_codebooks": BOOKS,
            "backbone_hidden_size": 64,
            "vocab_size": CODES + 3,
            "hidden_size": 48,
            **layers,
        },
        codec_config=MIMI | {"codebook_size": CODES, "num_quantizers": BOOKS},
    )
    with paired_noise(3):
        model = transformers.CsmForConditionalGeneration(config).eval()
        for part in (model.lm_head, model.embed_text_tokens, model.backbone_model, model.depth_decoder):
            strengthen(part)
        with torch.no_grad():  # the codec has no codes for the last three, so a trained model never says them
            model.lm_head.weight[CODES:] = 0.0
            model.depth_decoder.codebooks_head.weight[..., CODES:] = 0.0
        codec = model.codec_model
        voiced(codec, codec.decoder.decoder_seanet.layers[-1], torch.randint(CODES, (1, BOOKS, 25)))
    model.save_pretrained(folder)
