"""Bark: as transformers computes it, stage by stage, and its own tokens step by step."""

import pytest
import torch

from tests.voice.hf.speaking import Speaking


@pytest.fixture(scope="module")
def bark(tmp_path_factory):
    return Speaking.of("bark", tmp_path_factory.mktemp("bark"))


def test_everything_is_forced_and_every_product_is_a_site(bark):
    bark.holds("model.coarse_acoustics.lm_head", "audio.0", "audio.1")
    _, semantic, codes = bark.clips[0].inputs
    assert (len(semantic), codes.shape) == (44, (4, 128))
    assert bark.voice.module.stages.semantic.semantic_vocab_size not in semantic
    logits = bark.voice.render(bark.clips[0]).logits
    assert torch.equal(logits["text.semantic"][:, :-1].argmax(1), semantic), "but for the end, which is not forced"
    for book, expected in enumerate(codes[:, :66]):
        assert bark.agrees(f"audio.{book}", expected)
    assert list(logits) == ["text.semantic", "audio.0", "audio.1", "audio.2", "audio.3"]


def test_what_it_writes_is_what_generate_writes(bark):
    for clip in bark.clips:
        prompt = clip.inputs[0]
        semantic, codes = bark.voice.module.write(prompt, 1.5, ends=False)
        settings = bark.voice.module.stages
        padded = torch.nn.functional.pad(prompt, (0, 24 - len(prompt)))[None]
        said = (torch.arange(24) < len(prompt)).long()[None]
        with torch.inference_mode():
            kind = {"semantic_generation_config": settings.semantic}
            coarse = {**kind, "coarse_generation_config": settings.coarse, "codebook_size": 32}
            theirs = bark.theirs.semantic.generate(
                padded, attention_mask=said, min_new_tokens=len(semantic), max_new_tokens=len(semantic), **kind
            )
            assert torch.equal(theirs[0], semantic)
            flat = bark.theirs.coarse_acoustics.generate(theirs.clone(), **coarse)
            fine = bark.theirs.fine_acoustics.generate(flat, fine_generation_config=settings.fine, **coarse)
            sound = bark.theirs.codec_decode(fine.long())[0]
        assert torch.equal(fine[0].long(), codes[:, : fine.shape[2]])
        torch.testing.assert_close(bark.voice.module.sound((semantic, codes)), sound)


def test_more_than_a_window_is_refused(bark):
    prompt, semantic, codes = bark.clips[0].inputs
    with pytest.raises(ValueError, match="88 semantic tokens and 264 coarse ones do not fit one window of 80 and 220"):
        bark.voice.module(prompt, semantic.repeat(2), codes[:, :66].repeat(1, 2))
