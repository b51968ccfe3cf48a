"""A tiny Bark."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from voice.hf.tiny.speech_tokens import strengthen, voiced
from voice.noise import paired_noise

SEMANTIC, ENTRIES, TEXT = 60, 32, 80
"""Tokens of each kind."""
RATE_HZ = 16000
BOOKS, COARSE = 4, 2
"""Codebooks of all, and of the coarse stage."""


def bark(folder: Path) -> None:
    """Save it: two layers a stage, four codebooks, 22 semantic tokens a second and half as many frames again."""
    transformers: Any = import_module("transformers")
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_size": 48, "block_size": 320}
    coarse = SEMANTIC + COARSE * ENTRIES + 2
    config = transformers.BarkConfig(
        semantic_config={**sizes, "input_vocab_size": SEMANTIC + TEXT + 4, "output_vocab_size": SEMANTIC + 4},
        coarse_acoustics_config={**sizes, "input_vocab_size": coarse, "output_vocab_size": coarse},
        fine_acoustics_config={
            **sizes,
            "input_vocab_size": ENTRIES + 1,
            "output_vocab_size": ENTRIES + 1,
            "n_codes_total": BOOKS,
            "n_codes_given": 1,
        },
        codec_config={
            "model_type": "encodec",
            "sampling_rate": RATE_HZ,
            "target_bandwidths": [1.0],
            "hidden_size": 32,
            "num_filters": 4,
            "upsampling_ratios": [8, 6, 5, 2],
            "num_lstm_layers": 2,
            "codebook_size": ENTRIES,
            "codebook_dim": 32,
        },
    )
    with paired_noise(3):
        model = transformers.BarkModel(config).eval()
        for part in (model.semantic, model.coarse_acoustics, model.fine_acoustics):
            strengthen(part)
        with torch.no_grad():  # padding, which nothing forbids and a trained model never says
            model.coarse_acoustics.lm_head.weight[SEMANTIC + COARSE * ENTRIES :] = 0.0
        codec = model.codec_model
        voiced(codec, codec.decoder.layers[-1].conv, torch.randint(ENTRIES, (1, BOOKS, 66)))
    model.generation_config = _use(transformers)
    model.save_pretrained(folder)


def _use(transformers: Any) -> Any:
    """Where tokens lie in the tables, and how long the windows are."""
    return transformers.GenerationConfig(
        semantic_config={
            "eos_token_id": SEMANTIC,
            "text_encoding_offset": SEMANTIC + 2,
            "text_pad_token": SEMANTIC + TEXT + 2,
            "semantic_infer_token": SEMANTIC + TEXT + 3,
            "semantic_vocab_size": SEMANTIC,
            "max_input_semantic_length": 24,
            "semantic_rate_hz": 22.0,
        },
        coarse_acoustics_config={
            "coarse_semantic_pad_token": SEMANTIC + COARSE * ENTRIES,
            "coarse_infer_token": SEMANTIC + COARSE * ENTRIES + 1,
            "coarse_rate_hz": RATE_HZ / 480,
            "n_coarse_codebooks": COARSE,
            "max_coarse_input_length": 80,
            "max_coarse_history": 220,
            "sliding_window_len": 20,
        },
        fine_acoustics_config={
            "max_fine_history_length": 64,
            "max_fine_input_length": 128,
            "n_fine_codebooks": BOOKS,
        },
        codebook_size=ENTRIES,
        sample_rate=RATE_HZ,
    )
