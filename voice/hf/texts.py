"""Token ids of sentences, by the tokenizer beside a model's weights; random ones where there is none."""

import json
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from voice.hf.base import Recording

_TOKENIZERS = ("vocab.json", "tokenizer.json", "spm_char.model")
_FEWEST = 8
"""Tokens of a sentence that its tokenizer can read: with fewer it is of another script."""


def sentence_ids(
    folder: str, count: int, recordings: Sequence[Recording], *, tokens: int, lowest: int, highest: int
) -> list[Tensor]:
    """Token ids of `count` sentences, the same every time.

    The sentences are those of the recordings, where their texts are known, then those that the package brings. Without
    a tokenizer, or with one whose own packages are not there (it warns then), ids are random.

    Args:
        folder: of the model.
        count: how many sentences.
        recordings: whose texts are taken first.
        tokens: length of random ones.
        lowest: smallest random id.
        highest: largest random id.

    Returns:
        [tokens] whole numbers, of each sentence.
    """
    named = any((Path(folder) / name).is_file() for name in _TOKENIZERS)
    if named:
        try:
            tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(folder)
            found = [torch.tensor(tokenizer(text)["input_ids"]) for text in _sentences(count, recordings)]
        except (ImportError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
        else:
            shortest = min(len(ids) for ids in found)
            if shortest >= _FEWEST:
                return found
            reason = f"it makes {shortest} tokens of an English sentence"
        warnings.warn(
            f"{folder}: the tokenizer cannot be used, so clips are random tokens and no sentences: {reason}",
            stacklevel=2,
        )
    return [
        torch.randint(lowest, highest + 1, (tokens,), generator=torch.Generator().manual_seed(number))
        for number in range(count)
    ]


def unit_vector(size: int, number: int) -> Tensor:
    """A speaker's embedding [size] of length 1, of a number and of nothing else."""
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(number))
    unit: Tensor = drawn / drawn.norm()
    return unit


def _sentences(count: int, recordings: Sequence[Recording]) -> list[str]:
    rows = json.loads((files("voice") / "data" / "clips.json").read_text(encoding="utf-8"))
    texts = [recording.text for recording in recordings if recording.text] + [row["text"] for row in rows]
    return [texts[number % len(texts)] for number in range(count)]
