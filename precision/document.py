"""Document: the YAML of a recipe as plain data, with the line each value stands on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from precision.mistakes import Mistake, Path, path_text, shown

_DEPTH = 16  # a recipe needs five; more would only feed the recursion
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]{1,19}$")
_FLOAT = re.compile(r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", re.IGNORECASE)
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: `1e-3` is a number, `no` is text and `2026-11-20` is not a date."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own class state
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; refuse aliases (a recipe is short and complete) and nesting without end."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "an alias; write the value out where it is used", mark)
        if self.depth > _DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nesting deeper than {_DEPTH} levels", mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would take for something other than text."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds line ends, Unicode's too, in every style but the one with escapes.
    style = '"' if re.search("[\n\r\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)

for _name, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


class YamlError(ValueError):
    """Text that is not YAML, with line and column."""


@dataclass(slots=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None), where each value stands, and the YAML's own mistakes."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    overridden: set[Path] = field(default_factory=set)

    @classmethod
    def parse(cls, text: str) -> "Document":
        """Read one YAML document.

        Raises:
            YamlError: the text is not YAML, holds several documents, aliases or tags, or nests too deep.
        """
        document = cls(None)
        node = _compose(text)
        document.data = document._build(node, ()) if node is not None else None
        return document

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            built: dict[str, Any] = {}
            for key, child in node.value:
                name = _key(key)
                line = key.start_mark.line + 1
                if name in built:
                    said = f"stands twice (lines {self.lines[(*path, name)]} and {line}), must be given once"
                    self.mistakes.append(Mistake((*path, name), said))
                    continue
                built[name] = self._build(child, (*path, name))
                self.lines[(*path, name)] = line
            return built
        return _scalar(node)

    def override(self, assignments: Sequence[str]) -> None:
        """Set values as `--set` gives them: `key.path=value`, the value in YAML; what cannot be set is a mistake."""
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            said = f"--set {assignment}: "
            path = _parse_path(key.strip())
            if not equals or path is None:
                self.mistakes.append(Mistake((), f"{said}must be key.path=value, such as search.seed=1"))
                continue
            try:
                value = Document.parse(text).data
            except YamlError as error:
                self.mistakes.append(Mistake(path, f"{said}the value is not YAML: {error}"))
                continue
            refused = self._assign(path, value)
            if refused:
                self.mistakes.append(Mistake(path, said + refused))

    def _assign(self, path: Path, value: object) -> str | None:
        target = self.data
        for depth, step in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(target, dict) and isinstance(step, str):
                if last:
                    target[step] = value
                elif target.get(step) is None:
                    if isinstance(path[depth + 1], int):
                        listed = path_text(path[: depth + 1])
                        return f"{listed} is not there to have entries; set all of it, as {listed}=[...]"
                    target[step] = {}
                    self.overridden.add(path[: depth + 1])
            elif isinstance(target, list) and isinstance(step, int):
                if step >= len(target):
                    return f"{path_text(path[:depth])} has {len(target)} entries, counted from 0"
                if last:
                    target[step] = value
            else:
                return f"{path_text(path[:depth])} is {shown(target)} and has no {step!r}"
            if not last:
                target = target[step]
        self.overridden.add(path)
        return None

    def where(self, path: Path) -> str:
        """Name the place of a value: path, and line or `--set`."""
        if any(path[: len(prefix)] == prefix for prefix in self.overridden):
            return f"{path_text(path)} (--set)"
        return f"{path_text(path)} (line {self.lines[path]})" if path in self.lines else path_text(path)

    def told(self, mistakes: Sequence[Mistake]) -> list[str]:
        """Word mistakes as lines, in the order of the file; what has no line comes last."""
        ordered = sorted(mistakes, key=lambda mistake: self.lines.get(mistake.path, 1 << 30))
        said = (
            m.text if not m.path or m.text.startswith("--set") else f"{self.where(m.path)}: {m.text}" for m in ordered
        )
        return list(dict.fromkeys(said))

    def walk(self, *pattern: str) -> Iterator[tuple[Path, Any]]:
        """Find every value at a path in which `*` stands for any key or index; what is not there is passed over."""
        yield from _walk(self.data, pattern, ())


def dump(data: Mapping[str, Any]) -> str:
    """Write plain data as YAML that `Document.parse` reads back as the same data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    return text


def flow(value: object) -> str:
    """Write a value as one line of YAML, to stand after a key."""
    text: str = yaml.dump(
        [value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, allow_unicode=True, width=1e9
    )
    return text.strip()[1:-1]


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
        _refuse_tags(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise YamlError(f"{place}{error.problem}{context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise YamlError(
            f"line {line}, column {column}: a character YAML does not allow (#x{error.character:04x})"
        ) from error
    return node


def _refuse_tags(node: yaml.Node | None) -> None:
    if node is None:
        return
    plain = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}
    if node.tag not in plain or (isinstance(node, yaml.ScalarNode) and not _fits(node)):
        raise yaml.MarkedYAMLError(None, None, f"the tag {node.tag!r}; a recipe holds plain values", node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _refuse_tags(key)
            _refuse_tags(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_tags(value)


def _fits(node: yaml.ScalarNode) -> bool:
    patterns = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}
    pattern = patterns.get(node.tag.removeprefix(_TAG))
    # A lone surrogate can be written as an escape and then not be saved again.
    return pattern.match(node.value) is not None if pattern else not re.search("[\ud800-\udfff]", node.value)


def _scalar(node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(_TAG)
    text = str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _key(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "a key that is not text"


def _parse_path(text: str) -> Path | None:
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            return None
        steps.append(match[1] if match[1] is not None else int(match[2]))
        position = match.end()
    return tuple(steps) or None


def _walk(data: Any, pattern: Sequence[str], path: Path) -> Iterator[tuple[Path, Any]]:
    if not pattern:
        yield path, data
        return
    children: list[tuple[str | int, Any]] = []
    if isinstance(data, dict):
        children = (
            list(data.items()) if pattern[0] == "*" else [(pattern[0], data[pattern[0]])] if pattern[0] in data else []
        )
    elif isinstance(data, list) and pattern[0] == "*":
        children = list(enumerate(data))
    for step, child in children:
        yield from _walk(child, pattern[1:], (*path, step))
