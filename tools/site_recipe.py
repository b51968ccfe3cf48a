"""The page of a recipe's keys, from the JSON schema that checks one."""

import json
from typing import Any

from precision.schema import recipe_schema
from precision_search.wire import known_names

_INTRO = """A recipe is a YAML file: what to search, on which card, and what must still hold. `precision-search init`
writes a commented one, `check` names every mistake of one at once, `--set KEY=VALUE` sets any key on the command line,
and `precision-search schema` prints the schema that this page is made of, by which an editor completes. Unknown keys
are mistakes."""
_HEAD = "| key | may hold | default | meaning |\n|---|---|---|---|"


def recipe() -> str:
    """Every key of a recipe, section by section, with what it may hold."""
    schema = recipe_schema(known_names().nouns)
    sections: list[tuple[str, dict[str, Any]]] = []
    parts = ["# The recipe", _INTRO, _table(schema, schema, "", sections)]
    done = set()
    while sections:
        path, node = sections.pop(0)
        if path in done:
            continue
        done.add(path)
        parts += [f"## {path}", node.get("description", ""), _table(schema, node, path, sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(schema: dict[str, Any], node: dict[str, Any], path: str, sections: list[tuple[str, dict[str, Any]]]) -> str:
    rows = []
    for key, given in node["properties"].items():
        where = f"{path}.{key}" if path else key
        below = list(_below(schema, given, where))
        sections += below
        # A section's own sentence stands under its heading.
        said = given.get("description") or (below[0][1].get("description", "") if below else "")
        default = "must be given" if key in node.get("required", ()) else _default(given)
        cells = (f"`{key}`", _held(schema, given, where), default, " ".join(said.split()))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([_HEAD, *rows])


def _below(schema: dict[str, Any], node: dict[str, Any], path: str) -> Any:
    """The sections that may stand at a key, each with the path that it has there."""
    if "$ref" in node:
        yield path, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _below(schema, branch, path)
    for branch in _inner(node):
        yield from _below(schema, branch, path)


def _inner(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What the entries of a list, or of a mapping of any keys, may hold."""
    inner = (node.get("items"), *node.get("patternProperties", {}).values(), node.get("additionalProperties"))
    return [branch for branch in inner if isinstance(branch, dict)]


def _held(schema: dict[str, Any], node: dict[str, Any], path: str) -> str:
    if "$ref" in node:
        return f"[section](#{path.replace('.', '')})"
    if branches := [
        branch for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())) if branch.get("type") != "null"
    ]:
        return "; or ".join(dict.fromkeys(_held(schema, branch, path) for branch in branches))
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    kind = node.get("type")
    if kind == "array":
        return f"list of {_held(schema, node['items'], path)}" if node.get("items") else "list"
    if kind == "object":
        return " to ".join(["mapping of names", *(_held(schema, branch, path) for branch in _inner(node)[:1])])
    if isinstance(kind, list):
        return " or ".join(kind)
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(kind, "anything") + _limits(node)


def _limits(node: dict[str, Any]) -> str:
    words = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    said = [f"{word} {node[key]:g}" for key, word in words if key in node]
    return f", {', '.join(said)}" if said else ""


def _default(node: dict[str, Any]) -> str:
    default = node.get("default")
    return "-" if default in (None, [], {}) else f"`{json.dumps(default) if not isinstance(default, str) else default}`"
