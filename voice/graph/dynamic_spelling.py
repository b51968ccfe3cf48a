"""Spelling: operations written so that they name no size, where that says the same at every length."""

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from voice.graph.canon import name_of
from voice.graph.dynamic_sizes import Lengths, Row

_END = 2**63 - 1
"""Where a slice ends that goes on to the end."""


def without_sizes(column: Sequence[Node], lengths: Lengths) -> list[list[Any]]:
    """Arguments of an operation in all graphs, sizes that change left out of them where they can be.

    A reshape infers one size (-1); an expand keeps those that its source has (-1); slices and select count from the
    end. What is left over is as it was.
    """
    arguments = [list(node.args) for node in column]
    name = name_of(column[0])
    if name == "reshape":
        _infer(arguments, lengths)
    elif name == "expand":
        _keep(arguments)
    elif name in ("slice", "select"):
        _count_back(arguments, (2, 3) if name == "slice" else (2,))
    return arguments


def _infer(arguments: list[list[Any]], lengths: Lengths) -> None:
    rows = _rows([shape for _, shape in arguments])
    changing = [place for place, row in enumerate(rows) if len(set(row)) > 1]
    unfit = [place for place in changing if lengths.fit(rows[place]) is None]
    asked = changing if len(changing) == 1 else unfit
    # A tensor without numbers has no size to infer.
    if len(asked) == 1 and not any(0 in row for row in rows):
        _put(arguments, asked[0], -1)


def _keep(arguments: list[list[Any]]) -> None:
    rows = _rows([shape for _, shape in arguments])
    before = _rows([source.meta["val"].shape for source, _ in arguments])
    added = len(rows) - len(before)
    for place, row in enumerate(rows):
        if place >= added and len(set(row)) > 1 and row == before[place - added]:
            _put(arguments, place, -1)


def _put(arguments: list[list[Any]], place: int, size: int) -> None:
    for each in arguments:
        each[1] = [size if index == place else other for index, other in enumerate(each[1])]


def _count_back(arguments: list[list[Any]], places: Sequence[int]) -> None:
    wholes = [source.meta["val"].shape[axis] for source, axis, *_ in arguments]
    for place in places:
        back = {each[place] - whole for each, whole in zip(arguments, wholes, strict=True)}
        if len({each[place] for each in arguments}) > 1 and len(back) == 1:
            (position,) = back
            for each in arguments:
                each[place] = position or _END


def _rows(shapes: Sequence[Sequence[int]]) -> list[Row]:
    return list(zip(*shapes, strict=True))
