"""SpeechT5: each step is forced to the reference's frames, in one forward, and says whether it would stop."""

import numpy as np
import pytest
import torch

from tests.voice.hf.synthesis import Synthesis
from voice.hf.base import HfError
from voice.model import Clip


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return Synthesis.of("speecht5", tmp_path_factory.mktemp("twins") / "speecht5")


def test_every_product_is_a_site_and_clips_are_the_same_every_time(twin):
    twin.holds()
    twin.loses_little()
    assert set(twin.voice.protected) < twin.sites(twin.clips[0])


def test_without_dropout_one_forward_says_what_the_loop_of_transformers_says(twin, monkeypatch):
    prenet = twin.voice.module.model.speecht5.decoder.prenet
    monkeypatch.setattr(prenet, "_consistent_dropout", lambda x, _: x)
    (clip,) = twin.voice.clips(1)
    loop = twin.voice.render(twin.voice.unforced(clip))
    forced = twin.voice.render(clip)
    torch.testing.assert_close(forced.sound, loop.sound, rtol=0, atol=1e-4)
    assert not loop.logits
    stops = forced.logits["text.stop"].softmax(1)[:, 1].view(-1, 2).sum(1) >= 0.5
    assert stops.tolist() == [False] * (len(stops) - 1) + [True], "it stops where the loop stopped, and not before"


def test_the_decoder_runs_once_and_every_step_depends_on_frames_before_it_alone(twin):
    clip = twin.clips[0]
    calls = []
    handle = twin.voice.module.model.speecht5.decoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        before = twin.voice.render(clip).logits["text.stop"]
    finally:
        handle.remove()
    assert len(calls) == 1
    *rest, frames = clip.inputs
    assert before.shape == (2 * len(frames), 2)
    place = len(frames) // 2
    other = frames.clone()
    other[place] += 1
    after = twin.voice.render(Clip("other", (*rest, other), 0.0)).logits["text.stop"]
    torch.testing.assert_close(after[: 2 * place], before[: 2 * place], rtol=0, atol=1e-5)
    assert not torch.allclose(after[2 * place :], before[2 * place :], atol=1e-3)


def test_another_seed_is_other_dropout_under_the_same_frames(twin):
    clip = twin.clips[0]
    other = twin.voice.reseeded(clip, 9)
    assert torch.equal(other.inputs[3], clip.inputs[3])
    sounds = [twin.voice.render(one).sound for one in (clip, other)]
    assert sounds[0].shape == sounds[1].shape
    assert not torch.allclose(*sounds, atol=1e-3)


def test_speakers_are_those_of_the_file_beside_the_weights(twin):
    path = twin.folder / "speakers.npy"
    given = np.eye(3, 16, dtype=np.float32)
    try:
        np.save(path, given)
        first, second = twin.voice.clips(2)
        np.save(path, given[:, :9])
        with pytest.raises(HfError, match=r"holds \(3, 9\); give embeddings \[speakers, 16\]"):
            twin.voice.clips(1)
    finally:
        path.unlink()
    assert torch.equal(torch.stack([first.inputs[1], second.inputs[1]]), torch.from_numpy(given[:2]))
    assert not torch.equal(twin.clips[0].inputs[1], first.inputs[1])
