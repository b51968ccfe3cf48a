"""Qwen2.5-Omni: the text, codes and sound that transformers' own generation makes, with everything forced."""

import json
import shutil

import pytest
import torch

from tests.voice.hf.listeners import found_in, recordings
from voice.hf import qwen_omni
from voice.hf.base import HfError
from voice.hf.loading import load
from voice.hf.twins import build
from voice.model import Clip
from voice.noise import paired_noise

CODES = 30
"""Fewer than in use: what is tested does not depend on how much is said."""


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qwen_omni, "LONGEST_CODES", CODES)
        yield


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return load(str(build("qwen2_5_omni", tmp_path_factory.mktemp("hf") / "qwen2_5_omni")))


@pytest.fixture(scope="module")
def clip(voice):
    return voice.clips(1, recordings(24000, 1.1))[0]


@pytest.fixture(scope="module")
def rendered(voice, clip):
    return voice.render(clip)


def test_text_codes_and_noise_are_forced(voice, clip, rendered):
    text, codes = clip.inputs[-2:]
    assert voice.family == "autoregressive"
    assert voice.sample_rate_hz == 24000
    assert len(rendered.sound) == clip.seconds * 24000 == len(codes) * 480
    assert 0.1 < rendered.sound.abs().max() < 0.9
    assert rendered.logits["text"].shape == (len(text), 200)
    assert rendered.logits["text"].argmax(1).tolist() == text.tolist()
    assert rendered.logits["audio.0"].shape == (len(codes), 80)
    assert 0.1 < rendered.logits["audio.0"].softmax(1).amax(1).mean() < 0.95
    again = voice.render(clip)
    assert torch.equal(again.sound, rendered.sound)


def test_what_is_left_to_it_is_what_was_forced(voice, clip, rendered):
    free = voice.unforced(clip)
    assert len(free.inputs) == len(clip.inputs) - 2
    found = voice.render(free)
    torch.testing.assert_close(found.logits["text"], rendered.logits["text"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits["audio.0"], rendered.logits["audio.0"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.sound, rendered.sound, rtol=1e-3, atol=1e-3)


def test_other_noise_gives_another_sound_of_the_same_codes(voice, clip, rendered):
    other = voice.reseeded(clip, 5)
    assert [torch.equal(*pair) for pair in zip(clip.inputs, other.inputs, strict=True)] == [True] * 3 + [False] + [
        True
    ] * 2
    found = voice.render(other)
    assert torch.equal(found.logits["audio.0"], rendered.logits["audio.0"])
    assert found.sound.shape == rendered.sound.shape
    assert (found.sound - rendered.sound).abs().max() > 0.01


def test_forced_codes_decide_what_is_heard_and_the_end_is_silent(voice, clip, rendered):
    codes = clip.inputs[-1]
    ended = torch.cat([codes[:10], torch.tensor([voice.module.talker.codec_eos_token])])
    found = voice.render(Clip(clip.name, (*clip.inputs[:-1], ended), clip.seconds))
    assert len(found.sound) == 10 * 480
    assert found.logits["audio.0"].shape[0] == 11
    torch.testing.assert_close(found.logits["audio.0"], rendered.logits["audio.0"][:11])


def test_it_makes_what_the_generation_of_transformers_makes(voice, clip, rendered):
    features, mask, prompt, _, text, codes = clip.inputs
    talker = voice.module.talker
    with paired_noise(0):
        ids, sound = voice.module.generate(
            input_ids=prompt[None],
            input_features=features,
            feature_attention_mask=mask,
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            thinker_max_new_tokens=len(text),
            thinker_do_sample=False,
            talker_max_new_tokens=len(codes),
            talker_do_sample=False,
            talker_top_k=None,
            talker_top_p=None,
            talker_temperature=None,
            talker_eos_token_id=[talker.codec_pad_token, talker.codec_eos_token],
        )
    assert ids[0, len(prompt) :].tolist() == text.tolist()
    # Their state of positions would be seen by later forwards.
    voice.module.thinker.model.rope_deltas = None
    torch.testing.assert_close(sound, rendered.sound, rtol=1e-3, atol=1e-3)


def test_all_of_it_is_sites_and_what_is_fragile_is_among_them(voice, clip):
    found = found_in(voice, clip)
    names = {site.name for site in found.sites}
    assert found.covered_share >= 0.99, found.uncovered
    for part in ("thinker.model.audio_tower", "thinker.lm_head", "talker.codec_head", "token2wav.code2wav_dit_model"):
        assert any(name.startswith(part) for name in names)
    from fnmatch import fnmatchcase

    for pattern in voice.protected:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_an_answer_is_never_empty(voice):
    logits = torch.zeros(200)
    logits[2], logits[7] = 2.0, 1.0
    assert voice.stops() == {2}
    assert voice.chosen(logits, 0) == 7
    assert voice.chosen(logits, 1) == 2


def test_a_checkpoint_without_voices_or_without_sound_is_refused(voice, tmp_path):
    folder = shutil.copytree(voice.folder, tmp_path / "omni")
    (folder / "spk_dict.pt").unlink()
    with pytest.raises(HfError, match=r"spk_dict\.pt is missing, which holds the voices"):
        load(str(folder))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"enable_audio_output": False}))
    with pytest.raises(HfError, match="makes no sound"):
        load(str(folder))
