"""Differences: what two recipes, or the headers of two studies, do not agree in, told key by key."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from precision.schema import validate

NOT_GIVEN = "(not given)"
_LONGEST = 20
_MEANT = {
    "torch": "sums of another torch may differ in their last bits",
    "layers": "the model is built otherwise, by its configuration",
    "weights": "the checkpoint holds other numbers",
    "clips": "other recordings, or cut otherwise",
    "code": "the package's source has changed; a study is finished by the code that began it",
}


def recipe_differences(old: str, new: str) -> list[str]:
    """The keys that two recipes set otherwise, as `search.evaluations: 80 -> 100`, in the order of the second.

    Args:
        old: YAML of a recipe; keys that are left out count with their defaults, where this version can read it.
        new: the same.

    Raises:
        yaml.YAMLError: one of them is not YAML.
    """
    before, after = (dict(_leaves("", _resolved(text))) for text in (old, new))
    lines = [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in dict.fromkeys([*after, *before])
        if before.get(key) != after.get(key)
    ]
    if not lines and old != new:
        lines = ["the same keys in another order, or in other words"]
    left = len(lines) - _LONGEST
    return lines if left <= 1 else [*lines[:_LONGEST], f"and {left} more"]


def header_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], old_recipe: str | None, new_recipe: str | None
) -> list[str]:
    """The entries that two headers do not agree in, a line each; those of the recipes behind them are set in below.

    Args:
        old: a study's header.
        new: the other.
        old_recipe: YAML of the recipe behind it; None where it is not known.
        new_recipe: the same.
    """
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if key in old and key in new and old[key] == new[key]:
            continue
        meant = f" ({_MEANT[key]})" if key in _MEANT and key in old and key in new else ""
        lines.append(f"{key}: {_shown(old, key)} -> {_shown(new, key)}{meant}")
        if key == "recipe_digest" and old_recipe is not None and new_recipe is not None:
            lines += [f"  {line}" for line in _why(old_recipe, new_recipe)]
    return lines


def _why(old: str, new: str) -> list[str]:
    try:
        found = recipe_differences(old, new)
    except yaml.YAMLError:  # a recipe.yaml that was edited by hand
        return ["which keys is not known: the recipe of the study cannot be read"]
    return found or ["the same as written; the code takes it otherwise now: a default, or the gates of a profile"]


def _resolved(text: str) -> Any:
    data = yaml.safe_load(text)
    written, _ = validate(data)
    return data if written is None else asdict(written)  # another version's recipe may not be one today


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is not a mapping or a list of mappings, with its path; what is null is not given."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), part)
    elif isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
        for name, part in zip(_names(value), value, strict=True):
            yield from _leaves(f"{path}[{name}]", part)
    elif value is not None:
        yield path, list(value) if isinstance(value, tuple) else value


def _names(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gates go by what they promise, so that one added at the front does not move all others; the rest by number."""
    promises = [f"{part.get('metric')} {part.get('over', 'mean')}" for part in parts]
    if all("metric" in part for part in parts) and len(set(promises)) == len(parts):
        return promises
    return [str(number) for number in range(len(parts))]


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return NOT_GIVEN
    value = values[key]
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
