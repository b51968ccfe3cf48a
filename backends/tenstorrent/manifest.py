"""Manifest: program.json, by which an exported folder is loaded, run, planned and held against its policy."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from typing import Any

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.emission import call_of
from backends.tenstorrent.packed import SUFFIX, WEIGHTS
from backends.tenstorrent.program import CardStep, HostStep, Program, Step, Value
from backends.tenstorrent.tolerance import Tolerance

VERSION = 1
TTNN = "0.81.1"
HOST = "host.host_"
"""What the functions of host.py are called, with the number of the piece after it."""


def manifest(
    program: Program, tolerances: Mapping[str, Tolerance] | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Plain data of a program; `exported/runtime.py` says what it reads of it.

    Args:
        program: it.
        tolerances: of each output of the sample, by part.
        facts: what else is known: model, policy, clip.
    """
    held = _values(program)
    return {
        "version": VERSION,
        "ttnn": TTNN,
        "card": program.card,
        "architecture": program.architecture,
        "grid": list(CARDS[program.card].grid),
        **(facts or {}),
        "streaming": bool(program.states),
        "inputs": [_described(value) for value in program.inputs],
        "outputs": {
            part: {**_described(held[name]), "tolerance": None if tolerances is None else tolerances[part].to_dict()}
            for part, name in program.outputs.items()
        },
        "constants": {
            name: {
                "file": f"{WEIGHTS}/{name}{SUFFIX}",
                "shape": list(constant.value.shape),
                "dtype": constant.file_dtype,
                "layout": constant.file_layout,
                "on_host": constant.on_host,
                "card_dtype": constant.value.dtype,
                "site": constant.site,
            }
            for name, constant in program.constants.items()
        },
        "states": {name: {**_described(state.value), "update": state.update} for name, state in program.states.items()},
        "steps": _steps(program, held),
    }


def results_of(step: Step) -> tuple[Value, ...]:
    """What a step makes."""
    return (step.result,) if isinstance(step, CardStep) else step.results


def _values(program: Program) -> dict[str, Value]:
    held = {value.name: value for value in program.inputs}
    held |= {name: constant.value for name, constant in program.constants.items()}
    held |= {name: state.value for name, state in program.states.items()}
    for step in program.steps:
        held |= {value.name: value for value in results_of(step)}
    return held


def _described(value: Value) -> dict[str, Any]:
    data: dict[str, Any] = {"name": value.name, "shape": list(value.shape), "dtype": value.dtype, "place": value.place}
    return data if value.place == "host" else data | {"layout": value.layout, "memory": value.memory}


def _result(value: Value) -> dict[str, Any]:
    data = _described(value)
    return {"result": data.pop("name"), **data}


def _steps(program: Program, held: Mapping[str, Value]) -> list[dict[str, Any]]:
    """A line for each call of `forward` in order: the program's steps, then what is copied into state."""
    pieces = count()
    steps = [
        _card_step(step, held) if isinstance(step, CardStep) else _host_step(step, next(pieces))
        for step in program.steps
    ]
    steps += [
        {
            "call": "ttnn.copy",
            "op": "copy",
            "site": None,
            "source": "",
            "inputs": [state.update, name],
            "input_dtypes": [held[state.update].dtype],
            **_result(state.value),
            "compute": None,
        }
        for name, state in program.states.items()
        if state.update != name
    ]
    return [{"index": index, **step} for index, step in enumerate(steps)]


def _host_step(step: HostStep, number: int) -> dict[str, Any]:
    return {
        "call": f"{HOST}{number}",
        "op": "host",
        "site": None,
        "source": step.source,
        "inputs": list(step.inputs),
        "results": [_described(value) for value in step.results],
    }


def _card_step(step: CardStep, held: Mapping[str, Value]) -> dict[str, Any]:
    return {
        "call": call_of(step),
        "op": step.op,
        "site": step.site,
        "source": step.source,
        "inputs": list(step.inputs),
        "input_dtypes": [held[name].dtype for name in step.inputs],
        **_result(step.result),
        "compute": None if step.compute is None else asdict(step.compute),
    }
