"""Modules as people bring them: computed weights, outputs of any shape, noise; and what is said of mistakes."""

import pickle
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from voice.folding import fold_parametrizations
from voice.model import Clip
from voice.sites import discover
from voice.torch_module import TorchModuleError, TorchVoice

RATE = 8000
MEL = torch.randn(1, 8, 50, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(1, 8, 30, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Mel to sound with every way of keeping a weight, and products that no module does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv1d(8, 16, 3, padding=1))
        self.spectral = parametrizations.spectral_norm(nn.Linear(16, 16))
        self.pruned = nn.Conv1d(16, 16, 3, padding=1)
        prune.random_unstructured(self.pruned, "weight", 0.5)
        self.shared = nn.Linear(16, 16)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.shared.weight
        self.kernel = nn.Parameter(torch.randn(4, 16) * 0.1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.pruned(F.leaky_relu(self.first(mel))).mT
        x = self.dropout(self.again(self.shared(self.spectral(x))))
        x = x + F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        x = torch.einsum("btc,kc->btk", x, self.kernel)
        return torch.tanh(x.flatten(1))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, mel: Tensor, gain: Tensor) -> Tensor:
        mel += 0.1  # writes to what it was given
        return (self.layer(mel.mT + torch.randn_like(mel.mT)) * gain).reshape(1, 1, -1)


def made(module: nn.Module, *examples: Any, **changed: Any) -> tuple[TorchVoice, tuple[Clip, ...]]:
    told = {"name": "mine", "family": "vocoder", "sample_rate_hz": RATE}
    return TorchVoice.of(module, examples or (MEL,), **(told | changed))


def small() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_are_computed_are_folded_and_sound_as_before():
    module = small()
    module.old = torch.nn.utils.weight_norm(nn.Linear(4, 4))
    module.older = torch.nn.utils.spectral_norm(nn.Linear(4, 4))
    module.eval()
    x = torch.ones(2, 4)
    before, old = module(MEL), module.older(module.old(x))
    fold_parametrizations(module)
    assert sorted(name for name, _ in module.named_parameters() if name.endswith("weight")) == [
        f"{name}.weight" for name in ("first", "old", "older", "pruned", "shared", "spectral")
    ]
    assert not any("original" in name or "mask" in name or "weight_" in name for name in module.state_dict())
    torch.testing.assert_close(module(MEL), before)
    torch.testing.assert_close(module.older(module.old(x)), old)
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(MEL), before)


def test_a_module_is_a_voice_whose_sites_are_all_it_multiplies():
    voice, (one, other) = made(small(), MEL, (OTHER,))
    assert (one.seconds, other.seconds) == (200 / RATE, 120 / RATE)
    found = discover(voice.module, lambda: voice.render(one), one.seconds)
    assert found.covered_share == 1.0
    assert [(site.name, site.op) for site in found.sites] == [
        ("first", "conv1d"),
        ("pruned", "conv1d"),
        ("spectral", "linear"),
        ("shared", "linear"),
        ("#qk", "matmul"),
        ("#pv", "matmul"),
        ("#kernel", "linear"),
    ]
    assert found.sites[3].rows_per_second == 2 * found.sites[2].rows_per_second, "both layers of a shared weight"
    sound = voice.render(one).sound
    assert sound.shape == (200,)
    assert torch.equal(sound, voice.render(one).sound)
    assert not voice.module.training
    assert not sound.requires_grad
    assert voice.reseeded(one, 3) is None
    assert voice.unforced(one) is None


def test_other_types_become_fp32():
    voice, (clip,) = made(nn.Sequential(nn.Conv1d(8, 1, 1)).to(torch.bfloat16))
    assert voice.render(clip).sound.dtype == torch.float32


def test_noise_is_the_clips():
    examples = [{"mel": MEL, "gain": torch.tensor(0.5)}, {"gain": torch.tensor(0.5), "mel": MEL}]
    voice, (one, other) = made(Noisy(), *examples)
    assert voice.draws
    assert voice.keywords == ("gain", "mel")
    assert torch.equal(voice.render(one).sound, voice.render(one).sound)
    assert not torch.equal(voice.render(one).sound, voice.render(other).sound), "a seed each"
    again = voice.reseeded(one, 1)
    assert again is not None
    assert torch.equal(voice.render(again).sound, voice.render(other).sound)
    torch.testing.assert_close(MEL, torch.randn(1, 8, 50, generator=torch.Generator().manual_seed(0)))


@dataclass
class Found:
    wave: Tensor
    logits: list[Tensor]


class Pair(NamedTuple):
    wave: Tensor
    logits: Tensor


class Several(nn.Module):
    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)
        self.shape = shape

    def forward(self, mel: Tensor) -> Any:
        x = self.layer(mel.mT)
        return self.shape(x.reshape(1, -1), x)


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        (lambda wave, x: (wave, x), {"sound": "0", "text": "1"}),
        (lambda wave, x: [x, (wave,)], {"sound": "-1.0", "text": "0"}),
        (lambda wave, x: {"wave": wave, "heads": {3: x}}, {"sound": "wave", "text": "heads.3"}),
        (lambda wave, x: Found(wave, [x[0]]), {"sound": "wave", "text": "logits.0"}),
        (Pair, {"sound": "wave", "text": "1"}),
    ],
)
def test_sound_and_logits_are_found_where_they_stand(shape, outputs):
    voice, (clip,) = made(Several(shape), outputs=outputs, family="autoregressive")
    rendered = voice.render(clip)
    assert rendered.sound.shape == (250,)
    assert rendered.logits["text"].shape == (50, 5)
    assert torch.equal(rendered.logits["text"].reshape(-1), rendered.sound)


def test_a_model_that_only_listens_has_clips_of_its_own():
    clip = Clip("spoken", (MEL,), 1.5, np.zeros(12000, np.float32))
    voice, clips = made(Several(lambda wave, x: (x,)), clip, outputs={"text": "0"}, family="understanding")
    assert clips == (clip,)
    assert voice.render(clip).waveform is None
    with pytest.raises(TorchModuleError, match=r"how many seconds clip 0 lasts.* give voice.model.Clip"):
        made(Several(lambda wave, x: (x,)), outputs={"text": "0"})


@pytest.mark.parametrize(
    ("module", "examples", "outputs", "said"),
    [
        (Several(lambda w, x: (w, x)), (MEL,), {}, "outputs: the module gives a tuple of 2; say which part"),
        (Several(lambda w, x: {"a": w}), (MEL,), {"sound": "b.c"}, "outputs.sound: b of b.c is not in a dict with the"),
        (Several(Found), (MEL,), {"sound": "sound"}, "sound of sound is not in a Found with wave, logits"),
        (Several(lambda w, x: (w,)), (MEL,), {"sound": "2"}, "outputs.sound: 2 of 2 is not in a tuple of 1"),
        (Several(lambda w, x: x), (MEL,), {}, "outputs: gives a tensor [1, 50, 5] of float32, and sound must be"),
        (Several(lambda w, x: w.long()), (MEL,), {}, "a tensor [1, 250] of int64, and sound must be floating point"),
        (Several(lambda w, x: (w, w[0])), (MEL,), {"sound": "0", "text": "1"}, "outputs.text: gives a tensor [250] of"),
        (small(), (MEL, {"mel": MEL}), {}, "inputs: clip 1 names mel, and clip 0 nothing; all clips must name"),
        (small(), ((MEL, 0.5),), {}, "inputs: clip 0 must be tensors, by place or by name: 1 is a float"),
    ],
)
def test_what_is_wrong_is_said(module, examples, outputs, said):
    with pytest.raises(TorchModuleError, match=re.escape(said)):
        made(module, *examples, outputs=outputs)
    with pytest.raises(TorchModuleError, match="there are no clips"):
        TorchVoice.of(module, (), name="mine", family="vocoder", sample_rate_hz=RATE)
