"""Vocoders alone: frames of recordings to sound, and noise where the model draws it."""

import pytest
import torch

from tests.voice.hf.synthesis import Synthesis
from voice.hf.base import HfError


@pytest.fixture(scope="module", params=["speecht5_hifigan", "univnet"])
def twin(request, tmp_path_factory):
    return Synthesis.of(request.param, tmp_path_factory.mktemp("twins") / request.param, recorded=True)


def test_every_product_is_a_site_and_clips_are_the_same_every_time(twin):
    twin.holds()
    twin.loses_little()
    assert not twin.voice.protected


def test_clips_are_the_recordings_in_whole_frames(twin):
    for clip, recording in zip(twin.clips, twin.recordings, strict=True):
        assert clip.name == recording.name
        assert len(clip.natural) == 256 * len(clip.inputs[0])
        assert len(recording.samples) - len(clip.natural) < 256
        loud = torch.tensor(clip.natural).view(-1, 256).square().mean(1).log10()
        levels = clip.inputs[0].mean(1)
        assert torch.corrcoef(torch.stack([loud, levels]))[0, 1] > 0.7, "frames follow the sound"
    with pytest.raises(HfError, match="there are 2 for 3 clips"):
        twin.voice.clips(3, twin.recordings)


def test_noise_is_an_input_of_the_model_that_takes_it(twin):
    clip = twin.clips[0]
    other = twin.voice.reseeded(clip, 5)
    if len(clip.inputs) == 1:
        assert other is None
        return
    assert torch.equal(other.inputs[0], clip.inputs[0])
    assert not torch.allclose(twin.voice.render(other).sound, twin.voice.render(clip).sound, atol=1e-3)


def test_frames_are_those_of_the_extractor_of_transformers(twin):
    if len(twin.clips[0].inputs) > 1:
        return  # UnivNet's extractor is used as it is
    transformers = pytest.importorskip("transformers")
    extractor = transformers.SpeechT5FeatureExtractor(num_mel_bins=20)
    theirs = extractor(audio_target=twin.clips[0].natural, sampling_rate=16000, return_tensors="pt").input_values[0]
    ours = twin.clips[0].inputs[0]
    torch.testing.assert_close(ours, theirs[: len(ours)], rtol=0, atol=1e-4)
