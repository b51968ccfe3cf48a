"""ChannelOrders: channels between two sites in an order that puts like magnitudes into one block.

The order is folded into both sites' weights, so it costs nothing on the card. Here the producer's result is put back
into the model's own order and the consumer's input out of it, which gives the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from calibrate.moments import Moments
from precision.policy import Lever, Scheme
from voice.chains import channel_axis, reorder
from voice.site_call import SiteCall

CHANNEL_ORDER: Lever = "channel_order"


@dataclass(slots=True)
class ChannelOrders:
    """Orders of the channels between chained sites, each found when its producer first runs."""

    chains: Mapping[str, str] = field(default_factory=dict)
    """Consumer of each producer; see `voice.chains.find_chains`."""
    _orders: dict[str, Tensor] = field(default_factory=dict)
    _producers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn the chains round."""
        self._producers = {consumer: producer for producer, consumer in self.chains.items()}

    def of(self, call: SiteCall, schemes: Mapping[str, Scheme]) -> "Reordered":
        """A call as it runs on the card, where the schemes of its site or of its producer have the lever.

        Raises:
            ValueError: the site's scheme has the lever and the site is no producer of a chain.
        """
        order_in = order_out = None
        producer = self._producers.get(call.site)
        if producer is not None and producer in schemes and CHANNEL_ORDER in schemes[producer].levers:
            order_in = self._orders.get(producer)  # None where the producer has not run in this process: it runs first
        if CHANNEL_ORDER in schemes[call.site].levers and not call.is_product:
            if call.site not in self.chains:
                raise ValueError(
                    f"site {call.site}: lever {CHANNEL_ORDER}, and not one site alone reads its channels; drop the"
                    " lever there"
                )
            order_out = self._orders.get(call.site)
            if order_out is None:
                order_out = self._orders[call.site] = _by_magnitude(call)
        return Reordered.of(call, order_in, order_out)


@dataclass(frozen=True, slots=True, eq=False)
class Reordered:
    """A call with its channels in the card's order."""

    call: SiteCall
    order_in: Tensor | None
    """Order of the inputs, where it is not the model's: weights are prepared apart for that."""
    _inverse: Tensor | None

    @classmethod
    def of(cls, call: SiteCall, order_in: Tensor | None, order_out: Tensor | None) -> "Reordered":
        """Reorder inputs and outputs where an order is given."""
        weight, bias, x = call.weight, call.bias, call.x
        if order_in is not None:
            x = x.index_select(channel_axis(call), order_in)
            weight = reorder(call, weight, order_in, inputs=True)
        if order_out is not None:
            weight = reorder(call, weight, order_out, inputs=False)
            bias = None if bias is None else bias.index_select(0, order_out)
        if order_in is None and order_out is None:
            return cls(call, None, None)
        inverse = None if order_out is None else order_out.argsort()
        return cls(replace(call, x=x, weight=weight, bias=bias), order_in, inverse)

    def moments(self, moments: Moments) -> Moments:
        """Moments of the inputs in their order; K runs over taps, then over channels."""
        if self.order_in is None:
            return moments
        channels = len(self.order_in)
        taps = torch.arange(0, moments.mean.shape[1], channels)
        index = (taps[:, None] + self.order_in).flatten()
        return Moments(moments.mean[:, index], moments.second[:, index][:, :, index], moments.rows)

    def restore(self, result: Tensor) -> Tensor:
        """Put a result into the model's order."""
        return result if self._inverse is None else result.index_select(channel_axis(self.call), self._inverse)


def _by_magnitude(call: SiteCall) -> Tensor:
    """Output channels by falling norm of their weights; equal ones keep their order."""
    axis = 1 if call.op == "conv_transpose1d" else 0
    norms = call.weight.detach().double().transpose(0, axis).flatten(1).norm(dim=1)
    order: Tensor = norms.argsort(descending=True, stable=True)
    return order
