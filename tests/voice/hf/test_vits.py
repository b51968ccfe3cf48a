"""VITS and MMS-TTS: durations are forced and noise is the seed's, over the model of transformers as it is."""

import json

import pytest
import torch

from tests.voice.hf.synthesis import Synthesis
from voice.model import Clip


@pytest.fixture(scope="module", params=["mms_tts", "vits"])
def twin(request, tmp_path_factory):
    return Synthesis.of(request.param, tmp_path_factory.mktemp("twins") / request.param)


def test_every_product_is_a_site_and_clips_are_the_same_every_time(twin):
    twin.holds()
    twin.loses_little()


def test_forced_to_its_own_durations_it_says_what_it_says_by_itself(twin):
    for clip in twin.clips:
        assert torch.equal(twin.voice.render(twin.voice.unforced(clip)).sound, twin.voice.render(clip).sound)


def test_sound_is_as_long_as_the_durations_that_are_forced(twin):
    tokens, speaker, seed, durations = twin.clips[0].inputs
    frames = torch.arange(len(durations)) % 3 + 1
    sound = twin.voice.render(Clip("other", (tokens, speaker, seed, frames), 0.0)).sound
    assert len(sound) == 256 * int(frames.sum())


def test_another_seed_is_other_noise_under_the_same_durations(twin):
    clip = twin.clips[0]
    other = twin.voice.reseeded(clip, 77)
    assert torch.equal(other.inputs[3], clip.inputs[3])
    first, second = (twin.voice.render(one).sound for one in (clip, other))
    assert first.shape == second.shape
    assert (first - second).square().mean() > 0.1 * first.square().mean()
    # Durations draw noise, too, where they are stochastic; a plain predictor draws none.
    free = twin.voice.render(twin.voice.unforced(other)).sound
    stochastic = twin.voice.module.config.use_stochastic_duration_prediction
    assert (len(free) == len(first)) is not stochastic


def test_speakers_take_turns(twin):
    tokens, speaker, *rest = twin.clips[1].inputs
    several = twin.voice.module.config.num_speakers > 1
    assert int(speaker) == (1 if several else 0)
    if several:
        other = Clip("other", (tokens, torch.tensor(2), *rest), 0.0)
        assert not torch.allclose(twin.voice.render(other).sound, twin.voice.render(twin.clips[1]).sound, atol=1e-3)


def test_sentences_are_read_by_the_tokenizer_beside_the_weights(twin):
    letters = "abcdefghijklmnopqrstuvwxyz' "
    vocabulary = {"<pad>": 0, "<unk>": 1} | {letter: number + 2 for number, letter in enumerate(letters)}
    written = [twin.folder / name for name in ("vocab.json", "tokenizer_config.json")]
    written[0].write_text(json.dumps(vocabulary))
    written[1].write_text(json.dumps({"tokenizer_class": "VitsTokenizer", "phonemize": False, "add_blank": True}))
    try:
        (clip,) = twin.voice.clips(1)
        written[0].write_text(json.dumps({"<pad>": 0, "<unk>": 1, "щ": 2}))
        with pytest.warns(
            UserWarning, match="random tokens and no sentences: it makes . tokens of an English sentence"
        ):
            (other,) = twin.voice.clips(1)
    finally:
        for file in written:
            file.unlink()
    said = "".join(letters[token - 2] for token in clip.inputs[0][1::2].tolist())
    assert said == "what do you think of the loud serfs after our computer"
    assert torch.equal(other.inputs[0], twin.clips[0].inputs[0])
