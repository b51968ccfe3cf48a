"""What the tests of a target share: graphs traced once, and builds that the target's software has looked at."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial

import pytest

from backends.base import Built
from backends.hopper.lower import lowering
from precision.policy import Policy
from precision.site import Site
from tests.conformance.layers import KINDS, all_pairs, kind_sites, layers_graph
from tests.conformance.models import MODELS, Model, measured
from tests.conformance.targets import Target
from voice.graph import SiteGraph

Layered = tuple[SiteGraph, tuple[Site, ...], Policy]
Asked = Callable[[Target], Mapping[str, tuple[Built, Policy]]]


class Builds(dict[str, tuple[Built, Policy]]):
    """Builds of a target by model, with their policies, each made when first asked for."""

    def __init__(self, make: Callable[[str], tuple[Built, Policy]]) -> None:
        self._make = make

    def __missing__(self, name: str) -> tuple[Built, Policy]:
        self[name] = self._make(name)
        return self[name]


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """A graph goes through torch's ONNX exporter once, whatever the number of policies: that takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "site_model", cache(lowering.site_model))
        yield


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
def asked_of(
    request: pytest.FixtureRequest,
    layered: Callable[[Target], Layered],
    model: Callable[[str], Model],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asked]:
    """Builds by model that a target's software has looked at, with their policies: `layers`, and the whole models.

    All targets of the session are asked at once, each in a thread, for each is a process that takes half a minute.
    """
    folder = tmp_path_factory.mktemp("software")
    waiting: dict[Target, Future[object]] = {}
    made: dict[Target, Builds] = {}

    def build(target: Target, name: str) -> tuple[Built, Policy]:
        if name == "layers":
            graph, sites, policy = layered(target)
        else:
            graph, sites = model(name).graph, model(name).sites
            policy = target.mixed(sites, streaming=model(name).streaming)
        return target.builder.build(graph, policy, sites, measured(graph)), policy

    def begin(target: Target) -> None:
        made[target] = Builds(partial(build, target))
        if target.look is not None:
            builts = [made[target][name][0] for name in ("layers", *MODELS)]
            waiting[target] = pool.submit(target.look, builts, folder)

    def asked(target: Target) -> Mapping[str, tuple[Built, Policy]]:
        missing = target.no_software()
        if missing is not None:
            pytest.skip(missing)
        for other in [target, *_targets_of(request.session)]:
            if other not in made and other.no_software() is None:
                begin(other)
        if target in waiting:
            waiting[target].result()
        return made[target]

    with ThreadPoolExecutor() as pool:
        yield asked


def _targets_of(session: pytest.Session) -> list[Target]:
    """Those whose software the session's tests ask."""
    found = {}
    for item in session.items:
        if isinstance(item, pytest.Function) and "asked_of" in item.fixturenames:
            found[item.callspec.params["target"]] = None
    return list(found)
