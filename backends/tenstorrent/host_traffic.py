"""HostTraffic: what a program moves between host and card beyond its input and output, and why."""

from dataclasses import dataclass
from math import prod

import numpy as np

from backends.tenstorrent.program import CardStep, HostStep, Program, Value


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Operations left on the host in the midst of a program."""

    source: str
    """Path of the module that they are of."""
    down_bytes: int
    """From the card."""
    up_bytes: int
    """To the card."""
    code: str

    @property
    def stops_the_card(self) -> bool:
        """Whether the card waits for it: what needs nothing of the card can be done before it begins."""
        return self.down_bytes > 0


def round_trips(program: Program) -> tuple[RoundTrip, ...]:
    """Every host step of a program, with what must come from the card for it and go back."""
    made = {step.result.name: step for step in program.steps if isinstance(step, CardStep) and step.op == "download"}
    sent = {
        name for step in program.steps if isinstance(step, CardStep) and step.op == "upload" for name in step.inputs
    }
    return tuple(
        RoundTrip(
            step.source,
            sum(host_bytes(made[name].result) for name in step.inputs if name in made),
            sum(host_bytes(value) for value in step.results if value.name in sent),
            step.code,
        )
        for step in program.steps
        if isinstance(step, HostStep)
    )


def host_bytes(value: Value) -> int:
    """Bytes of a host value; of one on the card, those of its values in float32."""
    size = np.dtype(value.dtype).itemsize if value.place == "host" else 4
    return prod(value.shape) * size
