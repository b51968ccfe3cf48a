"""Hosted: host.py, the text of what a program leaves in torch on the host."""

import re

import numpy as np
from numpy.typing import NDArray

from backends.tenstorrent.packed import WEIGHTS
from backends.tenstorrent.program import HostStep, Program

CONSTANTS = f"{WEIGHTS}/host.npz"


def host_steps(program: Program) -> tuple[HostStep, ...]:
    """Host steps in order; the first is `host_0` of host.py."""
    return tuple(step for step in program.steps if isinstance(step, HostStep))


def host_constants(program: Program) -> dict[str, NDArray[np.generic]]:
    """The constants that host steps read, by name."""
    code = "\n".join(step.code for step in host_steps(program))
    return {name: array for name, array in program.host_constants.items() if re.search(rf"\b{name}\b", code)}


def host_module(program: Program) -> str:
    """Text of host.py: a function for each host step, which takes host arrays and gives a tuple of them."""
    constants = host_constants(program)
    lines = [
        '"""What the program leaves on the host: operations of torch, of the shapes that the program is for."""',
        "",
    ]
    lines += ["from pathlib import Path", ""] if constants else []
    lines += ["import numpy as np", "import torch", ""]
    if constants:
        lines.append(f'with np.load(Path(__file__).parent / "{CONSTANTS}") as held:')
        lines += [f'    {name} = torch.from_numpy(held["{name}"])' for name in constants]
        lines.append("")
    for number, step in enumerate(host_steps(program)):
        lines += ["", *_function(number, step), ""]
    return "\n".join(lines)


def _function(number: int, step: HostStep) -> list[str]:
    names = ", ".join(step.inputs)
    taken = [f"    {name} = torch.from_numpy(np.array({name}))" for name in step.inputs]
    results = ", ".join(f"{value.name}.detach().numpy()" for value in step.results)
    return [
        "@torch.no_grad()",
        f"def host_{number}({names}):",
        f'    """Of {step.source or "the model"}."""',
        *taken,
        *(f"    {line}" for line in step.code.splitlines()),
        f"    return ({results},)",
    ]
