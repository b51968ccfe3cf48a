"""Chains: pairs of sites whose channels between them may be reordered, folded into their weights at no cost."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voice.intercept import intercept
from voice.site_call import SiteCall

AGREEMENT_DB = 70.0
"""Least agreement of the reordered model's sound with its own: what is left is the order of sums in fp32."""
_OUT_AXIS = {"linear": 0, "conv1d": 0, "conv2d": 0, "conv_transpose1d": 1}
_IN_AXIS = {"linear": 1, "conv1d": 1, "conv2d": 1, "conv_transpose1d": 0}


class _BrokenError(Exception):
    """Reordering changed what the consumer gives."""


@dataclass(frozen=True, slots=True)
class _Call:
    site: str
    outputs: int
    inputs: int
    foldable: bool
    result: Tensor


def find_chains(module: nn.Module, run: Callable[[], Sequence[Tensor]]) -> dict[str, str]:
    """Find producer -> consumer pairs between which the order of channels means nothing.

    Tried is every site whose next call is of a site with as many inputs as it has outputs: the producer's channels are
    reversed, the consumer's weights too, and the model is run on. A pair holds where the consumer gives the same
    result and the model the same sound and logits: so nothing else reads those channels, and what lies between (an
    activation, a scale) treats all alike. Found out by running, not by reading the model, so it holds for any
    architecture.

    Args:
        module: the model; deterministic.
        run: renders one clip, a short one will do, and gives all that the model makes of it.

    Returns:
        Consumer of each producer, in the order of first calls. Sites called more than once, and grouped convolutions,
        are left out.
    """
    calls: list[_Call] = []

    def record(call: SiteCall) -> Tensor:
        result = call.compute()
        calls.append(_Call(call.site, _channels(call, _OUT_AXIS), _channels(call, _IN_AXIS), _foldable(call), result))
        return result.clone()

    with intercept(module, record):
        made = [part.clone() for part in run()]
    once = {call.site for call in calls if sum(other.site == call.site for other in calls) == 1}
    found: dict[str, str] = {}
    for index, (producer, consumer) in enumerate(itertools.pairwise(calls)):
        apart = {producer.site, consumer.site} <= once and producer.foldable and consumer.foldable
        if apart and producer.outputs == consumer.inputs > 1 and _holds(module, run, calls, index, made):
            found[producer.site] = consumer.site
    return found


def reorder(call: SiteCall, values: Tensor, order: Tensor, *, inputs: bool) -> Tensor:
    """Reorder the channels of a weight in torch's layout, on its side of inputs or of outputs."""
    return values.index_select((_IN_AXIS if inputs else _OUT_AXIS)[call.op], order)


def channel_axis(call: SiteCall) -> int:
    """Axis of the channels in a call's input and in its result."""
    return 1 if call.options is not None else -1


def _holds(
    module: nn.Module,
    run: Callable[[], Sequence[Tensor]],
    calls: Sequence[_Call],
    producer: int,
    made: Sequence[Tensor],
) -> bool:
    def handle(call: SiteCall) -> Tensor:
        if call.index < producer:
            return calls[call.index].result.clone()
        if call.index == producer:
            return calls[producer].result.flip(channel_axis(call))
        if call.index == producer + 1:
            backwards = torch.arange(calls[producer].outputs - 1, -1, -1, device=call.weight.device)
            result = call.compute(weight=reorder(call, call.weight, backwards, inputs=True))
            if not _agree(calls[call.index].result, result):
                raise _BrokenError
            return result
        return call.compute()

    try:
        with intercept(module, handle):
            return all(_agree(wanted, got) for wanted, got in zip(made, run(), strict=True))
    except _BrokenError:
        return False


def _agree(wanted: Tensor, got: Tensor) -> bool:
    error = (wanted.double() - got.double()).square().sum()
    return bool(error <= wanted.double().square().sum() * 10 ** (-AGREEMENT_DB / 10))


def _channels(call: SiteCall, axes: dict[str, int]) -> int:
    return 0 if call.is_product else call.weight.shape[axes[call.op]]


def _foldable(call: SiteCall) -> bool:
    return not call.is_product and (call.options is None or call.options.groups == 1)
