"""What a target refuses: in words that help, before anything is made, and all at once."""

import re
from collections.abc import Mapping

import pytest

from backends.base import BuildError
from precision.policy import Policy, Scheme
from precision.site import Site
from tests.conformance.layers import KINDS, layers_graph
from tests.conformance.models import Model
from tests.conformance.targets import Target, targets

INSTEAD = re.compile(r"; (use|set|drop|leave|store|render) | or leave it out")


@pytest.fixture(scope="module")
def each() -> Model:
    """One layer of each kind."""
    return Model(*layers_graph(dict.fromkeys(KINDS, 1)))


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_says_what_to_do_instead(target: Target, kind: str, sites_by_kind: Mapping[str, Site]) -> None:
    refused = target.refused(sites_by_kind[kind])
    assert refused
    for reason in refused:
        assert INSTEAD.search(reason), reason


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_site_can_be_had(target: Target, kind: str, sites_by_kind: Mapping[str, Site]) -> None:
    site = sites_by_kind[kind]
    assert target.claimed(site)
    assert [target.backend.refuses(site, scheme) for scheme in (target.widest, *target.everyday)] == [None] * (
        1 + len(target.everyday)
    )


@pytest.mark.parametrize("target", targets())
def test_narrow_schemes_are_for_some_kinds_of_sites(target: Target, sites_by_kind: Mapping[str, Site]) -> None:
    for scheme in target.narrow:
        taken = {kind for kind, site in sites_by_kind.items() if target.backend.refuses(site, scheme) is None}
        assert "linear" in taken
        assert taken != set(KINDS)


@pytest.mark.parametrize("target", targets())
def test_what_is_refused_is_not_built(target: Target, each: Model) -> None:
    good = Policy.uniform([site.name for site in each.sites], target.everyday[0])
    for site in each.sites:
        for reason, scheme in target.refused(site).items():
            with pytest.raises(BuildError) as caught:
                target.builder.build(each.graph, good.replace(site.name, scheme), each.sites)
            assert f"{site.name}: {reason}" in str(caught.value)
            assert str(caught.value).count("copies.") == 1


@pytest.mark.parametrize("target", targets())
def test_all_that_is_refused_is_named_at_once(target: Target, each: Model) -> None:
    first, last = each.sites[0], each.sites[-1]
    policy = Policy.uniform([site.name for site in each.sites], target.everyday[0])
    for site in (first, last):
        policy = policy.replace(site.name, Scheme("none", "int4", "int4", fidelity=target.everyday[0].fidelity))
    with pytest.raises(BuildError, match=rf"(?s){first.name}: activation int4.*{last.name}: activation int4"):
        target.builder.build(each.graph, policy, each.sites)


@pytest.mark.parametrize("target", targets())
def test_a_policy_of_other_sites_is_refused_by_name(target: Target, each: Model) -> None:
    names = [site.name for site in each.sites]
    lacking = Policy.uniform(names[1:], target.everyday[0])
    with pytest.raises(BuildError, match=rf"{names[0]}: the policy has no scheme for it"):
        target.builder.build(each.graph, lacking, each.sites)
    beside = Policy.uniform([*names, "elsewhere"], target.everyday[0])
    with pytest.raises(BuildError, match="elsewhere: the graph has no such site"):
        target.builder.build(each.graph, beside, each.sites)
    with pytest.raises(BuildError, match=rf"{names[2]}: not one of the model's sites"):
        target.builder.build(each.graph, Policy.uniform(names, target.everyday[0]), each.sites[:2])
