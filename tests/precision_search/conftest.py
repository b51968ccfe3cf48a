"""A study small enough to run in seconds: a random HiFi-GAN of 16 channels and recordings of a chirp in noise."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import save_file

from precision_search.lowering import Asked, choose
from voice.hifigan import Generator, read_config

CONFIG = {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}

RECIPE = """
version: 1
name: tiny
model: {{name: hifigan, checkpoint: {folder}/tiny.safetensors}}
target: {{device: p150a}}
data: {{search: 2, held_back: 2, audio: {folder}/wavs}}
calibrate: {{method: amax}}
schemes:
  bf16: {{weight: bf16, activation: bf16, fidelity: hifi4}}
  lofi: {{weight: bfp8_b, activation: bf16, fidelity: lofi, levers: [fidelity_rounding]}}
  bold: {{weight: bfp4_b, activation: bfp8_b, fidelity: lofi}}
baseline: bf16
space: [{{match: "*", allow: [bf16, lofi, bold]}}]
gates:
  - {{metric: lsd_db, max: 3.0}}
  - {{metric: group_delay_rad, max: 0.2}}
  - {{metric: finite, over: worst, min: 1.0}}
  - {{metric: length_samples, over: worst, max: 0}}
search: {{minimize: seconds, candidates: 3, evaluations: 12, seed: 0}}
"""


@dataclass(frozen=True)
class Tiny:
    """Where the pieces of the small study lie."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "tiny.safetensors"

    @property
    def wavs(self) -> Path:
        return self.folder / "wavs"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    generator = Generator(read_config(folder / "config.json"))
    for name, parameter in generator.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    save_file(generator.state_dict(), folder / "tiny.safetensors")
    (folder / "wavs").mkdir()
    draw = np.random.default_rng(0)
    time = np.arange(22050) / 22050
    for number in range(4):
        chirp = 0.3 * np.sin(2 * np.pi * (150 + 40 * number + 200 * time) * time * np.exp(-time))
        soundfile.write(folder / "wavs" / f"clip{number}.wav", chirp + 0.01 * draw.standard_normal(22050), 22050)
    (folder / "tiny.yaml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture
def tiny(made: Path) -> Tiny:
    return Tiny(made)


@pytest.fixture(scope="module")
def mock_cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mock cards of these tests' own; set up once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def study(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder as a run leaves it, as far as lowering reads it: LoFi, and the baseline at both ends."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    folder.mkdir()
    (folder / "recipe.yaml").write_text((made / "tiny.yaml").read_text())
    sites = [site.name for site in choose(Asked(str(made / "tiny.yaml"))).setting.sites]
    policy = {site: "bf16" if site.startswith("conv_") else "lofi" for site in sites}
    (folder / "policy.yaml").write_text(yaml.safe_dump({"sites": policy}))
    return folder
