"""What the tests of a target share: graphs traced once, and builds that the target's software has looked at."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest

from backends.base import Built
from precision.policy import Policy
from precision.site import Site
from tests.conformance.layers import KINDS, all_pairs, kind_sites, layers_graph
from tests.conformance.models import MODELS, Model
from tests.conformance.targets import Target
from voice.graph import SiteGraph

Layered = tuple[SiteGraph, tuple[Site, ...], Policy]
Look = Callable[[Target, Sequence[Built]], None]


@pytest.fixture(scope="session")
def sites_by_kind() -> Mapping[str, Site]:
    return kind_sites()


@pytest.fixture(scope="session")
def layered(sites_by_kind: Mapping[str, Site]) -> Callable[[Target], Layered]:
    """A model with a layer for every scheme that stands for those a target claims, and the policy that says so."""

    @cache
    def make(target: Target) -> Layered:
        schemes = {kind: all_pairs(target.claimed(site)) for kind, site in sites_by_kind.items()}
        graph, sites = layers_graph({kind: len(found) for kind, found in schemes.items()})
        tried = [scheme for kind in KINDS for scheme in schemes[kind]]
        return graph, sites, Policy.of(dict(zip((site.name for site in sites), tried, strict=True)))

    return make


@pytest.fixture(scope="session")
def model() -> Callable[[str], Model]:
    """A model by its name, traced once."""
    return cache(lambda name: MODELS[name]())


@pytest.fixture(scope="session")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Have a target's software look at builds; the test is skipped where it is not there."""
    folder = tmp_path_factory.mktemp("software")

    def asked(target: Target, builts: Sequence[Built]) -> None:
        missing = target.no_software()
        if missing is not None:
            pytest.skip(missing)
        target.look(builts, folder)

    return asked
