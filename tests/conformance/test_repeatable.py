"""The same model and policy give the same build, to the byte, in this process and in others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.base import Built
from tests.conformance.layers import KINDS, layers_graph
from tests.conformance.targets import Target, asked, builders

ALONE = """
import sys
from tests.conformance.test_repeatable import made
from tests.conformance.targets import TARGETS
print(made(next(target for target in TARGETS if target.name == sys.argv[1])).digest)
"""


def made(target: Target, seed: int = 0, scheme: int = 0) -> Built:
    """A layer of each kind under a policy of several schemes."""
    graph, sites = layers_graph(dict.fromkeys(KINDS, 1), seed)
    policy = target.uniform(sites, target.everyday[scheme])
    return target.builder.build(graph, policy.replace(sites[0].name, target.widest), sites)


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("target", builders())
def test_digests_are_those_of_what_is_built(target: Target) -> None:
    assert made(target).digest == made(target).digest
    assert len({made(target).digest, made(target, seed=1).digest, made(target, scheme=1).digest}) == 3


@pytest.mark.parametrize("target", builders())
def test_digests_are_the_same_in_another_process(target: Target) -> None:
    # Names are hashed otherwise in every process that is not told how.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-W", "error", "-c", ALONE, target.name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == made(target).digest


@pytest.mark.parametrize("target", asked())
def test_what_is_written_is_the_same_to_the_byte(target: Target, tmp_path: Path) -> None:
    missing = target.no_software()
    if missing is not None:
        pytest.skip(missing)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        made(target).write(folder)
    first, second = (written(folder) for folder in folders)
    assert len(first) > 1
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("target", builders())
def test_what_is_computed_is_the_same_every_time(target: Target) -> None:
    graph = made(target)
    given = layers_graph(dict.fromkeys(KINDS, 1))[0].examples
    (once, again) = (next(graph.compute([given])), next(made(target).compute([given])))
    assert {name for name in once if not once[name].equal(again[name])} == set()
