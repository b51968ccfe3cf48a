import pytest

from voice.text import to_phones, tokens

LEXICON = {"hello": ("hh", "ax", "l", "ow"), "two": ("t", "uw")}


def spell(word: str) -> tuple[str, ...]:
    return tuple("t" for _ in word)


def test_marks_become_single_pauses_and_ends_are_pauses():
    assert to_phones("Hello, ... hello!", LEXICON, spell) == ("pau", *LEXICON["hello"], "pau", *LEXICON["hello"], "pau")


def test_words_the_lexicon_lacks_are_pronounced_by_letters():
    assert to_phones("hello abc", LEXICON, spell) == ("pau", *LEXICON["hello"], "t", "t", "t", "pau")


def test_numbers_become_words():
    assert tokens("2 cats, 101 dogs.") == ["two", "cats", ",", "one", "hundred", "one", "dogs", "."]
    assert tokens("3.5") == ["three", "point", "five"]


def test_quotes_hyphens_and_apostrophes():
    assert tokens("“Don’t—it’s well-known”") == ["don't", ",", "it's", "well", "known"]


@pytest.mark.parametrize("text", ["", "...", "  ", "'"])
def test_nothing_to_read_is_an_error(text):
    with pytest.raises(ValueError, match="nothing to read"):
        to_phones(text, LEXICON, spell)


def test_characters_that_nobody_could_read_are_named():
    with pytest.raises(ValueError, match=r"# ü"):
        tokens("hello ü #")


def test_a_text_too_long_says_how_long():
    with pytest.raises(ValueError, match="402"):
        to_phones("hello " * 100, LEXICON, spell)
