"""Schema: the layout of a recipe, as JSON schema for editors and as the check of a file.

`python -m precision.schema` writes recipes/recipe.schema.json.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from precision import mistakes
from precision.checks import NAMES
from precision.mistakes import Mistake
from precision.sections import GatesFile, RecipeFile

_ADAPTER = TypeAdapter(RecipeFile)
_GATES = TypeAdapter(GatesFile)
T = TypeVar("T")
_BRANCHES = ("<list>", "<profile>", "<function>", "<shapes>", "<file>", "<cards>")
"""Tags of the unions of precision.sections."""


def recipe_schema(known: Mapping[str, Collection[str]] = MappingProxyType({})) -> dict[str, Any]:
    """JSON schema of a recipe, for editors: a title and a description on every key.

    Args:
        known: names by what they name (model, card, format, metric, profile, preset), to be offered and held to where
            a recipe may name one; a noun that is left out may be any text.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}
    for pattern, noun in NAMES:
        if noun in known:
            for node in _nodes_at(schema, ["" if step == "*" else step for step in pattern.split(".")]):
                node["enum"] = list(known[noun])
    return schema


def schema_text(known: Mapping[str, Collection[str]] = MappingProxyType({})) -> str:
    """The schema as its file holds it; `known` as `recipe_schema` has it."""
    return json.dumps(recipe_schema(known), indent=2, ensure_ascii=False) + "\n"


def validate(data: object) -> tuple[RecipeFile | None, list[Mistake]]:
    """Check plain data against the layout: the file, or None and everything that is wrong."""
    return validate_as(_ADAPTER, data)


def validate_gates(data: object) -> tuple[GatesFile | None, list[Mistake]]:
    """Check plain data that holds nothing but the `gates` of a recipe."""
    return validate_as(_GATES, data)


def validate_as(adapter: TypeAdapter[T], data: object) -> tuple[T | None, list[Mistake]]:
    """Check plain data against any layout: the value, or None and everything that is wrong."""
    try:
        return adapter.validate_python(data), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    layout = _layout(adapter)
    listed = []
    for item in found:
        # The branch of a union and the mark of a key are pydantic's, not the recipe's.
        path = tuple(step for step in item["loc"] if step not in ("[key]", *_BRANCHES))
        kind = item["type"]
        if kind in ("missing", "missing_argument"):
            said = "missing, must be given"
        elif kind == "too_short" and item["input"]:
            continue  # pydantic counts only the entries that passed; those that did not are told already
        elif kind == "dataclass_type":
            known = _keys_at(layout, path)
            said = f"got {mistakes.shown(item['input'])}, must be a mapping with the keys {', '.join(known)}"
        elif kind in ("unexpected_keyword_argument", "extra_forbidden"):
            known = _keys_at(layout, path[:-1])
            said = f"unknown key, must be one of {', '.join(known)}{mistakes.nearest(str(path[-1]), known)}"
        else:
            said = mistakes.explain(kind, item["msg"], item.get("ctx", {}), item["input"])
        listed.append(Mistake(path, said))
    return None, listed


@functools.cache
def _layout(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    return adapter.json_schema()


def _keys_at(schema: dict[str, Any], path: mistakes.Path) -> tuple[str, ...]:
    """The keys that may stand in the mapping at `path`; empty where the layout has no mapping of fixed keys there."""
    return tuple(key for node in _nodes_at(schema, path) for key in node.get("properties", {}))


def _nodes_at(schema: dict[str, Any], path: Sequence[str | int]) -> list[dict[str, Any]]:
    """The parts of a schema that hold for what stands at `path`; a key or index that is not fixed may be any."""
    nodes = _branches(schema, [schema])
    for step in path:
        nodes = _branches(schema, [child for node in nodes if (child := _child(node, step))])
    return nodes


def _branches(schema: dict[str, Any], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for node in nodes:
        if "$ref" in node:
            found += _branches(schema, [schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]])
        elif "oneOf" in node or "anyOf" in node:
            found += _branches(schema, node.get("oneOf", []) + node.get("anyOf", []))
        else:
            found.append(node)
    return found


def _child(node: dict[str, Any], step: str | int) -> dict[str, Any] | None:
    # A mapping of any keys is written with one pattern for all of them.
    others = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
    found = node.get("properties", {}).get(step) or node.get("items") or next(filter(None, others), None)
    return found if isinstance(found, dict) else None


def plain(section: object) -> Any:
    """A section as plain data, less the keys that hold their default."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        kept = {}
        for key in dataclasses.fields(section):
            value = getattr(section, key.name)
            default = key.default_factory() if callable(key.default_factory) else key.default
            if value != default:
                kept[key.name] = plain(value)
        return kept
    if isinstance(section, Mapping):
        return {key: plain(value) for key, value in section.items()}
    return [plain(value) for value in section] if isinstance(section, tuple) else section


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "recipes/recipe.schema.json")
    path.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {path}")
