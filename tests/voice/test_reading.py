"""Reading: every phone of a prompt is said, in order, whatever the model finds likely."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voice.decoder_config import MINI
from voice.phones import PHONES
from voice.reading import (
    END,
    LEAD,
    LONGEST_HALVES,
    LONGEST_PAUSE_HALVES,
    SOUNDS,
    Reading,
    pair,
    phones_of,
    prompt_of,
    spoken,
)

PHONE = st.integers(1, len(PHONES))


def test_tokens_are_those_of_the_configuration():
    assert MINI.text == 1 + SOUNDS**2
    assert max(pair(a, b) for a in range(SOUNDS) for b in range(SOUNDS)) == MINI.text - 1
    assert min(pair(a, b) for a in range(SOUNDS) for b in range(SOUNDS)) == END + 1


@given(st.lists(PHONE, max_size=30))
def test_a_prompt_is_its_phones(phones: list[int]):
    asked = prompt_of(phones)
    assert len(asked) == -(-len(phones) // 2)
    assert phones_of(asked) == phones


def without_repeats(phones: list[int]) -> list[int]:
    return [phone for phone, _ in itertools.groupby(phones)]


@given(st.lists(st.tuples(PHONE, st.integers(1, 20)), min_size=1, max_size=30))
def test_what_was_spoken_has_every_phone_but_those_that_the_end_cuts_off(timed: list[tuple[int, int]]):
    phones = [phone for phone, _ in timed]
    ends_s = [0.016 * end for end in itertools.accumulate(frames for _, frames in timed)]
    frames = max(1, int(ends_s[-1] / 0.08))
    tokens = spoken(phones, ends_s, frames)
    assert len(tokens) == frames
    assert tokens[-1] == END
    said = phones_of(tokens)
    whole = without_repeats(phones)
    # What comes before the first row is said, and not written; the rest follows without a gap.
    begin = next(
        (i for i in range(len(whole)) if without_repeats(said) == whole[i : i + len(without_repeats(said))]), None
    )
    assert begin is not None
    assert begin <= 2 * LEAD


def test_tokens_come_before_their_frames():
    # A second of one phone, then a second of another: the change is seen LEAD rows early.
    tokens = spoken([1, 2], [0.8, 1.6], 20)
    assert tokens.index(pair(2, 2)) == 10 - LEAD


@given(st.lists(PHONE, min_size=1, max_size=20), st.integers(0, 2**16))
def test_a_reading_says_all_and_ends(phones: list[int], seed: int):
    reading = Reading(prompt_of(phones))
    draw = torch.Generator().manual_seed(seed)
    said = []
    for _ in range(len(phones) * LONGEST_PAUSE_HALVES):
        said.append(reading(torch.randn(MINI.text, generator=draw)))
        if said[-1] == END:
            break
    assert said[-1] == END
    heard = phones_of(said)
    assert without_repeats(heard) == without_repeats(phones)[-len(without_repeats(heard)) :]
    assert max(len(list(run)) for _, run in itertools.groupby(heard)) <= LONGEST_PAUSE_HALVES * max(
        len(list(run)) for _, run in itertools.groupby(phones)
    )


@pytest.mark.parametrize("likes", ["staying", "hurrying"])
def test_a_reading_neither_stays_for_ever_nor_leaves_out(likes: str):
    phones = [3, 4, 5, 6, 7]
    reading, said = Reading(prompt_of(phones)), []
    while not said or said[-1] != END:
        logits = torch.zeros(MINI.text)
        if likes == "staying":
            logits[pair(phones[reading.at], phones[reading.at])] = 100.0
        else:
            logits[END] = 1.0
            for first, second in itertools.pairwise(phones):
                logits[pair(first, second)] = 0.5
        said.append(reading(logits))
    # The first phone may have been said by the rows that text runs ahead of.
    assert set(phones_of(said)) | {phones[0]} == set(phones)
    assert len(said) <= 5 * LONGEST_HALVES // 2 + 1
