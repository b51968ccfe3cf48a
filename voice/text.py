"""Text to phones: numbers to words, words to phones by a lexicon or letter by letter, marks to pauses."""

import re
from collections.abc import Callable, Mapping
from functools import cache

MAX_PHONES = 400
_MARKS = ",.;:?!"
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[A-Za-z']+|[,.;:?!]")
_FOLD = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": " ", "\u201d": " ", '"': " ", "-": " ", "\u2013": ",", "\u2014": ","}
)


def tokens(text: str) -> list[str]:
    """Lower-case words and marks of a text; numbers become words.

    Raises:
        ValueError: where the text has no word, or a character that nobody could read out.
    """
    folded = text.translate(_FOLD)
    strange = sorted(set(_TOKEN.sub("", folded)) - set(" \t\n()"))
    if strange:
        raise ValueError(f"the embedded voice reads English letters, digits and {_MARKS}; got {' '.join(strange)}")
    found: list[str] = []
    for token in _TOKEN.findall(folded):
        if token[0].isdigit():
            found += _spelled(token)
        else:
            found.append(token.lower())
    if not any(token[0].isalpha() for token in found):
        raise ValueError(f"there is nothing to read in {text!r}")
    return found


@cache
def _spelled(number: str) -> tuple[str, ...]:
    """Words of a number."""
    import inflect  # two seconds, which a process that reads no number need not take

    return tuple(re.findall(r"[a-z]+", str(inflect.engine().number_to_words(number, andword="")).lower()))


def to_phones(
    text: str, lexicon: Mapping[str, tuple[str, ...]], pronounce: Callable[[str], tuple[str, ...]]
) -> tuple[str, ...]:
    """Phones of a text, beginning and ending in a pause, one pause at each mark inside.

    Raises:
        ValueError: as `tokens`; or where the text has over 400 phones (about 30 s): cut it into sentences.
    """
    phones = ["pau"]
    for token in tokens(text):
        if token in _MARKS:
            if phones[-1] != "pau":
                phones.append("pau")
        else:
            word = token.strip("'")
            if word:
                phones.extend(lexicon[word] if word in lexicon else pronounce(word))
    if phones[-1] != "pau":
        phones.append("pau")
    if len(phones) > MAX_PHONES:
        raise ValueError(f"a text has at most {MAX_PHONES} phones, got {len(phones)}: cut it into sentences")
    return tuple(phones)
