"""Single layers under every scheme that stands for those claimed: built as said, and computing what is emulated."""

import math
from collections.abc import Callable

import pytest

from backends.base import Builder
from backends.tolerance import snr_db
from tests.conformance.conftest import Asked, Layered
from tests.conformance.layers import inputs
from tests.conformance.models import emulated, measured
from tests.conformance.targets import Target, asked, targets


@pytest.mark.parametrize("target", targets())
def test_it_is_a_builder(target: Target) -> None:
    assert isinstance(target.backend, Builder)


@pytest.mark.slow
@pytest.mark.parametrize("target", asked())
def test_what_is_claimed_is_built_as_the_policy_says(target: Target, asked_of: Asked) -> None:
    built, policy = asked_of(target)["layers"]
    realized = built.realized()
    assert list(realized) == list(policy)
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}


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
