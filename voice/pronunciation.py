"""Letters to phones for words that the lexicon does not have: a small convolutional classifier of each letter.

Each letter of a word says nothing, one phone or two; which, a network decides from the letter and its neighbours. It is
part of the text front end, runs on the host, and has no sites: what it gives is discrete.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
WIDTH = 96


class Pronouncer(nn.Module):
    """Classify each letter of a word into one of the given chunks of zero to two phones."""

    def __init__(self, chunks: tuple[str, ...]) -> None:
        super().__init__()
        self.chunks = chunks
        self.embedding = nn.Embedding(len(LETTERS) + 1, WIDTH)
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 5, padding=2) for _ in range(4))
        self.out = nn.Linear(WIDTH, len(chunks))

    def forward(self, letters: Tensor) -> Tensor:
        """Map letter indices [batch, letters], 0 where there is none, to logits [batch, letters, chunks]."""
        real = (letters > 0)[:, None, :]
        x = self.embedding(letters).transpose(1, 2) * real
        for conv in self.convs:
            x = (x + F.gelu(conv(x))) * real
        out: Tensor = self.out(x.transpose(1, 2))
        return out

    def pronounce(self, word: str) -> tuple[str, ...]:
        """Phones of a word of lower-case letters and apostrophes; ValueError for any other."""
        with torch.inference_mode():
            best = self(letters_of(word)[None])[0].argmax(dim=-1)
        return tuple(phone for index in best.tolist() for phone in self.chunks[index].split())


def letters_of(word: str) -> Tensor:
    """Indices [letters] of a word's letters, from 1."""
    strange = sorted(set(word) - set(LETTERS))
    if strange or not word:
        raise ValueError(f"a word is made of the letters a to z and apostrophes, got {word!r}")
    return torch.tensor([LETTERS.index(letter) + 1 for letter in word])
