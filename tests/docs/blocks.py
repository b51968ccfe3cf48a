"""Blocks: the fenced blocks of a page, each with the mark before it that says what a test does with it.

A mark is a comment on the line before a block, which no reader sees: `<!-- test: run -->`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "python", "yaml", "text")
_FENCE = re.compile(r"^( *)(`{3,})(.*)$")
_MARK = re.compile(r"^<!-- test: (.*) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    line: int
    """Of its first line, counted from 1."""
    language: str
    text: str
    mark: str
    """What is said before it: `run` (a shell's commands), `prints` (of text: what the block before prints), `file NAME`
    (to be saved there), `part of NAME` (of YAML: a recipe, or a section of one), `each line` (alternatives), `not run:
    REASON`, `excerpt of SOMETHING` (no whole lines of Python); or nothing."""


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in its order."""
    found: list[Block] = []
    mark, fence, language, indent, begun, inside = "", "", "", 0, 0, []
    for number, line in enumerate(page.splitlines(), 1):
        matched = _FENCE.match(line)
        if fence:
            if matched and matched[2] == fence and not matched[3]:
                found.append(Block(begun, language, "".join(f"{line[indent:]}\n" for line in inside), mark))
                mark, fence, inside = "", "", []
            else:
                inside.append(line)
        elif matched:
            indent, fence, language, begun = len(matched[1]), matched[2], matched[3], number + 1
        elif told := _MARK.match(line.strip()):
            mark = told[1]
        elif line.strip():
            mark = ""
    assert not fence, f"the block of line {begun} does not end"
    return found


def pages() -> list[Path]:
    """Every page of the documents that somebody wrote."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> list[str]:
    """The commands of a shell's block, one each, comments left out."""
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in text.replace("\\\n", " ").splitlines()]
    return [command.strip() for line in lines for command in re.split(r"&&|\|", line) if command.strip()]


def agrees(printed: str, shown: str) -> bool:
    """Whether what was printed is what a page shows; lines of `...` there stand for any number of lines."""
    parts = [re.escape(line.rstrip()) + "\n" if line.strip() != "..." else "(.*\n)*" for line in shown.splitlines()]
    lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return re.fullmatch("".join(parts), lines) is not None
