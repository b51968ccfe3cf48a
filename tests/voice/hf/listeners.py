"""What tests of models that hear have in common: recordings, and what is asked of each of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from voice.hf.base import Recording
from voice.hf.listening import Listening
from voice.model import Clip
from voice.sites import Discovery, discover


def recordings(rate: int, *seconds: float) -> tuple[Recording, ...]:
    """A glide with pauses and noise, another a recording."""
    found = []
    for number, length in enumerate(seconds):
        time = np.arange(int(length * rate)) / rate
        voiced = np.sin(2 * np.pi * (120 + 60 * number + 40 * time) * time) * np.sin(5 * time + number)
        noise = np.random.default_rng(number).standard_normal(len(time))
        found.append(Recording(f"recording{number}", (0.3 * voiced + 0.02 * noise).astype(np.float32)))
    return tuple(found)


def found_in(voice: Listening, clip: Clip) -> Discovery:
    """Sites of a clip."""
    return discover(voice.module, lambda: voice.render(clip), clip.seconds)


def check_forcing(voice: Listening, clip: Clip) -> None:
    """A step sees the tokens before it and no others, and what it writes unforced is what was forced on it."""
    tokens = clip.inputs[-1]
    logits = voice.render(clip).logits["text"]
    assert logits.shape[0] == len(tokens) > 5
    assert [voice.chosen(step, number) for number, step in enumerate(logits)] == tokens.tolist()
    assert logits.std() > 0.5
    assert logits.softmax(1).amax(1).mean() < 0.9
    changed = tokens.clone()
    changed[3] = (changed[3] + 1) % 150
    other = voice.render(Clip(clip.name, (*clip.inputs[:-1], changed), clip.seconds)).logits["text"]
    torch.testing.assert_close(other[:4], logits[:4])
    assert not torch.isclose(other[4:], logits[4:], atol=1e-3).all(1).any()
    free = voice.unforced(clip)
    assert len(free.inputs) == len(clip.inputs) - 1
    torch.testing.assert_close(voice.render(free).logits["text"], logits, rtol=1e-4, atol=1e-4)


def check_hearing(voice: Listening, clips: Sequence[Clip]) -> None:
    """Another recording gives other logits, whatever the text."""
    first, second = (voice.render(clip).logits["text"] for clip in clips[:2])
    assert not torch.allclose(first[0], second[0], atol=0.1)


def check_sites(voice: Listening, clips: Sequence[Clip], head: str) -> Discovery:
    """Nearly all is a site, the same ones whatever the recording's length; a head tied to a table is one of them."""
    found = [found_in(voice, clip) for clip in clips]
    names = [site.name for site in found[0].sites]
    assert found[0].covered_share >= 0.99, found[0].uncovered
    assert all({site.name for site in other.sites} == set(names) for other in found[1:])
    assert names.count(head) == 1
    assert not any("embed_tokens" in name for name in names)
    return found[0]


def write_tokenizer(folder: Path, *words: str) -> None:
    """Write a tokenizer that knows these, and takes everything else for the first."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [word for word in words if word.startswith("<|")]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=words[0], additional_special_tokens=special
    ).save_pretrained(folder)
