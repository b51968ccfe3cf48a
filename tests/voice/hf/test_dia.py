"""Dia: as transformers computes it, with its codec from the folder beside, guidance, and the delay pattern."""

import json

import pytest
import torch

from tests.voice.hf.speaking import Speaking
from voice.hf.base import HfError
from voice.hf.loading import load


@pytest.fixture(scope="module")
def dia(tmp_path_factory):
    return Speaking.of("dia", tmp_path_factory.mktemp("dia"))


def delayed(module, codes):
    """The rows of codes by transformers' own rules, with the end behind them."""
    frames, longest = codes.shape[1], max(module.delays)
    rows = torch.full((frames + longest, len(codes)), module.rest)
    for book, delay in enumerate(module.delays):
        column = [module.begin] * (1 + delay) + codes[book].tolist() + [module.end]
        rows[:, book] = torch.tensor([*column, *[module.rest] * longest][: len(rows)])
    return rows


def test_everything_is_forced_and_every_product_is_a_site(dia):
    heads = [f"audio.{book}" for book in range(4)]
    dia.holds("model.logits_dense", *heads)
    text, codes = dia.clips[0].inputs
    assert bytes(text[1:].tolist()).decode().startswith(" The ferry")
    assert codes.shape == (4, 40)
    for head, book in zip(heads, codes, strict=True):
        assert dia.agrees(head, book) or head == "audio.0"
    logits = dia.voice.render(dia.clips[0]).logits
    assert torch.equal(logits["audio.0"][:, :64].argmax(1), codes[0]), "but for the end, which is not forced"
    assert [values.shape for values in logits.values()] == [(40, 65), (40, 64), (40, 64), (40, 64)]


def test_logits_are_those_of_transformers_guided(dia):
    text, codes = dia.clips[0].inputs
    module, logits = dia.voice.module, dia.voice.render(dia.clips[0]).logits
    rows = delayed(module, codes)[None].expand(2, -1, -1)
    with torch.inference_mode():
        out = dia.theirs(torch.stack([text, torch.zeros_like(text)]), decoder_input_ids=rows, use_cache=False).logits
    spoken, unspoken = out.view(2, 4, -1, 68)
    guided = spoken + 2.0 * (spoken - unspoken)
    for book, delay in enumerate(module.delays):
        found = logits[f"audio.{book}"]
        expected = guided[book, delay : delay + 40, : found.shape[1]]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_it_writes_is_what_generate_writes(dia):
    for clip in dia.clips:
        text = clip.inputs[0]
        module = dia.voice.module
        ours = module.write(text, 1.0, ends=True)[0]
        # What the processor gives where nothing is said yet: rows that are not to be predicted, and the others at rest.
        begun = torch.arange(1 + max(module.delays))[:, None] <= torch.tensor(module.delays)
        begun = torch.where(begun, module.begin, module.rest)[None]
        with torch.inference_mode():
            theirs = dia.theirs.generate(
                text[None],
                decoder_input_ids=begun,
                decoder_attention_mask=torch.ones(1, 5, dtype=torch.long),
                do_sample=False,
                top_k=None,
                max_length=22,
            )[0]
        frames = ours.shape[1]
        found = torch.stack([theirs[1 + delay : 1 + delay + frames, book] for book, delay in enumerate(module.delays)])
        assert torch.equal(found, ours)
    assert frames > 2


def test_the_codec_is_the_one_that_is_named(dia, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(dia.folder / "model.safetensors")
    for file in ("config.json", "generation_config.json"):
        (tmp_path / file).symlink_to(dia.folder / file)
    with pytest.raises(HfError, match=r"no codec is named; processor_config\.json or audio_tok"):
        load(str(tmp_path))
    named = {"audio_tokenizer": {"audio_tokenizer_name_or_path": str(dia.folder / "audio_tokenizer")}}
    (tmp_path / "processor_config.json").write_text(json.dumps(named))
    clip = dia.clips[0]
    assert torch.equal(load(str(tmp_path)).render(clip).sound, dia.voice.render(clip).sound)
