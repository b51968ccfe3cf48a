"""ChannelOrders: channels between two sites in an order that puts like magnitudes into one block.

The order is folded into both sites' weights, so it costs nothing on the card. Here the producer's result is put back
into the model's own order and the consumer's input out of it, which gives the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from precision.policy import Scheme
from voice.chains import channel_axis, reorder
from voice.site_call import SiteCall

LEVER = "channel_order"


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
        if producer is not None and producer in schemes and LEVER in schemes[producer].levers:
            order_in = self._orders.get(producer)  # None where the producer has not run in this process: it runs first
        if LEVER in schemes[call.site].levers:
            if call.site not in self.chains:
                raise ValueError(
                    f"site {call.site}: lever {LEVER}, and more than one site reads its channels, or none that can"
                    " be reordered; drop the lever there"
                )
            order_out = self._orders.get(call.site)
            if order_out is None:
                order_out = self._orders[call.site] = _by_magnitude(call)
        return Reordered.of(call, order_in, order_out)


@dataclass(frozen=True, slots=True, eq=False)
class Reordered:
    """A call with its channels in the card's order."""

    call: SiteCall
    order_in: bool
    """Whether the inputs are in another order than the model's: weights are prepared apart for that."""
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
            return cls(call, False, None)
        inverse = None if order_out is None else order_out.argsort()
        return cls(replace(call, x=x, weight=weight, bias=bias), order_in is not None, inverse)

    def restore(self, result: Tensor) -> Tensor:
        """Put a result into the model's order."""
        return result if self._inverse is None else result.index_select(channel_axis(self.call), self._inverse)


def _by_magnitude(call: SiteCall) -> Tensor:
    """Output channels by falling norm of their weights; equal ones keep their order."""
    axis = 1 if call.op == "conv_transpose1d" else 0
    norms = call.weight.detach().double().transpose(0, axis).flatten(1).norm(dim=1)
    return norms.argsort(descending=True, stable=True)
