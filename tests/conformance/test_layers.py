"""Single layers under every scheme that stands for those claimed: built as said, and computing what is emulated."""

from collections.abc import Callable

import pytest

from backends.base import Builder
from backends.tenstorrent.tolerance import snr_db
from tests.conformance.conftest import Asked, Layered
from tests.conformance.layers import inputs
from tests.conformance.models import emulated
from tests.conformance.targets import Target, asked, builders


@pytest.mark.parametrize("target", builders())
def test_it_is_a_builder(target: Target) -> None:
    assert isinstance(target.backend, Builder)


@pytest.mark.slow
@pytest.mark.parametrize("target", asked())
def test_what_is_claimed_is_built_as_the_policy_says(target: Target, asked_of: Asked) -> None:
    built, policy = asked_of(target)["layers"]
    realized = built.realized()
    assert list(realized) == list(policy)
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}


@pytest.mark.parametrize("target", builders())
def test_a_built_layer_computes_what_is_emulated(target: Target, layered: Callable[[Target], Layered]) -> None:
    graph, sites, policy = layered(target)
    built = target.builder.build(graph, policy, sites)
    (parts,) = built.compute([inputs()])
    wanted = emulated(graph, policy, target.backend.exact or target.backend.arithmetic)
    assert parts.keys() == wanted.keys()
    apart = {name: snr_db(wanted[name], parts[name]) for name in wanted}
    assert {name: db for name, db in apart.items() if db < target.agreement_db} == {}
