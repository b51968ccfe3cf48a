"""Recurrent: LSTM, GRU and RNN, layers and cells, as the matrix products that they are made of.

What comes in from below is multiplied over all steps at once, what comes from the step before step by step. Gates are
computed as torch does without a fused kernel (aten/src/ATen/native/RNN.cpp), so results differ from torch's by the
order in which products are summed, and no more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voice.spellings import Calls, Spelling, is_plain

_State = tuple[Tensor, ...]
"""What a step leaves to the next, [batch, hidden] each: the output first; of an LSTM then the cell."""
_Product = Callable[[Tensor], Tensor]
"""A matrix product with one site's weight."""


class _Kind(ABC):
    """What the kinds of recurrent layers differ in."""

    states: int
    """How many tensors a state has."""

    @abstractmethod
    def step(self, fresh: Tensor, past: Tensor, state: _State) -> _State:
        """One step, from the products with its input and with the last output, [batch, gates * hidden] each."""


class _Lstm(_Kind):
    states = 2

    def step(self, fresh: Tensor, past: Tensor, state: _State) -> _State:
        entering, forgetting, made, leaving = (fresh + past).chunk(4, -1)
        cell = forgetting.sigmoid() * state[1] + entering.sigmoid() * made.tanh()
        return leaving.sigmoid() * cell.tanh(), cell


class _Gru(_Kind):
    states = 1

    def step(self, fresh: Tensor, past: Tensor, state: _State) -> _State:
        reset, kept, made = fresh.chunk(3, -1)
        past_reset, past_kept, past_made = past.chunk(3, -1)
        made = (made + past_made * (reset + past_reset).sigmoid()).tanh()
        return ((state[0] - made) * (kept + past_kept).sigmoid() + made,)


class _Rnn(_Kind):
    states = 1

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        self._bend = bend

    def step(self, fresh: Tensor, past: Tensor, state: _State) -> _State:
        return (self._bend(fresh + past),)


@dataclass(frozen=True, slots=True)
class _Direction:
    """One direction of one layer: its products, made once for all steps."""

    kind: _Kind
    from_below: _Product
    from_before: _Product
    project: _Product | None

    def step(self, fresh: Tensor, state: _State) -> _State:
        first, *rest = self.kind.step(fresh, self.from_before(state[0]), state)
        return (first if self.project is None else self.project(first), *rest)

    def run(self, x: Tensor, state: _State, *, backwards: bool) -> tuple[Tensor, _State]:
        """Run over x [batch, time, features]; gives outputs [batch, time, hidden] and the last state."""
        steps = self.from_below(x).unbind(1)
        outputs: list[Tensor] = []
        for fresh in reversed(steps) if backwards else steps:
            state = self.step(fresh, state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backwards else outputs, 1), state

    def run_packed(self, x: Tensor, sizes: list[int], state: _State, *, backwards: bool) -> tuple[Tensor, _State]:
        """As `run`, over x [rows, features]: of each step `sizes` rows, for the sequences that are so long."""
        steps = torch.split(self.from_below(x), sizes)
        outputs: list[Tensor] = []
        for fresh in reversed(steps) if backwards else steps:
            count = len(fresh)
            now = self.step(fresh, tuple(part[:count] for part in state))
            outputs.append(now[0])
            # Sequences that have ended, or backwards have not begun, wait.
            waiting = len(state[0]) > count
            state = tuple(map(_joined, now, (part[count:] for part in state))) if waiting else now
        return torch.cat(outputs[::-1] if backwards else outputs), state


def _joined(upper: Tensor, lower: Tensor) -> Tensor:
    return torch.cat((upper, lower))


def _layer(kind: _Kind) -> Callable[..., Any]:
    """What stands for torch.lstm and the like, of a tensor or of packed sequences."""

    def run(calls: Calls, *arguments: Any) -> tuple[Tensor, ...] | None:
        if len(arguments) != 9:
            return None
        # Packed: data, batch sizes, states, weights ...; else: x, states, weights ... and whether the batch is first.
        packed = isinstance(arguments[3], list | tuple)
        x, hx, weights = (arguments[0], *(arguments[2:4] if packed else arguments[1:3]))
        has_biases, layers, dropout, training, both = arguments[4:9] if packed else arguments[3:8]
        states: _State = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if not is_plain(x, *states, *weights) or len(states) != kind.states or not x.numel():
            return None
        stack = _stack(calls, kind, weights, layers, has_biases=has_biases, both=both)
        if stack is None:
            return None
        batch_first = packed or arguments[8]
        x = x if batch_first else x.transpose(0, 1)
        sizes = arguments[1].tolist() if packed else []
        calls.unrolled((len(sizes) if packed else x.shape[1]) * len(states[0]))
        last: list[_State] = []
        for layer, directions in enumerate(stack):
            if layer and dropout and training:
                # Torch draws with time before batch.
                drawn = x if packed else x.transpose(0, 1).contiguous()
                drawn = torch.dropout(drawn, dropout, True)
                x = drawn if packed else drawn.transpose(0, 1)
            made = []
            for direction, backwards in zip(directions, (False, True), strict=False):
                start = tuple(part[len(last)] for part in states)
                if packed:
                    outputs, end = direction.run_packed(x, sizes, start, backwards=backwards)
                else:
                    outputs, end = direction.run(x, start, backwards=backwards)
                made.append(outputs)
                last.append(end)
            x = torch.cat(made, -1) if both else made[0]
        # Whoever takes views of what torch gives can take them of this.
        x = x if batch_first else x.transpose(0, 1).contiguous()
        return (x, *(torch.stack(parts) for parts in zip(*last, strict=True)))

    return run


def _stack(
    calls: Calls, kind: _Kind, weights: Sequence[Tensor], layers: int, *, has_biases: bool, both: bool
) -> list[list[_Direction]] | None:
    """The directions of every layer; None where a weight has no site."""
    count = len(weights) // (layers * (2 if both else 1))
    parts: Iterator[Tensor] = iter(weights)
    stack: list[list[_Direction]] = []
    for layer in range(layers):
        stack.append([])
        for ending in ("", "_reverse") if both else ("",):
            below, before = next(parts), next(parts)
            biases = (next(parts), next(parts)) if has_biases else (None, None)
            held = [("ih", below, biases[0]), ("hh", before, biases[1])]
            if count == (5 if has_biases else 3):
                held.append(("hr", next(parts), None))
            products = [_product(calls, weight, bias, f"weight_{name}_l{layer}{ending}") for name, weight, bias in held]
            if any(product is None for product in products):
                return None
            from_below, from_before, *project = (product for product in products if product is not None)
            stack[-1].append(_Direction(kind, from_below, from_before, project[0] if project else None))
    return stack


def _product(calls: Calls, weight: Tensor, bias: Tensor | None, name: str) -> _Product | None:
    """A product with a weight; None where it has no site."""
    site = calls.named_site(weight, name)
    if site is None:
        return None
    return lambda x: calls.call(site, "linear", x, weight, bias)


def _cell(kind: _Kind) -> Callable[..., Any]:
    """What stands for torch.lstm_cell and the like: one step."""

    def run(
        calls: Calls,
        input: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        state: _State = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if not is_plain(input, *state, w_ih, w_hh) or len(state) != kind.states or input.ndim != 2:
            return None
        below, before = _product(calls, w_ih, b_ih, "weight_ih"), _product(calls, w_hh, b_hh, "weight_hh")
        if below is None or before is None:
            return None
        calls.unrolled(1)
        state = _Direction(kind, below, before, None).step(below(input), state)
        return state if kind.states > 1 else state[0]

    return run


_KINDS = {"lstm": _Lstm(), "gru": _Gru(), "rnn_tanh": _Rnn(torch.tanh), "rnn_relu": _Rnn(torch.relu)}
RECURRENT: dict[Any, Spelling] = {
    getattr(torch, name): Spelling(_layer(kind), frozenset()) for name, kind in _KINDS.items()
} | {
    getattr(torch, f"{name}_cell"): Spelling(_cell(kind), frozenset({"b_ih", "b_hh"})) for name, kind in _KINDS.items()
}
