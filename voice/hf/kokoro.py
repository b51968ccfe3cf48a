"""Kokoro: text to sound through a predictor of durations and F0, a sine source and an iSTFT, by its own package.

The package `kokoro` brings the model; transformers has none. It publishes pickles and no model_type, so a checkpoint is
written anew once: `python -m voice.hf.kokoro SOURCE FOLDER`, SOURCE being a folder with config.json, one .pth and
voices/*.pt.
"""

import argparse
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from voice.family import Family
from voice.folding import fold_parametrizations
from voice.hf.base import HfError, Recording
from voice.hf.forcing import SeededVoice, forced, noted
from voice.model import Clip, Rendering
from voice.noise import paired_noise

RATE_HZ, RANDOM_TOKENS, FIRST_PHONE = 24000, 32, 1
VOICES = "voices.npy"
"""[voices, lengths, 2 * style]: each voice has a style for every number of tokens."""
_PROSODY = "it serves timing and pitch alone, which clips with forced durations, F0 and loudness cannot show"


class Kokoro:
    """KModel of the package, read from safetensors."""

    @classmethod
    def from_pretrained(cls, folder: str, **_options: Any) -> tuple[Any, dict[str, Any]]:
        """Read what `convert` wrote; gives the model and which weights are missing.

        Raises:
            HfError: the package is not installed.
        """
        model = _empty(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
        found = model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=False)
        return model, {"missing_keys": found.missing_keys}


@dataclass(frozen=True)
class KokoroVoice(SeededVoice):
    """KModel (after StyleTTS 2, Li et al. 2023, arXiv 2306.07691); run on random weights only.

    A clip is (tokens [n], style [1, 2 * style], seed [], durations [n], f0_hz [1, 1, frames], loudness [1, 1, frames]):
    all that the predictor decides is forced. The seed gives the source's noise and its harmonics' first phases.
    """

    family: ClassVar[Family] = "non_autoregressive"
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "bert.*": _PROSODY,
            "bert_encoder": _PROSODY,
            "predictor.*": _PROSODY,
            "decoder.generator.m_source.*": "it adds up the sines of the source, whose phase does not bear rounding",
            "decoder.generator.conv_post": "it gives the phase and the logarithm of the magnitude of the inverse STFT",
        }
    )

    def __post_init__(self) -> None:
        fold_parametrizations(self.module)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio made."""
        return RATE_HZ

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Random phones with durations, F0 and loudness of the model's own, voices in turn."""
        return tuple(self._clip(number) for number in range(count))

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Run the model as its package has it."""
        tokens, style, seed, *prosody = inputs
        results = {}
        if prosody:
            longest = self._predictor.duration_proj.linear_layer.out_features
            # A duration is a sum of so many sigmoids.
            shares = torch.logit(prosody[0] / longest)[None, :, None].expand(1, -1, longest)
            places = (self._predictor.duration_proj, self._predictor.F0_proj, self._predictor.N_proj)
            results = dict(zip(places, (shares, *prosody[1:]), strict=True))
        model: Any = self.module
        with forced(results), paired_noise(int(seed)):
            sound, _ = model.forward_with_tokens(tokens[None], style)
        return Rendering(sound)

    @property
    def _predictor(self) -> Any:
        return self.module.get_submodule("predictor")

    def _clip(self, number: int) -> Clip:
        model: Any = self.module
        highest = len(model.text_encoder.embedding.weight)
        drawn = torch.Generator().manual_seed(number)
        phones = torch.randint(FIRST_PHONE, highest, (RANDOM_TOKENS,), generator=drawn)
        tokens = torch.cat([torch.zeros(1, dtype=torch.long), phones, torch.zeros(1, dtype=torch.long)])
        inputs = (tokens, self._style(number), torch.tensor(number))
        predictor = self._predictor
        # As clips are rendered: recurrent layers round otherwise outside inference mode.
        with (
            torch.inference_mode(),
            noted(predictor.F0_proj) as f0,
            noted(predictor.N_proj) as loudness,
            paired_noise(number),
        ):
            sound, durations = model.forward_with_tokens(tokens[None], inputs[1])
        prosody = (found.clone() for found in (durations, f0[0], loudness[0]))
        return Clip(f"phones_{number:03}", (*inputs, *prosody), len(sound) / RATE_HZ)

    def _style(self, number: int) -> Tensor:
        path = Path(self.folder) / VOICES
        if path.is_file():
            voices = np.load(path, allow_pickle=False)
            return torch.from_numpy(voices[number % len(voices), RANDOM_TOKENS - 1][None].astype(np.float32))
        size = 2 * self._predictor.text_encoder.sty_dim
        # About the spread of a trained voice's style, so that layers that are scaled by it stay in their range.
        return torch.randn(1, size, generator=torch.Generator().manual_seed(number)) / math.sqrt(size)


def convert(source: Path, folder: Path) -> None:
    """Write a published checkpoint as safetensors; its pickles are read as tensors and nothing else.

    Raises:
        HfError: the package is not installed, or there is not one .pth.
    """
    pickles = sorted(source.glob("*.pth"))
    if len(pickles) != 1:
        raise HfError(f"{source}: {len(pickles)} files .pth; one checkpoint of Kokoro lies in a folder of its own")
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    write(_empty(settings, pickles[0]), settings, folder)
    voices = [torch.load(path, weights_only=True)[:, 0].numpy() for path in sorted((source / "voices").glob("*.pt"))]
    if voices:
        np.save(folder / VOICES, np.stack(voices))


def write(model: Any, settings: Mapping[str, Any], folder: Path) -> None:
    """Write a model and its configuration as `load` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "kokoro"}), encoding="utf-8")
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )


def _empty(settings: Mapping[str, Any], weights: Path | None = None) -> Any:
    """KModel with the weights of a file; with random ones where there is none, which it would fetch otherwise."""
    try:
        package = import_module("kokoro.model")
    except ImportError as error:
        raise HfError(f"Kokoro needs its own package; pip install kokoro ({error})") from error
    nothing = BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with warnings.catch_warnings():
        # It asks for weight norm by torch's older name, and for dropout between one layer.
        warnings.simplefilter("ignore")
        return package.KModel("local", dict(settings), weights or nothing)


def main() -> None:
    """Convert what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    convert(arguments.source, arguments.folder)
    print(arguments.folder)


if __name__ == "__main__":
    main()
