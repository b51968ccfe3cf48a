"""CSM: as transformers computes it, with a layer of each codebook, and its own tokens step by step."""

import pytest
import torch
from torch import nn

from tests.voice.hf.speaking import Speaking


@pytest.fixture(scope="module")
def csm(tmp_path_factory):
    return Speaking.of("csm", tmp_path_factory.mktemp("csm"))


def test_everything_is_forced_and_every_product_is_a_site(csm):
    csm.holds("model.lm_head", "audio.0")
    (codes,) = csm.clips[0].inputs[1:]
    assert csm.clips[0].seconds == codes.shape[1] / 12.5
    assert not (codes == csm.voice.module.end)[0].any()
    for book in range(1, len(codes)):
        assert csm.agrees(f"audio.{book}", codes[book])
    heads = [site for site in csm.found.sites if ".codebooks_head." in site.name]
    assert [site.weight_shape for site in heads] == [(67, 48)] * 3
    assert {site.rows_per_second for site in heads} == {12.5}


def test_logits_are_those_of_transformers(csm):
    prompt, codes = csm.clips[0].inputs
    logits = csm.voice.render(csm.clips[0]).logits
    model, books = csm.theirs, len(codes)
    with torch.inference_mode():
        frames = model.backbone_model.embed_tokens(codes.T[None])
        embedded = torch.cat([model.embed_text_tokens(prompt)[None], frames], 1)
        out = model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False)
        hidden = out.hidden_states[-1][0, len(prompt) - 1 : -1]
        ids = nn.functional.pad(codes[:-1].T, (1, 0))
        depth = model.depth_decoder(input_ids=ids, backbone_last_hidden_state=hidden, use_cache=False).logits
    torch.testing.assert_close(logits["audio.0"], out.logits[0, len(prompt) - 1 : -1], rtol=1e-4, atol=1e-4)
    theirs = [depth[:, book - 1] for book in range(1, books)]
    torch.testing.assert_close([logits[f"audio.{book}"] for book in range(1, books)], theirs, rtol=1e-4, atol=1e-4)


def test_what_it_writes_is_what_generate_writes(csm):
    prompt = csm.clips[1].inputs[0]
    ours = csm.voice.module.write(prompt, 1.0, ends=True)[0]
    with torch.inference_mode():
        theirs = csm.theirs.generate(prompt[None], do_sample=False, max_new_tokens=ours.shape[1])
    assert torch.equal(theirs[0].T[:, : ours.shape[1]], ours)
