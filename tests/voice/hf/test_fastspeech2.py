"""FastSpeech2-Conformer: durations, pitch and energy are forced, in one checkpoint with its vocoder or apart."""

import shutil

import pytest
import torch

from tests.voice.hf.synthesis import Synthesis
from voice.hf import vocoder
from voice.hf.base import HfError
from voice.hf.loading import load
from voice.model import Clip


@pytest.fixture(scope="module", params=["fastspeech2", "fastspeech2_apart"])
def twin(request, tmp_path_factory):
    return Synthesis.of(request.param, tmp_path_factory.mktemp("twins") / request.param)


def test_every_product_is_a_site_and_clips_are_the_same_every_time(twin):
    twin.holds()
    twin.loses_little()
    assert twin.voice.reseeded(twin.clips[0], 1) is None


def test_forced_to_its_own_values_it_says_what_it_says_by_itself(twin):
    for clip in twin.clips:
        assert torch.equal(twin.voice.render(twin.voice.unforced(clip)).sound, twin.voice.render(clip).sound)


@pytest.mark.parametrize("place", [2, 3, 4], ids=["durations", "pitch", "energy"])
def test_what_is_forced_is_what_is_heard(twin, place):
    inputs = list(twin.clips[0].inputs)
    before = twin.voice.render(twin.clips[0]).sound
    inputs[place] = inputs[place] + 1
    sound = twin.voice.render(Clip("other", tuple(inputs), 0.0)).sound
    if place > 2:
        assert sound.shape == before.shape
        assert not torch.allclose(sound, before, atol=1e-3)
    else:
        speed = twin.voice.module.model.config.speaking_speed
        frames = torch.round(inputs[2].float() * speed).sum()
        assert len(sound) == 256 * int(frames)


def test_predictors_are_protected(twin):
    hidden = {name.split(".")[1] for name in twin.sites(twin.clips[0]) if "_predictor" in name}
    assert {f"model.{name}.*" for name in hidden} == set(twin.voice.protected)


def test_a_vocoder_that_is_nowhere_is_asked_for(twin, monkeypatch, tmp_path):
    if not (twin.folder / "vocoder").is_dir():
        return

    def absent(source: str) -> None:
        raise HfError(f"{source}: not in the cache")

    folder = tmp_path / "alone"
    shutil.copytree(twin.folder, folder, ignore=shutil.ignore_patterns("vocoder"))
    monkeypatch.setattr(vocoder, "folder_of", absent)
    with pytest.raises(HfError, match=r"its vocoder is not there: put one into .*vocoder \(espnet/fastspeech2_conf"):
        load(str(folder))
