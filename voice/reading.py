"""Reading: text tokens that are pairs of phones, and how a decoder reads its prompt aloud with none left out.

A row is 80 ms and a phone often half of that, so a text token is the phones of both halves of a row. In the prompt
tokens are the phones to be said, two a row; in speech they follow the sound, which they run ahead of by `LEAD` rows, so
that the codes of a frame are chosen knowing what is said in it and next.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from voice.phones import PHONES

SOUNDS = len(PHONES) + 1
"""Phones, and 0 for none."""
END = 0
"""The text token that ends the speech."""
LEAD = 2
"""Rows by which a text token comes before its frame."""
LONGEST_HALVES = 6
"""Halves of rows that a phone may last, 0.24 s: where a model stays with one for longer, it has lost its way."""
LONGEST_PAUSE_HALVES = 7
HASTE = 2.5
"""Nats by which each phone further is preferred to staying. Taking the likeliest stays too long, as a phone then ends
where its end is likelier than not, and not where it ends on average: without it speech is 18 % longer than the training
voice's, with it 1 to 2 % (16 sentences held back that are no clips)."""


def pair(first: int, second: int) -> int:
    """Text token of two phones, each an index of voice.phones or 0."""
    return 1 + first * SOUNDS + second


def phones_of(tokens: Sequence[int]) -> list[int]:
    """Phones of text tokens, those that are none left out."""
    return [phone for token in tokens if token != END for phone in divmod(token - 1, SOUNDS) if phone]


def prompt_of(phones: Sequence[int]) -> list[int]:
    """Text tokens of the rows of a prompt: two phones a row."""
    even = [*phones, *[0] * (len(phones) % 2)]
    return [pair(first, second) for first, second in zip(even[::2], even[1::2], strict=True)]


def spoken(phones: Sequence[int], ends_s: Sequence[float], frames: int) -> list[int]:
    """Text tokens of the rows of speech, for learning: the phone in the middle of each half, in order.

    No phone is left out: where some are shorter than half a row, those behind them wait.

    Args:
        phones: that are said.
        ends_s: when each ends, seconds.
        frames: of 80 ms.
    """
    halves, at = [], 0
    for half in range(2 * (frames + LEAD)):
        middle = (half + 0.5) * 0.04
        there = next((index for index, end in enumerate(ends_s) if middle < end), len(phones) - 1)
        at = min(there, at + 1)
        halves.append(phones[at])
    said = [pair(halves[2 * row], halves[2 * row + 1]) for row in range(LEAD, frames + LEAD)]
    return [*said[: frames - 1], END]


class Reading:
    """Chooses text tokens so that every phone of a prompt is said, in order, as long as the model finds likely."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.phones = phones_of(prompt)
        self.at = 0
        self.held = 0

    def __call__(self, logits: Tensor) -> int:
        """Text token of the next row, of logits [text tokens] the likeliest that goes on with what was said."""
        options: dict[int, tuple[int, int]] = {}
        haste = []
        for first in self._next(self.at, self.held):
            for second in self._next(*first):
                token = pair(self.phones[first[0]], self.phones[second[0]])
                if token not in options:
                    options[token] = second
                    haste.append(HASTE * (second[0] - self.at))
        tokens = list(options)
        last = len(self.phones) - 1
        if self.at == last and self.held > 0:
            tokens = [END] if self.held >= self._longest(last) else [*tokens, END]
            haste = [0.0] * len(tokens)  # none is left to go on to
        token = tokens[int((logits[torch.tensor(tokens)] + torch.tensor(haste)).argmax())]
        if token != END:
            self.at, self.held = options[token]
        return token

    def _next(self, at: int, held: int) -> list[tuple[int, int]]:
        """Phones of the next half, and how many halves each will have lasted."""
        more = [(at, held + 1)] if held < self._longest(at) or at == len(self.phones) - 1 else []
        return [*more, *([(at + 1, 1)] if at + 1 < len(self.phones) else [])]

    def _longest(self, at: int) -> int:
        return LONGEST_PAUSE_HALVES if PHONES[self.phones[at] - 1] == "pau" else LONGEST_HALVES
