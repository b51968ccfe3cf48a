"""Program: a model under a policy as operations of TT-NN, in order, with every choice made.

What a lowering gives, an emission writes down as Python and a simulation computes. It names neither torch nor ttnn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from precision.policy import Fidelity

Layout = Literal["tile", "row_major"]
Memory = Literal["dram", "l1"]
DTYPES: Mapping[str, str] = {
    "bf16": "bfloat16",
    "fp32": "float32",
    "bfp8_b": "bfloat8_b",
    "bfp4_b": "bfloat4_b",
    "uint32": "uint32",
    "int32": "int32",
}
"""Names of ttnn's types by ours."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor while a program runs."""

    name: str
    """A Python identifier, unique in the program."""
    shape: tuple[int, ...]
    """On the card as ttnn has it, at most four axes; without the padding of tiles."""
    dtype: str
    """On the card a key of DTYPES; on the host a type of numpy."""
    place: Literal["card", "host"] = "card"
    layout: Layout = "tile"
    memory: Memory = "dram"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Weights and tables, packed by ttnn on the host and moved to the card once, when the program is loaded."""

    value: Value
    """What it is on the card; of a convolution's weight, [out, in / groups, 1, taps], the type it is prepared in."""
    values: np.ndarray[Any, Any]
    """float32 (uint32 for indices) in the shape of `value`. Of a site numbers that the stored format holds exactly; of
    others ttnn rounds them as it packs."""
    file_dtype: str
    """Type that its .tensorbin has."""
    file_layout: Layout
    on_host: bool = False
    """Whether it stays a host tensor: ttnn prepares the weights of convolutions itself, at the first call."""
    site: str | None = None
    col_tilize: bool = False
    """Whether blocks of exponents lie along K: the weight lies transposed, [n, k], and the product turns it."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Every field of a compute kernel config."""

    fidelity: Fidelity
    fp32_accumulation: bool
    packer_l1_acc: bool = False
    approximate: bool = False
    full_sync: bool = False


@dataclass(frozen=True, slots=True)
class CardStep:
    """One operation on the card."""

    op: str
    """A key of `backends.tenstorrent.emission.OPS`."""
    inputs: tuple[str, ...]
    """Names of values, constants, or state."""
    result: Value
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the operation needs beyond: numbers, texts, tuples of them. `upload` takes the host array as
    `array.reshape(view).transpose(order)`, with `kept` only where it changed since the last run; `download` gives
    `array.transpose(order).reshape(shape)` as float32."""
    compute: Compute | None = None
    """None where ttnn takes none."""
    site: str | None = None
    """The site that it computes."""
    source: str = ""
    """Path of the module that it comes from."""


@dataclass(frozen=True, slots=True)
class HostStep:
    """Operations left in torch on the host."""

    inputs: tuple[str, ...]
    """Names of host values."""
    results: tuple[Value, ...]
    code: str
    """Lines of Python that compute the results' names from the inputs', as torch tensors; `torch` is there."""
    source: str = ""


Step = CardStep | HostStep


@dataclass(frozen=True, slots=True)
class State:
    """What a streaming program keeps on the card from one chunk to the next; zeros at first."""

    value: Value
    """What it is read as."""
    update: str
    """Name of the value that it is from then on."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """All of it."""

    architecture: Literal["wormhole", "blackhole"]
    card: str
    inputs: tuple[Value, ...]
    """Host values, in the order in which the voice takes them."""
    constants: Mapping[str, Constant]
    """Of the card, by name."""
    host_constants: Mapping[str, np.ndarray[Any, Any]]
    """Of host steps, by name."""
    steps: tuple[Step, ...]
    outputs: Mapping[str, str]
    """Part of the rendering (`waveform`, `text`, `audio.0`) -> name of a host value."""
    states: Mapping[str, State] = field(default_factory=dict)
    """By the name under which steps read them."""
    streaming_sites: frozenset[str] = frozenset()
    """Sites that run once a chunk."""
    left_on_host: tuple[str, ...] = ()
    """Operations that the card waits for while the host computes them, each with the reason."""
