"""Single layers under every scheme that stands for those claimed, computing what is emulated."""

import math
from collections.abc import Callable

import pytest

from backends.base import Builder
from backends.tolerance import snr_db
from tests.conformance.conftest import Layered
from tests.conformance.layers import inputs
from tests.conformance.models import emulated, measured
from tests.conformance.targets import Target, targets


@pytest.mark.parametrize("target", targets())
def test_it_is_a_builder(target: Target) -> None:
    assert isinstance(target.backend, Builder)


@pytest.mark.parametrize("target", targets())
def test_a_built_layer_computes_what_is_emulated(target: Target, layered: Callable[[Target], Layered]) -> None:
    graph, sites, policy = layered(target)
    built = target.builder.build(graph, policy, sites, measured(graph))
    (parts,) = built.compute([inputs()])
    wanted = emulated(graph, policy, target.backend.exact or target.backend.arithmetic)
    assert parts.keys() == wanted.keys()
    below = {}
    for (name, values), scheme in zip(parts.items(), policy.values(), strict=True):
        least = math.inf if target.layer_db is None else target.layer_db(scheme)
        if (reached := snr_db(wanted[name], values)) < least:
            below[name] = (reached, least, scheme)
    assert below == {}
