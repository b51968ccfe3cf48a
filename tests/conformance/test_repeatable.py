"""The same model and policy give the same build, to the byte, in this process and in others."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from backends.base import Built
from precision.site import Site
from tests.conformance.layers import KINDS, layers_graph
from tests.conformance.models import measured
from tests.conformance.targets import Target, asked, targets
from voice.graph import SiteGraph

ALONE = """
from tests.conformance.test_repeatable import made
from tests.conformance.targets import TARGETS
print(*(f"{target.name} {made(target).digest}" for target in TARGETS), sep="\\n")
"""


@cache
def layers(seed: int, again: bool) -> tuple[SiteGraph, tuple[Site, ...]]:
    """A layer of each kind, once for all targets; and the same made again."""
    return layers_graph(dict.fromkeys(KINDS, 1), seed)


def made(target: Target, seed: int = 0, scheme: int = 0, again: bool = False) -> Built:
    """A layer of each kind under a policy of several schemes; `narrow` where there are such, and else `everyday`."""
    graph, sites = layers(seed, again)
    policy = target.uniform(sites, (*target.narrow, *target.everyday)[scheme])
    return target.builder.build(graph, policy.replace(sites[0].name, target.widest), sites, measured(graph))


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("target", targets())
def test_digests_are_those_of_what_is_built(target: Target) -> None:
    assert made(target).digest == made(target, again=True).digest
    assert len({made(target).digest, made(target, seed=1).digest, made(target, scheme=1).digest}) == 3


@pytest.fixture(scope="module")
def elsewhere() -> Mapping[str, str]:
    """Digests by target, of another process."""
    # Names are hashed otherwise in every process that is not told how.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-W", "error", "-c", ALONE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize("target", targets())
def test_digests_are_the_same_in_another_process(target: Target, elsewhere: Mapping[str, str]) -> None:
    assert elsewhere[target.name] == made(target).digest


@pytest.mark.parametrize("target", asked())
def test_what_is_written_is_the_same_to_the_byte(target: Target, tmp_path: Path) -> None:
    missing = target.no_software()
    if missing is not None:
        pytest.skip(missing)
    folders = [tmp_path / name for name in ("first", "second")]
    for again, folder in enumerate(folders):
        folder.mkdir()
        made(target, again=bool(again)).write(folder)
    first, second = (written(folder) for folder in folders)
    assert first
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("target", targets())
def test_what_is_computed_is_the_same_every_time(target: Target) -> None:
    given = layers(0, False)[0].examples
    (once, again) = (next(made(target, again=again).compute([given])) for again in (False, True))
    assert {name for name in once if not once[name].equal(again[name])} == set()
