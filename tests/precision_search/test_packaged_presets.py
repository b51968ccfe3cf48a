"""The presets that the package brings: each runs on the cards it is for, and those of one card go together."""

import pytest

from precision.policy import Scheme
from precision.recipe import load_recipe
from precision.site import Site
from precision_search.wire import backend_of, devices, known_names, presets

LINEAR = Site("layer", "linear", (64, 64), 64, 64, 100.0)
RECIPE = """
version: 1
name: tiny
model: {{name: embedded}}
target: {{device: {device}}}
data: {{search: 1, held_back: 2}}
calibrate: {{method: amax}}
presets: [{presets}]
baseline: bf16
space: [{{match: "*", allow: [bf16]}}]
gates: {{profile: transparent}}
search: {{minimize: seconds, candidates: 1, evaluations: 1, seed: 0}}
"""
DRIVEN = {card.architecture: card for card in devices().values() if card.backend is not None}


def brought(architecture: str, *, usual: bool) -> tuple[Scheme, ...]:
    names = [n for n, row in presets().items() if architecture in row.architectures and (row.usual or not usual)]
    text = RECIPE.format(device=DRIVEN[architecture].name, presets=", ".join(names))
    return load_recipe(text, known_names()).schemes


@pytest.mark.parametrize("architecture", ["wormhole", "blackhole", "hopper"])
def test_presets_of_a_card_go_together_and_run_on_it(architecture):
    backend = backend_of(DRIVEN[architecture])
    schemes = brought(architecture, usual=False)
    assert len(schemes) == len({scheme.name for scheme in schemes}) >= 6
    assert {scheme.name: why for scheme in schemes if (why := backend.refuses(LINEAR, scheme))} == {}
    assert len(brought(architecture, usual=True)) < len(schemes)


def test_schemes_of_a_preset_differ():
    for preset in presets().values():
        assert len(set(preset.schemes.values())) == len(preset.schemes)
    assert {name for row in presets().values() for name in row.architectures} == set(DRIVEN)
