"""Preset: schemes under one name, as data, that a recipe brings by naming them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, Strict, TypeAdapter

from precision import checks
from precision.document import Document, YamlError
from precision.mistakes import Mistake, RecipeError, shown
from precision.schema import validate_as
from precision.section_values import FORBID, Name, Text
from precision.sections import SchemeEntry


@dataclass(frozen=True, slots=True)
class Preset:
    """Schemes that belong together, and what they are for."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    about: Annotated[Text, Field(title="What for")]
    """What the schemes are for, in a line."""
    architectures: Annotated[tuple[Text, ...], Field(title="Architectures", min_length=1)]
    """Architectures of devices.yaml that run the schemes."""
    schemes: Annotated[dict[Name, SchemeEntry], Field(title="Schemes", min_length=1)] = field(hash=False)
    """Ways to compute, by name, the most precise first."""
    usual: Annotated[bool, Strict(), Field(title="Usual")] = False
    """Whether a recipe for a card of those architectures begins with it."""


@dataclass(frozen=True, slots=True)
class PresetsFile:
    """Every preset of a file."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    presets: Annotated[dict[Name, Preset], Field(title="Presets", min_length=1)] = field(hash=False)
    """Presets by name."""


_ADAPTER = TypeAdapter(PresetsFile)


def load_presets(source: str | Path, known: Mapping[str, Collection[str]]) -> dict[str, Preset]:
    """Read presets and check them.

    Args:
        source: a Path is a file to read; a str is the YAML itself.
        known: names that may be used: `format` and `architecture`.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or holds mistakes: one message names them all.
    """
    label = str(source) if isinstance(source, Path) else "presets"
    try:
        document = Document.parse(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)
    except YamlError as error:
        raise RecipeError(label, [f"not YAML: {error}"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(label, [f"cannot be read: {error}"]) from error
    if not isinstance(document.data, dict):
        raise RecipeError(label, [f"got {shown(document.data)}, must be a mapping with the key presets"])
    checked = validate_as(_ADAPTER, document.data)
    written, mistakes = checked
    refused = {mistake.path for mistake in mistakes}
    found = [mistake for mistake in checks.preset_names(document, known) if mistake.path not in refused]
    mistakes = [*document.mistakes, *mistakes, *found]
    if mistakes or written is None:
        raise RecipeError(label, document.told(mistakes))
    return written.presets


def brought(names: Collection[str], presets: Mapping[str, Preset]) -> dict[str, SchemeEntry]:
    """The schemes of several presets, in their order; names that are no preset bring nothing."""
    entries: dict[str, SchemeEntry] = {}
    for name in names:
        if name in presets:
            entries |= presets[name].schemes
    return entries


def allowed(
    names: Sequence[str], named: Collection[str], presets: Mapping[str, Preset], own: Collection[str]
) -> list[str]:
    """Names of schemes with every preset's name among them replaced by its schemes; each scheme once.

    Args:
        names: what a rule allows.
        named: the recipe's presets.
        presets: all there are.
        own: schemes that the recipe defines itself; where one has a preset's name, the scheme is meant.
    """
    spelled: dict[str, None] = {}
    for name in names:
        spelled |= dict.fromkeys(presets[name].schemes if name in named and name not in own else (name,))
    return list(spelled)


def disagreements(document: Document, presets: Mapping[str, Preset]) -> list[Mistake]:
    """Find schemes that two presets of a recipe define differently, and that the recipe does not define itself."""
    own = next((value for _, value in document.walk("schemes")), None)
    mistakes = []
    first: dict[str, str] = {}
    for path, name in document.walk("presets", "*"):
        for scheme, entry in presets[name].schemes.items() if isinstance(name, str) and name in presets else ():
            other = first.setdefault(scheme, name)
            if presets[other].schemes[scheme] != entry and not (isinstance(own, dict) and scheme in own):
                said = (
                    f"got {shown(name)}, whose scheme {scheme!r} is not that of {other!r}; drop one of the two, or say"
                    f" under schemes what {scheme!r} is"
                )
                mistakes.append(Mistake(path, said))
    return mistakes
