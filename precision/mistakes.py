"""Mistake: one thing wrong in a recipe, told so that it can be mended without looking anything up."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands in a recipe: keys and indices from the top."""

_SHOWN = 60
_WORDED = {
    "bool_type": "true or false",
    "dict_type": "a mapping from names to values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "too_short": "a list or mapping with at least one entry",
    "tuple_type": "a list",
    "union_tag_not_found": "a mapping with a profile, or a list of gates",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong: where it stands, and what is wrong and must hold."""

    path: Path
    text: str


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names every mistake, one a line."""

    def __init__(self, source: str, lines: Sequence[str]) -> None:
        self.source = source
        self.lines = tuple(lines)
        count = "1 mistake" if len(self.lines) == 1 else f"{len(self.lines)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {line}" for line in self.lines)]))


def path_text(path: Path) -> str:
    """Write a path as `space[1].allow[0]`.

    >>> path_text(("space", 1, "allow", 0))
    'space[1].allow[0]'
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if re.fullmatch(r"[\w-]+", step) else repr(step))
    return text or "the recipe"


def shown(value: object) -> str:
    """Name a value in a message: short, and as YAML would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Name what may have been meant, as a clause to end a message with; empty where nothing is near."""
    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def unknown_name(value: str, noun: str, known: Collection[str]) -> str:
    """Say that a name is not one of those known."""
    listing = ", ".join(sorted(known)) if known else "none"
    return f"got {shown(value)}, must be a known {noun} ({listing}){nearest(value, known)}"


def explain(kind: str, message: str, context: Mapping[str, Any], value: object) -> str:
    """Say what must hold where the schema refused a value.

    Args:
        kind: pydantic's name of the error.
        message: pydantic's own words, used where there are none here.
        context: what pydantic says beside it, such as the limit.
        value: what stands in the recipe.
    """
    if kind in _WORDED:
        return f"got {shown(value)}, must be {_WORDED[kind]}"
    if kind == "literal_error":
        expected = str(context["expected"])
        near = nearest(value, re.findall(r"'([^']*)'", expected)) if isinstance(value, str) else ""
        return f"got {shown(value)}, must be {expected}{near}"
    limits = {"greater_than_equal": "at least", "greater_than": "more than", "less_than_equal": "at most"}
    if kind in limits:
        limit = next(context[key] for key in ("ge", "gt", "le") if key in context)
        return f"got {shown(value)}, must be {limits[kind]} {limit}"
    if kind == "string_pattern_mismatch":
        return f"got {shown(value)}, must be lower-case letters, digits and underscores"
    return f"got {shown(value)}, {message[:1].lower()}{message[1:]}"
