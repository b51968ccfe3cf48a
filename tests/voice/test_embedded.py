import pytest
import torch

from voice.acoustic import frame_places
from voice.checkpoint import CheckpointError
from voice.embedded import DATA, EmbeddedVoice, bundled_clips
from voice.model import Clip
from voice.phones import PHONES, index_of
from voice.sites import discover


@pytest.fixture(scope="module")
def voice() -> EmbeddedVoice:
    return EmbeddedVoice.load()


def test_weights_stay_small():
    assert (DATA / "embedded.safetensors").stat().st_size < 20_000_000


def test_a_clip_renders_to_the_length_of_its_durations_the_same_each_time(voice):
    clip = bundled_clips()[0]
    first, second = voice.render(clip).sound, voice.render(clip).sound
    assert torch.equal(first, second)
    assert len(first) == int(clip.inputs[1].sum()) * 256 == len(clip.natural)
    assert torch.isfinite(first).all()
    assert 0.05 < first.abs().max() <= 1.2


def test_text_is_spoken_with_its_own_durations(voice):
    short, long = voice.speak("Hello."), voice.speak("The quiet river crossed 2 villages, and nobody zorbed.")
    assert 0.3 * 16000 < len(short) < 2 * 16000
    assert len(long) > 2 * len(short)


def test_durations_can_be_forced(voice):
    phones = torch.tensor([index_of(phone) for phone in ("pau", "hh", "ax", "l", "ow", "pau")])
    durations = torch.tensor([4, 5, 6, 7, 20, 4])
    assert len(voice.render(Clip("forced", (phones, durations), 0.7)).sound) == 46 * 256


def test_f0_can_be_forced(voice):
    clip = bundled_clips()[0]
    phones, durations, f0_hz = clip.inputs
    raised = Clip("raised", (phones, durations, f0_hz * 1.2), clip.seconds)
    assert not torch.allclose(voice.render(clip).sound, voice.render(raised).sound, atol=1e-2)


def test_unforced_leaves_the_sentence_to_the_model(voice):
    clip = bundled_clips()[0]
    assert torch.equal(voice.render(voice.unforced(clip)).sound, voice.module(clip.inputs[0]))


def test_both_families_of_sites_are_there(voice):
    clip = bundled_clips()[0]
    found = discover(voice.module, lambda: voice.render(clip), clip.seconds)
    assert {site.op for site in found.sites} == {"linear", "conv1d", "conv_transpose1d", "matmul"}
    assert found.covered_share > 0.999
    assert len({site.name for site in found.sites}) == len(found.sites)


def test_frame_places():
    index, features = frame_places(torch.tensor([2, 0, 1]))
    assert index.tolist() == [0, 0, 2]
    assert features[:, 0].tolist() == pytest.approx([0.25, 0.75, 0.5])
    assert features[:, 1].tolist() == pytest.approx([0.75, 0.25, 0.5])


def test_phones_have_indices_and_others_are_named():
    assert len({index_of(phone) for phone in PHONES}) == len(PHONES) <= 47
    with pytest.raises(ValueError, match="'qq'"):
        index_of("qq")


def test_letters_make_known_phones(voice):
    for word in ("zorbing", "o'clock", "q"):
        assert set(voice.pronouncer.pronounce(word)) <= set(PHONES)
    with pytest.raises(ValueError, match="naïve"):
        voice.pronouncer.pronounce("naïve")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="unknown keys"):
        EmbeddedVoice.load(tmp_path / "other.safetensors")


def test_another_seed_changes_the_noise_and_nothing_that_is_forced(voice):
    clip = bundled_clips()[0]
    own, same, other = (voice.render(voice.reseeded(clip, seed)).sound for seed in (0, 0, 1))
    assert torch.equal(own, same)
    assert torch.equal(own, voice.render(clip).sound)
    assert len(other) == len(own)
    assert not torch.allclose(other, own, atol=1e-4)
    assert voice.reseeded(voice.unforced(clip), 1) is None
