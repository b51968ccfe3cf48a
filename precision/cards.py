"""Cards of a recipe's own: read from a file, and put in its place, so that a study holds what it was priced with."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from precision.document import Document, YamlError
from precision.mistakes import Mistake

_AT = ("target", "cards")


def brought_cards(
    document: Document, known: Collection[str], unfit: Callable[[str, object], Sequence[str]] | None
) -> tuple[tuple[str, ...], list[Mistake]]:
    """Names of the cards that a recipe brings, and what is wrong with them.

    A file that `target.cards` names is read, relative to where the command runs, and its cards take the place of its
    name in the document.

    Args:
        document: the recipe; changed where it names a file.
        known: names of cards that are there already, which a recipe may not take.
        unfit: what is wrong with a card, by its name and figures; None where no card may be brought.
    """
    written = next((value for _, value in document.walk(*_AT)), None)
    if written is None:
        return (), []
    if unfit is None:
        return (), [Mistake(_AT, "given, must be left out: no card may be brought here")]
    source = ""
    if isinstance(written, str):
        source = f"{written}: "
        try:
            parsed = Document.parse(Path(written).read_text(encoding="utf-8-sig"))
        except OSError as error:
            return (), [Mistake(_AT, f"{source}cannot be read: {error.strerror or error}")]
        except (UnicodeDecodeError, YamlError) as error:
            return (), [Mistake(_AT, f"{source}not YAML: {error}")]
        cards = parsed.data.get("devices") if isinstance(parsed.data, dict) else None
        if not isinstance(cards, dict) or not cards:
            said = "must be a mapping with the key devices, and under it cards by name, as devices.yaml has them"
            return (), [Mistake(_AT, f"{source}{said}")]
        twice = [Mistake(_AT, source + line) for line in parsed.told(parsed.mistakes)]
        document.data["target"]["cards"] = cards
    elif isinstance(written, dict):
        cards, twice = written, []
    else:
        return (), []  # the schema says so
    mistakes = twice
    for name, card in cards.items():
        if name in known:
            said = f"{name} is a card of the package; take another name, or change its price under cost.prices"
            mistakes.append(Mistake(_AT, source + said))
        if isinstance(card, dict):  # else the schema says so
            mistakes += [Mistake(_AT, source + line) for line in unfit(name, card)]
    return tuple(cards), mistakes
