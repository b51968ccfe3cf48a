"""HiFi-GAN: shapes, weight norm, configs, and where they are at hand the released weights on real speech."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from voice.checkpoint import CheckpointError, content_digest
from voice.hifigan import V1, V2, V3, Generator, HifiganConfig, HifiganVoice, fold_weight_norm, read_config
from voice.mel import MelConfig, log_mel
from voice.sites import discover

torch.set_num_threads(1)

VOICES = Path(__file__).parents[2].parent / "shared" / "voices"
TINY = replace(
    V2, channels=16, rates=(4, 4), kernels=(8, 8), mel=MelConfig(16000, 8, 64, 16, 64), block_kernels=(3, 5, 7)
)
JSON = {
    "resblock": "1",
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "num_mels": 8,
    "n_fft": 64,
    "hop_size": 16,
    "win_size": 64,
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
    "segment_size": 8192,
}


def tiny(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return Generator(TINY).eval()


def normed(generator: Generator) -> dict[str, torch.Tensor]:
    """The state dict of a released checkpoint, weight norm in place."""
    state = {}
    for name, tensor in generator.state_dict().items():
        if name.endswith(".weight"):
            layer = name.removesuffix("weight")
            state[layer + "weight_g"] = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            state[layer + "weight_v"] = tensor * 3.0
        else:
            state[name] = tensor
    return state


def speech(samples: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(samples) * 0.1).astype(np.float32)


@pytest.mark.parametrize(("config", "parameters"), [(V1, 13.92e6), (V2, 0.92e6), (V3, 1.46e6)])
def test_parameter_counts_of_the_paper(config: HifiganConfig, parameters: float) -> None:
    with torch.device("meta"):
        generator = Generator(config)
    # Table 1 of the paper, in millions with two digits.
    assert sum(weight.numel() for weight in generator.parameters()) == pytest.approx(parameters, abs=0.01e6)


def test_a_checkpoint_with_weight_norm_renders_as_the_module_it_was(tmp_path: Path) -> None:
    generator = tiny()
    torch.save({"generator": normed(generator)}, tmp_path / "g.pt")
    (tmp_path / "config.json").write_text(json.dumps(JSON))
    voice = HifiganVoice.load(tmp_path / "g.pt")
    assert voice.config == TINY
    clip = voice.clip("a", speech(1003), 16000)
    out = voice.render(clip).sound
    assert out.shape == (992,)
    assert out.dtype == torch.float32
    assert clip.natural is not None
    assert clip.natural.shape == (992,)
    assert clip.seconds == 992 / 16000
    with torch.inference_mode():
        torch.testing.assert_close(out, generator(log_mel(torch.from_numpy(speech(1003)[:992])[None], TINY.mel))[0, 0])
    assert torch.equal(out, voice.render(clip).sound)
    assert out.abs().max() <= 1.0


def test_both_spellings_of_weight_norm_fold_as_torch_removes_it() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 4, 5))
    state = dict(layer.state_dict())
    folded = fold_weight_norm(state)
    torch.testing.assert_close(folded, {"bias": layer.bias.detach(), "weight": layer.weight.detach()})
    old = {"bias": state["bias"]} | {
        f"weight_{letter}": state[f"parametrizations.weight.original{index}"] for index, letter in enumerate("gv")
    }
    torch.testing.assert_close(fold_weight_norm(old), folded)


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = normed(tiny())
    del state["ups.0.weight_v"]
    state["conv_pre.weight_g"] = torch.ones(3)
    state["resblocks.0.convs1.0.weight_v"] = torch.zeros_like(state["resblocks.0.convs1.0.weight_v"])
    path = tmp_path / "g.pt"
    torch.save(state, path)
    (tmp_path / "tiny.json").write_text(json.dumps(JSON))
    with pytest.raises(CheckpointError) as caught:
        HifiganVoice.load(path, config=tmp_path / "tiny.json")
    assert "missing keys: conv_pre.weight, ups.0.weight; " in str(caught.value)
    assert "ups.0.weight_g" in str(caught.value)
    assert "weights with NaN or Inf: resblocks.0.convs1.0.weight" in str(caught.value)


def test_without_a_config_it_is_v2(tmp_path: Path) -> None:
    torch.save(Generator(V2).state_dict(), tmp_path / "g.pt")
    assert HifiganVoice.load(tmp_path / "g.pt").config == V2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upsample_rates": [4, 2]}, "multiply to the hop"),
        ({"upsample_kernel_sizes": [8]}, "one kernel an upsampling"),
        ({"upsample_kernel_sizes": [8, 7]}, "even numbers"),
        ({"upsample_initial_channel": 18}, "cannot be halved"),
        ({"upsample_rates": "many"}, "no HiFi-GAN config"),
        ({"sampling_rate": None}, "no HiFi-GAN config"),
    ],
)
def test_configs_that_make_no_generator(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(JSON | change))
    with pytest.raises(CheckpointError, match=message):
        read_config(path)


def test_unreadable_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, message in (("{", "no readable JSON"), ("[]", "no HiFi-GAN config"), ("{}", "upsample_initial_channel")):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_config(path)
    with pytest.raises(CheckpointError, match="no readable JSON"):
        read_config(tmp_path / "none.json")


def test_audio_that_makes_no_clip() -> None:
    voice = HifiganVoice(TINY, tiny())
    bad = speech(200)
    bad[3] = np.nan
    for samples, rate, message in (
        (speech(200), 22050, "resample"),
        (speech(60), 16000, "too short"),
        (speech(200).reshape(2, 100), 16000, "one channel"),
        (bad, 16000, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            voice.clip("a", samples, rate)


def test_single_blocks_and_sites() -> None:
    voice = HifiganVoice(replace(TINY, paired=False), Generator(replace(TINY, paired=False)))
    clip = voice.clip("a", speech(320), 16000)
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert len(found.sites) == 1 + 2 + 2 * 9 + 1
    assert found.covered_share == 1.0
    assert found.sites[1].rows_per_second == 1000.0
    assert found.sites[-1].rows_per_second == 16000.0


@pytest.mark.skipif(not VOICES.is_dir(), reason="no folder of released voices beside the checkout")
def test_the_released_v2_checkpoint_resynthesises_real_speech() -> None:
    folder = VOICES / "hifigan_v2_ljspeech"
    voice = HifiganVoice.load(folder / "generator_v2.pt")
    assert voice.config == V2
    samples, rate = soundfile.read(VOICES / "ljspeech" / "LJ001-0001.wav", dtype="float32")
    clip = voice.clip("LJ001-0001", samples[: 2 * rate], rate)
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert len(found.sites) == 78
    assert found.covered_share == 1.0
    out = voice.render(clip).sound
    assert clip.natural is not None
    assert out.shape == clip.natural.shape
    distance = (log_mel(out[None], V2.mel) - log_mel(torch.from_numpy(clip.natural)[None], V2.mel)).abs().mean()
    # Trained generators of this size lie near 0.3 in nepers; an untrained one, or a wrong front end, beyond 1.
    assert distance < 0.45
    assert len(content_digest(voice.module.state_dict())) == 16
