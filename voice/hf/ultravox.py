"""Ultravox: Whisper's encoder, a projector that stacks its positions, Llama.

transformers has no such architecture; the published checkpoints bring Python of their own. None of it is run here: the
parts are those of transformers, and the projector, whose shape and names of weights are the published ones
(ultravox/model/ultravox_model.py of github.com/fixie-ai/ultravox, UltravoxProjector, versions 0.2 to 0.6), is small.
"""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from voice.hf.base import HfError, Recording
from voice.hf.sources import INDEX, WEIGHTS, folder_of, require_weights
from voice.hf.speech_llm import SpeechLlm, whisper_extractor

EPSILON = 1e-6
STRIDE = 2
"""Of the encoder's second convolution."""
ENCODER, LANGUAGE = "audio_tower", "language_model"


class Projector(nn.Module):
    """Positions of the encoder [1, positions, width] to vectors of the language model [1, vectors, hidden]."""

    def __init__(self, settings: dict[str, Any], width: int, hidden: int) -> None:
        super().__init__()
        self.stack: int = settings.get("stack_factor", 8)
        self.gated = settings.get("projector_act", "swiglu") == "swiglu"
        self.act = None if self.gated else import_module("transformers.activations").ACT2FN[settings["projector_act"]]
        inner: int = settings.get("hidden_size", 4096)
        middle = inner // 2 if self.gated else inner
        self.ln_pre = nn.RMSNorm(width * self.stack, eps=EPSILON)
        self.linear_1 = nn.Linear(width * self.stack, inner, bias=False)
        self.linear_2 = nn.Linear(middle, hidden, bias=False)
        # Since version 0.5 there is a norm between the layers, before that one behind them.
        between = settings.get("projector_ln_mid", False)
        self.ln_mid = nn.RMSNorm(middle, eps=EPSILON) if between else nn.Identity()
        self.ln_post = nn.Identity() if between else nn.RMSNorm(hidden, eps=EPSILON)

    def forward(self, positions: Tensor) -> Tensor:
        """Stack, and go through two layers; the last stack is filled with zeros."""
        x = F.pad(positions, (0, 0, 0, -positions.shape[1] % self.stack))
        x = self.linear_1(self.ln_pre(x.reshape(1, -1, self.stack * x.shape[2])))
        if self.gated:
            value, gate = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        else:
            assert self.act is not None
            x = self.act(x)
        projected: Tensor = self.ln_post(self.linear_2(self.ln_mid(x)))
        return projected


class Ultravox(nn.Module):
    """The three parts, under the names that the checkpoints have for them."""

    def __init__(self, settings: dict[str, Any], attention: str) -> None:
        super().__init__()
        transformers = import_module("transformers")
        audio, text = (_config(transformers, settings, part) for part in ("audio", "text"))
        self.config = SimpleNamespace(
            audio_config=audio,
            audio_token_id=settings.get("audio_token_index", text.vocab_size - 1),
            get_text_config=lambda: text,
        )
        encoder = import_module("transformers.models.whisper.modeling_whisper").WhisperEncoder
        self.audio_tower = encoder._from_config(audio, attn_implementation=attention)
        self.multi_modal_projector = Projector(settings, audio.d_model, text.hidden_size)
        self.language_model = transformers.AutoModelForCausalLM.from_config(text, attn_implementation=attention)

    @property
    def generation_config(self) -> Any:
        """The language model's."""
        return self.language_model.generation_config

    @classmethod
    def from_pretrained(cls, folder: str, **options: Any) -> tuple["Ultravox", dict[str, Any]]:
        """Read a model, in fp32.

        What was not trained is not in the checkpoint: the language model, and in some versions the encoder, are read
        from `text_model_id` and `audio_model_id` of its config.json, repositories or folders.

        Returns:
            The model, and what transformers tells of loading: its `missing_keys`.
        """
        settings = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        model = cls(settings, options["attn_implementation"]).float()
        found = _weights(Path(folder))
        for part, key, prefixes in (
            (ENCODER, "audio_model_id", ("model.encoder.", "encoder.")),
            (LANGUAGE, "text_model_id", ("",)),
        ):
            if settings.get(key) and not any(name.startswith(f"{part}.") for name in found):
                found |= _borrowed(settings[key], part, prefixes)
        # A head tied to the embeddings is stored once.
        state = model.state_dict()
        missing, _ = model.load_state_dict({name: found[name] for name in found if name in state}, strict=False)
        model.language_model.tie_weights()
        tied = {name for name in missing if name.endswith("lm_head.weight") and _is_tied(model.language_model)}
        return model, {"missing_keys": set(missing) - tied}

    def hear(self, features: Tensor) -> Tensor:
        """Vectors [1, vectors, hidden] of a spectrogram [1, bands, frames], which may be shorter than the encoder."""
        tower = self.audio_tower
        x = F.gelu(tower.conv2(F.gelu(tower.conv1(features)))).transpose(1, 2)
        x = x + tower.embed_positions.weight[: x.shape[1]]
        for layer in tower.layers:
            x = layer(x, None)
        vectors: Tensor = self.multi_modal_projector(tower.layer_norm(x))
        return vectors

    def forward(self, input_ids: Tensor, input_features: Tensor | None = None, **options: Any) -> Any:
        """What the language model gives of tokens [1, tokens], sound in the places of its token."""
        embedded = self.language_model.get_input_embeddings()(input_ids)
        if input_features is not None:
            vectors = self.hear(input_features)
            embedded = embedded.masked_scatter((input_ids == self.config.audio_token_id)[..., None], vectors)
        return self.language_model(inputs_embeds=embedded, **options)


class UltravoxVoice(SpeechLlm):
    """Ultravox; a clip's inputs are the log-mel spectrogram [1, bands, frames], the prompt and the forced tokens.

    The encoder hears the recording without padding, at most as long as it is. Adapters of LoRA, which some versions of
    it were trained with and published merged, are not read. Run on seeded random weights alone, with parts in the
    checkpoint and with parts in other folders; no published checkpoint was at hand.
    """

    inputs_heard: ClassVar[int] = 2
    template: ClassVar[tuple[str, str]] = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is said? ",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    )

    def heard(self, recording: Recording) -> tuple[Tensor, ...]:
        """Spectrogram and prompt."""
        found = self.features(recording, padding="longest", pad_to_multiple_of=self.extractor.hop_length)
        longest = STRIDE * self.model.config.audio_config.max_source_positions
        features = found["input_features"][..., :longest]
        return features, self.prompt(self.vectors(features, torch.ones(features.shape[::2])))

    def heard_seconds(self, recording: Recording) -> float:
        """The recording, or the part of it that the encoder takes."""
        longest: float = self.model.config.audio_config.max_source_positions / 50
        return min(super().heard_seconds(recording), longest)

    def vectors(self, features: Tensor, mask: Tensor) -> int:
        """A vector of a stack of positions, each of two frames."""
        positions = -(-mask.shape[1] // STRIDE)
        return int(-(-positions // self.model.multi_modal_projector.stack))

    def opening(self, *heard: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Spectrogram, for the first forward alone."""
        return {"input_features": heard[0]}, {}

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number."""
        return whisper_extractor(self.model.config.audio_config)


def _config(transformers: Any, settings: dict[str, Any], part: str) -> Any:
    """Configuration of the encoder or the language model: in config.json, or of the model that it names."""
    name = settings.get(f"{part}_model_id")
    if name:
        return transformers.AutoConfig.from_pretrained(str(folder_of(name)))
    given = dict(settings.get(f"{part}_config") or {})
    kind = given.pop("model_type", {"audio": "whisper", "text": "llama"}[part])
    if part == "audio" and kind != "whisper":
        raise HfError(f"an Ultravox hears by Whisper's encoder, and this one by {kind}; there is no adapter for it")
    return transformers.CONFIG_MAPPING[kind](**given)


def _weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, in fp32."""
    require_weights(folder)
    index = folder / INDEX
    names = {WEIGHTS}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    found: dict[str, Tensor] = {}
    for name in sorted(names):
        found |= {key: value.float() for key, value in load_file(folder / name).items()}
    return found


def _borrowed(source: str, part: str, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Weights of another model as those of a part, of those under the first prefix that there is."""
    found = _weights(folder_of(source))
    prefix = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in found)), "")
    return {f"{part}.{name.removeprefix(prefix)}": found[name] for name in found if name.startswith(prefix)}


def _is_tied(model: Any) -> bool:
    return bool(model.config.tie_word_embeddings)
