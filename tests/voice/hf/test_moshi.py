"""Moshi: as transformers computes it, with a layer of each codebook, and its own tokens step by step."""

import numpy as np
import pytest
import torch

from tests.voice.hf.speaking import Speaking
from voice.hf.base import Recording


@pytest.fixture(scope="module")
def moshi(tmp_path_factory):
    return Speaking.of("moshi", tmp_path_factory.mktemp("moshi"))


def test_everything_is_forced_and_every_product_is_a_site(moshi):
    moshi.holds("model.depth_decoder.lm_heads.2", "audio.2")
    user, rows = moshi.clips[0].inputs
    assert moshi.clips[0].seconds == (rows.shape[1] - 1) / 12.5
    assert moshi.agrees("text", rows[0])
    assert moshi.agrees("audio.0", rows[1, :-1])
    for book in range(1, len(user)):
        assert moshi.agrees(f"audio.{book}", rows[1 + book, 1:])


def test_each_codebook_has_a_layer_of_its_own(moshi):
    sites = {site.name: site for site in moshi.found.sites}
    layers = [f"model.depth_decoder.layers.{layer}" for layer in range(2)]
    stacked = ["self_attn.q_proj.linear", "self_attn.o_proj.linear", "mlp.fc1", "mlp.fc2"]
    names = [f"{layer}.{name}.{book}" for layer in layers for name in stacked for book in range(4)]
    assert set(names) <= sites.keys()
    assert {sites[name].rows_per_second for name in names} == {13.0}  # 26 rows in two seconds
    shapes = [site.weight_shape for site in sites.values() if site.name.startswith("model.depth_decoder.")]
    weights = sum(torch.Size(shape).numel() for shape in shapes if shape)
    theirs = moshi.theirs.depth_decoder
    assert weights == sum(weight.numel() for weight in theirs.parameters() if weight.ndim == 3)


def test_logits_are_those_of_transformers(moshi):
    user, rows = moshi.clips[0].inputs
    logits = moshi.voice.render(moshi.clips[0]).logits
    model, own = moshi.theirs, moshi.voice.module
    none = torch.full((4, 2), own.none)
    with torch.inference_mode():
        heard = torch.cat([torch.cat([none[:1, :1], user[:1, :25]], 1), torch.cat([none[1:], user[1:, :24]], 1)])
        said = torch.cat([torch.tensor([[own.before], *[[own.none]] * 4]), rows[:, :-1]], 1)
        out = model(input_ids=said[:1], moshi_audio_codes=said[1:][None], user_audio_codes=heard[None], use_cache=False)
        hidden = out.last_hidden_state.transpose(0, 1)
        depth = model.depth_decoder(last_hidden_state=hidden, input_ids=rows[:-1].T, use_cache=False).logits
    torch.testing.assert_close(logits["text"], out.logits[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits["audio.0"], depth[:-1, 0], rtol=1e-4, atol=1e-4)
    for book in range(1, 4):
        torch.testing.assert_close(logits[f"audio.{book}"], depth[1:, book], rtol=1e-4, atol=1e-4)


def test_what_it_writes_to_a_silent_user_is_what_generate_writes(moshi):
    model = moshi.theirs
    model.generation_config.max_length = None
    with torch.inference_mode():
        silence = model.audio_encoder.encode(torch.zeros(1, 1, 1920), num_quantizers=4).audio_codes[0]
        rows = moshi.voice.module.write(silence[:, :1].expand(-1, 12), 0.8, ends=False)[0]
        theirs = model.generate(do_sample=False, max_length=11, return_audio_codes=True)
    text, codes = theirs.sequences[0, 1:], theirs.audio_codes[0]
    assert torch.equal(text, rows[0, : len(text)])
    frames = torch.cat([rows[1:2, :-1], rows[2:, 1:]])
    assert torch.equal(codes, frames[:, : codes.shape[1]])
    assert codes.shape[1] > 8


def test_a_recording_is_what_the_user_says(moshi):
    rng = np.random.default_rng(0)
    recordings = [Recording(f"user{index}", rng.normal(0, 0.1, 24000).astype(np.float32)) for index in range(2)]
    first, second = moshi.voice.clips(2, recordings)
    assert [first.name, second.name] == ["user0", "user1"]
    codes, others = first.inputs[0], second.inputs[0]
    assert codes.shape == others.shape == (4, 38)
    assert not torch.equal(codes[:, :12], others[:, :12])
    assert torch.equal(codes[:, 30:], others[:, 30:]), "after a second both are silent"
    samples = torch.from_numpy(recordings[0].samples)[None, None]
    with torch.inference_mode():
        alone = moshi.theirs.audio_encoder.encode(samples, num_quantizers=4)
    assert torch.equal(alone.audio_codes[0][:, :12], codes[:, :12])
