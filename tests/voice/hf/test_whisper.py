"""Whisper and Moonshine: the same text as transformers' own generation writes, every step forced."""

import shutil

import pytest
import torch

from tests.voice.hf.listeners import check_forcing, check_hearing, check_sites, recordings
from voice.hf.base import HfError
from voice.hf.loading import load
from voice.hf.twins import build

HEADS = {"whisper": "proj_out", "moonshine": "proj_out"}


@pytest.fixture(scope="module", params=HEADS)
def voice(request, tmp_path_factory):
    return load(str(build(request.param, tmp_path_factory.mktemp("hf") / request.param)))


@pytest.fixture(scope="module")
def clips(voice):
    return voice.clips(2, recordings(16000, 1.7, 0.9, 1.0))


def test_every_step_is_forced(voice, clips):
    assert voice.family == "understanding"
    assert voice.sample_rate_hz == 16000
    assert [clip.name for clip in clips] == ["recording0", "recording1"]
    assert [clip.seconds for clip in clips] == [1.7, 0.9]
    check_forcing(voice, clips[0])
    check_hearing(voice, clips)


def test_all_of_it_is_sites_and_the_tied_head_is_one(voice, clips):
    model = voice.module.model
    assert voice.module.proj_out.weight is model.decoder.embed_tokens.weight
    names = [site.name for site in check_sites(voice, clips, HEADS[voice.name]).sites]
    assert "model.decoder.layers.1.encoder_attn.k_proj" in names
    assert "model.encoder.layers.0.self_attn#qk" in names
    assert voice.protected == {}


def test_it_writes_what_the_generation_of_transformers_writes(voice, clips):
    from transformers import GenerationMixin

    sound, prompt, tokens = clips[1].inputs
    # Not Whisper's own, which goes over a recording piece by piece.
    made = {"decoder_input_ids": prompt[None], "max_new_tokens": len(tokens), "do_sample": False}
    theirs = GenerationMixin.generate(voice.module, sound, **made)[0]
    assert theirs[-len(tokens) :].tolist() == tokens.tolist()
    assert voice.render(clips[1]).waveform is None


def test_fewer_recordings_than_clips_are_refused(voice):
    with pytest.raises(HfError, match="3 clips need as many recordings, and there are 2"):
        voice.clips(3, recordings(16000, 1.0, 1.0))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return load(str(build("whisper", tmp_path_factory.mktemp("hf") / "whisper")))


def test_whisper_hears_what_its_encoder_takes_and_no_more(whisper):
    long, short = whisper.clips(2, recordings(16000, 3.0, 0.5))
    assert (long.seconds, short.seconds) == (2.0, 0.5)
    assert long.inputs[0].shape == short.inputs[0].shape == (1, 80, 200)


def test_the_prompt_says_language_task_and_no_times(whisper, monkeypatch):
    (recording,) = recordings(16000, 1.0)
    sound, prompt = whisper.heard(recording)
    said = whisper.module.generation_config
    assert prompt[0] == 3
    assert prompt[1] in (4, 5, 6)
    assert prompt[2:].tolist() == [7, 9]
    assert prompt[1] == whisper.module.detect_language(sound)[0]
    for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id"):
        monkeypatch.delattr(said, name)
    assert whisper.heard(recording)[1].tolist() == [3]


def test_what_the_checkpoint_suppresses_is_never_written(whisper, monkeypatch):
    said = whisper.module.generation_config
    logits = torch.arange(200.0)
    assert whisper.chosen(logits, 1) == 199
    monkeypatch.setattr(said, "suppress_tokens", [199, 198])
    monkeypatch.setattr(said, "begin_suppress_tokens", [197])
    assert whisper.chosen(logits, 1) == 197
    assert whisper.chosen(logits, 0) == 196
    monkeypatch.setattr(said, "suppress_tokens", None)
    monkeypatch.setattr(said, "begin_suppress_tokens", None)
    assert whisper.chosen(logits, 0) == 199


def test_an_answer_ends_where_the_model_ends_it(whisper, monkeypatch):
    (recording,) = recordings(16000, 1.0)
    tokens = whisper.clips(1, [recording])[0].inputs[-1].tolist()
    for end in (tokens[4], [tokens[4], 1]):
        monkeypatch.setattr(whisper.module.generation_config, "eos_token_id", end)
        shorter = whisper.clips(1, [recording])[0].inputs[-1].tolist()
        assert shorter == tokens[: tokens.index(tokens[4]) + 1]
    monkeypatch.setattr(whisper.module.generation_config, "eos_token_id", None)
    assert len(whisper.clips(1, [recording])[0].inputs[-1]) == 16


def test_a_feature_extractor_beside_the_weights_is_used(whisper, tmp_path):
    from transformers import WhisperFeatureExtractor

    folder = shutil.copytree(whisper.folder, tmp_path / "whisper")
    WhisperFeatureExtractor(feature_size=80, chunk_length=2, n_fft=512).save_pretrained(folder)
    assert load(str(folder)).extractor.n_fft == 512
    assert whisper.extractor.n_fft == 400
