"""simulate: compute a Program on the CPU, step by step, as the card would.

Products are exact to the bit (`ExactTensix`), and so are typecasts, uploads and everything that moves numbers. What the
vector unit computes is not covered by vectors: it is taken in float32 and rounded as the packer does it, so that a
card's own results lie some units in the last place of the result's type away.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import Arithmetic
from backends.tenstorrent.exact.arithmetic import ExactTensix
from backends.tenstorrent.program import CardStep, Constant, HostStep, Program, Step, Value
from backends.tenstorrent.simulation.formats import packed, uploaded, zeros
from backends.tenstorrent.simulation.movement import MOVEMENTS, to_card, to_host
from backends.tenstorrent.simulation.products import PRODUCTS, Read, SimulationError, product
from backends.tenstorrent.simulation.vectors import VECTORS

__all__ = ["SimulationError", "Simulator", "simulate"]


def simulate(
    program: Program, inputs: Mapping[str, Tensor], *, arithmetic: Arithmetic | None = None
) -> dict[str, Tensor]:
    """Compute a program once, its states zero; see `Simulator`."""
    return Simulator(program, arithmetic).run(inputs)


class Simulator:
    """A program loaded on a card that is not there; states stay from run to run."""

    def __init__(
        self,
        program: Program,
        arithmetic: Arithmetic | None = None,
        watch: Callable[[Value, Tensor], None] | None = None,
    ) -> None:
        """Load.

        Args:
            program: as a lowering gives it.
            arithmetic: of products; None is the card's own to the bit, `TensixArithmetic` a hundred times faster.
            watch: is shown every value that a step makes.
        """
        self._program = program
        exact = ExactTensix("wormhole_b0" if program.architecture == "wormhole" else "blackhole")
        self._arithmetic: Arithmetic = arithmetic or exact
        self._watch = watch
        self._known = {name: constant.value for name, constant in program.constants.items()}
        self._known |= {name: state.value for name, state in program.states.items()}
        self._known |= {value.name: value for value in program.inputs}
        self._constants = {name: _loaded(constant) for name, constant in program.constants.items()}
        self._host_constants = {name: _tensor(values) for name, values in program.host_constants.items()}
        self.states: dict[str, Tensor] = {
            name: zeros(state.value.shape, state.value.dtype) for name, state in program.states.items()
        }
        """What the program keeps, by name."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the program.

        Args:
            inputs: host tensors by name, of the shapes and types that the program lists.

        Returns:
            Its outputs by name. NaN becomes Inf wherever the packer stores it as a type shorter than fp32.

        Raises:
            SimulationError: inputs that do not fit; a step that reads what is not there, has another shape than its
                result says, or is not covered.
        """
        held = {**self._constants, **self.states, **self._taken(inputs)}
        readers = Counter(name for step in self._program.steps for name in step.inputs)
        readers.update([*self._program.outputs.values(), *(state.update for state in self._program.states.values())])
        with torch.no_grad():
            for step in self._program.steps:
                self._step(step, held)
                for name in step.inputs:
                    readers[name] -= 1
                    if not readers[name] and name not in self._constants:
                        held.pop(name, None)
        self.states = {
            name: _found(held, state.update, f"state {name}") for name, state in self._program.states.items()
        }
        return {part: _found(held, name, f"output {part}") for part, name in self._program.outputs.items()}

    def _taken(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        wanted = {value.name: value for value in self._program.inputs}
        faults = [f"{name} is missing" for name in wanted if name not in inputs]
        faults += [f"{name} is not one of {', '.join(wanted)}" for name in inputs if name not in wanted]
        for name in wanted.keys() & inputs.keys():
            fault = _mismatch(wanted[name], inputs[name])
            faults += [f"{name} {fault}"] if fault else []
        if faults:
            raise SimulationError("inputs do not fit the program: " + "; ".join(sorted(faults)))
        return {name: inputs[name].detach() for name in wanted}

    def _step(self, step: Step, held: dict[str, Tensor]) -> None:
        results = step.results if isinstance(step, HostStep) else (step.result,)
        what = results[0].name if results else "a host step"
        given = {name: _found(held, name, what) for name in step.inputs}
        if isinstance(step, HostStep):
            made = self._on_host(step, given)
        else:
            made = [self._on_card(step, given)]
            if step.op == "copy":
                held[step.inputs[1]] = made[0]
        for value, values in zip(results, made, strict=True):
            fault = _mismatch(value, values)
            if fault:
                raise SimulationError(f"{value.name} {fault}")
            self._known[value.name] = value
            held[value.name] = values
            if self._watch is not None:
                self._watch(value, values)

    def _on_card(self, step: CardStep, given: Mapping[str, Tensor]) -> Tensor:
        inputs, dtype = [given[name] for name in step.inputs], step.result.dtype
        if step.op in PRODUCTS:
            reads = [Read(self._known[name], given[name], self._program.constants.get(name)) for name in step.inputs]
            return product(step, reads, self._arithmetic)
        if step.op == "upload":
            return uploaded(to_card(inputs[0], step.options), dtype)
        if step.op == "download":
            return to_host(inputs[0], step.options)
        compute = VECTORS.get(step.op) or MOVEMENTS.get(step.op)
        if compute is None:
            known = ", ".join(sorted({*PRODUCTS, "upload", "download", *VECTORS, *MOVEMENTS}))
            raise SimulationError(f"{step.result.name}: there is no operation {step.op!r}; there are {known}")
        return packed(compute(inputs, step.options), dtype)

    def _on_host(self, step: HostStep, given: Mapping[str, Tensor]) -> list[Tensor]:
        names: dict[str, Any] = {"torch": torch, **self._host_constants, **given}
        exec(step.code, names)  # the program's own lines, which an export runs in the same way
        return [_found(names, value.name, "a host step") for value in step.results]


def _loaded(constant: Constant) -> Tensor:
    """A constant on the card; that of a site holds what was stored, which is checked where it is used."""
    values = _tensor(constant.values)
    return values if constant.site is not None else uploaded(values, constant.value.dtype)


def _tensor(values: np.ndarray[Any, Any]) -> Tensor:
    # torch has few operations for unsigned whole numbers.
    array = values.astype(np.int64) if values.dtype == np.uint32 else values.copy()
    return torch.from_numpy(array)


def _found(held: Mapping[str, Tensor], name: str, reader: str) -> Tensor:
    if name not in held:
        raise SimulationError(f"{reader} reads {name!r}, which no step before it makes")
    return held[name]


def _mismatch(value: Value, values: Tensor) -> str:
    """What is wrong with values, "" where nothing is; types on the card are the simulation's own business."""
    dtype = str(values.dtype).removeprefix("torch.")
    if tuple(values.shape) == value.shape and (value.place == "card" or dtype == value.dtype):
        return ""
    return f"is {dtype}{list(values.shape)}, and the program has {value.dtype}{list(value.shape)}"
