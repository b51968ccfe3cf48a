"""Operands: what the card's memory holds of every site's weight and bias."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import Node

from backends.emulation.channel_order import ChannelOrders
from backends.tenstorrent.storage import store_operands
from calibrate.adapted import Operands as Trained
from calibrate.moments import NEEDS_MOMENTS, Moments
from precision.policy import Policy
from voice.chains import channel_axis
from voice.graph import SiteGraph, SiteNode, constant_of, site_nodes
from voice.site_call import SiteCall


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """Values in torch's layout, levers applied, channels in the card's order."""

    weight: Tensor
    bias: Tensor | None


def stored_operands(
    graph: SiteGraph,
    policy: Policy,
    moments: Mapping[str, Moments] | None = None,
    chains: Mapping[str, str] | None = None,
    adapted: Mapping[str, Mapping[str, Trained]] | None = None,
) -> dict[str, Operands]:
    """Round the weights of a graph as a policy has them stored.

    Args:
        graph: holds the model's own weights.
        policy: has a scheme for every site of the graph.
        moments: of the inputs of sites whose levers ask for them.
        chains: consumer of each site whose channels may be reordered.
        adapted: digest -> site -> what was trained in place of the model's own.

    Returns:
        Stored weight and bias of each site that has weights.

    Raises:
        KeyError: the policy lacks a site, or trained weights that it names are not there.
        ValueError: a weight is not finite, a lever lacks its moments, or layers share a weight and not its bias.
    """
    schemes = dict(policy.schemes)
    biases: dict[str, Node | None] = {}
    orders = ChannelOrders(chains or {})
    found: dict[str, Operands] = {}
    for site in site_nodes(graph):
        if site.is_product:
            continue
        if biases.setdefault(site.site, site.bias) is not site.bias:
            raise ValueError(
                f"site {site.site}: layers share its weight and have biases of their own, which is stored once for a"
                " site; give each layer a weight of its own"
            )
        if site.site in found:
            continue
        scheme = schemes[site.site]
        call = _call(graph, site)
        if scheme.adapted is not None:
            trained = (adapted or {})[scheme.adapted][site.site]
            call = replace(call, weight=trained.weight, bias=trained.bias)
        reordered = orders.of(call, schemes)
        wanted = (moments or {}).get(site.site) if NEEDS_MOMENTS.intersection(scheme.levers) else None
        kept = None if wanted is None else reordered.moments(wanted)
        found[site.site] = Operands(*store_operands(reordered.call, scheme, kept))
    return found


def _call(graph: SiteGraph, site: SiteNode) -> SiteCall:
    """A call of the site with its weights, and an input that has channels and little else."""
    weight = constant_of(graph, site.weight).detach()
    bias = None if site.bias is None else constant_of(graph, site.bias).detach()
    call = SiteCall(site.site, site.op, weight, weight, bias, site.options, is_product=False, index=0)
    shape = [1] * site.x.meta["val"].ndim
    axis = channel_axis(call)
    shape[axis] = int(site.x.meta["val"].shape[axis])
    return replace(call, x=torch.zeros(shape))
