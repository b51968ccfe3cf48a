"""Whole models: every site built as the policy says, and sounding as the emulation does."""

from collections.abc import Callable

import pytest

from backends.tenstorrent.tolerance import snr_db
from tests.conformance.conftest import Asked
from tests.conformance.models import MODELS, Model
from tests.conformance.targets import Target, asked, builders

TWICE_DB = 6.0
"""How far below a format's own error the distance of two computations in it may lie.

Own error: of the emulation, against fp32. The emulation rounds operands and results of sites; a built model rounds
what it stores between them as well, to no less than what it stores sites' results in. As long as it is no worse than
the emulation, both lie within that error of fp32, and so within twice of it of each other: 6 dB. Seen were at most 3.2.
"""


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", asked())
def test_every_site_is_built_as_a_mixed_policy_says(target: Target, asked_of: Asked, which: str) -> None:
    built, policy = asked_of(target)[which]
    realized = built.realized()
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}
    assert realized.keys() == set(policy)


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", builders())
def test_a_built_model_computes_what_is_emulated(target: Target, model: Callable[[str], Model], which: str) -> None:
    held = model(which)
    exact = dict(zip(held.graph.parts, held.graph.run(), strict=False))
    schemes = (target.everyday[0], target.widest)
    policies = {scheme.name: target.uniform(held.sites, scheme, held.streaming) for scheme in schemes}
    below = {}
    for name, policy in {**policies, "of all": target.mixed(held.sites, held.streaming)}.items():
        (parts,) = target.builder.build(held.graph, policy, held.sites).compute([held.graph.examples])
        wanted = held.emulated(policy, target.backend.exact or target.backend.arithmetic)
        assert parts.keys() == wanted.keys()
        for part, emulation in wanted.items():
            own, apart = snr_db(exact[part], emulation), snr_db(emulation, parts[part])
            if apart < own - TWICE_DB:
                below[name, part] = (own, apart)
    assert below == {}
