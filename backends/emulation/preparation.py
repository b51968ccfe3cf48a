"""Preparation: the prepared weights of a model, shared by all engines that compute with them."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from backends.base import Arithmetic, Prepared
from backends.emulation.channel_order import ChannelOrders, Reordered
from calibrate.adapted import Operands
from calibrate.calibration import Calibration
from calibrate.moments import NEEDS_MOMENTS, Moments
from precision.policy import Scheme
from voice.site_call import SiteCall


class Preparation:
    """A cache of prepared weights by (site, scheme); the model's weights must not change while it lives."""

    def __init__(
        self,
        arithmetic: Arithmetic,
        moments: Mapping[str, Moments] | None = None,
        chains: Mapping[str, str] | None = None,
        adapted: Mapping[str, Mapping[str, Operands]] | None = None,
    ) -> None:
        """Start empty.

        Args:
            arithmetic: of the target.
            moments: of the inputs of sites, by name, for levers that ask for them.
            chains: consumer of each site whose channels may be reordered, for the lever that does it.
            adapted: digest -> site -> what it computes with in place of its own weights, where its scheme has a digest.
        """
        self.arithmetic = arithmetic
        self._moments = moments or {}
        self._adapted = {} if adapted is None else adapted
        self._orders = ChannelOrders(chains or {})
        # Layers that share a weight are one site, and each has its own bias, or none.
        self._held: dict[tuple[str, Scheme, bool], list[tuple[Tensor | None, Prepared]]] = {}

    def __len__(self) -> int:
        """Count what is held."""
        return sum(map(len, self._held.values()))

    def reader_of(self, site: str) -> str | None:
        """The site whose weights follow the order of this one's channels, where that order is free."""
        return self._orders.chains.get(site)

    def compute(self, call: SiteCall, schemes: Mapping[str, Scheme], calibration: Calibration | None) -> Tensor:
        """Compute a call under its site's scheme; `schemes` holds those of all sites that are lowered.

        Raises:
            TypeError: an operand is not float32.
            ValueError: the weight has another shape than at the site's first call; a lever asks for moments that are
                not there.
            KeyError: a scheme names trained weights, and there are none of its site.
        """
        scheme = schemes[call.site]
        if scheme.adapted is not None:
            operands = self._adapted[scheme.adapted][call.site]
            call = replace(call, weight=operands.weight, bias=operands.bias)
        _check_float32(call)
        reordered = self._orders.of(call, schemes)
        prepared = self._prepared(reordered, scheme)
        return reordered.restore(self.arithmetic.compute(reordered.call, scheme, prepared, calibration))

    def _prepared(self, reordered: Reordered, scheme: Scheme) -> Prepared:
        """Prepare the call's weight, or give what an earlier call prepared."""
        call = reordered.call
        if call.is_product:
            return self.arithmetic.prepare(call, scheme)
        key = (call.site, scheme, reordered.order_in is not None)
        known = self._held.setdefault(key, [])
        shape = next((held.weight.shape for _, held in known if held.weight is not None), call.weight.shape)
        if shape != call.weight.shape:
            raise ValueError(
                f"site {call.site}: weight was {tuple(shape)} and is {tuple(call.weight.shape)} now; one Preparation"
                " serves one model"
            )
        held = next((prepared for bias, prepared in known if _same(bias, call.bias)), None)
        if held is None:
            moments = self._moments_for(call.site, scheme)
            held = self.arithmetic.prepare(call, scheme, None if moments is None else reordered.moments(moments))
            known.append((call.bias, held))
        return held

    def _moments_for(self, site: str, scheme: Scheme) -> Moments | None:
        """Those of a site, asked for only where a lever does: they may lie in a file."""
        return self._moments.get(site) if NEEDS_MOMENTS.intersection(scheme.levers) else None


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or torch.equal(one, other)


def _check_float32(call: SiteCall) -> None:
    for operand, values in (("input", call.x), ("weight", call.weight)):
        if values.dtype != torch.float32:
            raise TypeError(
                f"site {call.site}: {operand} must be float32, got {values.dtype}; load the model in float32"
            )
