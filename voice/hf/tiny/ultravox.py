"""A tiny Ultravox, written as the published ones are: settings of its parts, weights under their names."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from voice.hf.tiny.speech_llm import AUDIO, TEXT, WHISPER
from voice.hf.tiny.speech_tokens import strengthen
from voice.hf.ultravox import Ultravox
from voice.noise import paired_noise

SETTINGS: dict[str, Any] = {
    "model_type": "ultravox",
    "audio_config": {"model_type": "whisper", **WHISPER},
    "text_config": {"model_type": "llama", **TEXT},
    "audio_token_index": AUDIO,
    "hidden_size": 128,
    "stack_factor": 8,
    "projector_act": "swiglu",
    "projector_ln_mid": True,
}


def ultravox(folder: Path) -> None:
    """Save an Ultravox with two layers on either side, and all its parts in one file."""
    with paired_noise(25):
        model = Ultravox(SETTINGS, "sdpa")
        strengthen(model)
    (folder / "config.json").write_text(json.dumps(SETTINGS, indent=2), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    assert all(value.dtype == torch.float32 for value in weights.values())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
