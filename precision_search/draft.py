"""Draft: a recipe for a model that no recipe names yet, complete but for its rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from precision.document import dump
from precision.mistakes import unknown_name
from precision.recipe import Recipe, load_recipe
from precision_search import loading, wire
from precision_search.commands import CommandError

WAYS = ("hf", "entrypoint")
"""Beside the names of models: `hf:PATH` and `entrypoint:my_package.my_model:build`."""
TAKES = f"{', '.join(loading.MODELS)}; hf:PATH of a repository or folder; or entrypoint:MODULE:FUNCTION of your own"
_SECONDS = 3
_PERCENTILE = {"tenstorrent": 99.99, "hopper": 99.999}


def model_named(text: str) -> dict[str, str]:
    """A recipe's section `model` of what a person types: a name, hf:PATH or entrypoint:MODULE:FUNCTION.

    Raises:
        CommandError: no such model.
    """
    way, _, rest = text.partition(":")
    if way in WAYS and rest:
        return {way: rest}
    if text not in loading.MODELS:
        told = unknown_name(text, "model", loading.MODELS)
        raise CommandError(f"{told}\n  any other model is named by hf:PATH, or by entrypoint:MODULE:FUNCTION")
    return {"name": text}


def draft(
    model: Mapping[str, str],
    device: str,
    overrides: Sequence[str],
    name: str,
    search: int,
    held_back: int,
    *,
    cut: bool = True,
) -> Recipe:
    """A recipe whose rules allow the baseline alone.

    Args:
        model: the section of that name, to which `overrides` may add.
        device: a card.
        overrides: `key.path=value`, in their order.
        name: of the recipe.
        search: clips of the search.
        held_back: clips held back.
        cut: whether recordings are cut to three seconds.

    Raises:
        RecipeError: an override is a mistake.
    """
    card = wire.devices()[device]
    usual = [
        key for key, preset in wire.presets().items() if preset.usual and card.architecture in preset.architectures
    ]
    data: dict[str, Any] = {
        "version": 1,
        "name": name,
        "model": dict(model),
        "target": {"device": device},
        "data": {"search": search, "held_back": held_back, **({"seconds": _SECONDS} if cut else {})},
        "calibrate": {"method": "percentile", "percentile": _PERCENTILE.get(card.backend or "", 99.99)},
        "presets": usual,
        "baseline": "bf16",
        "space": [{"match": "*", "allow": ["bf16"]}],
        "gates": {"profile": "transparent"},
        "search": {"minimize": "seconds", "candidates": 12, "evaluations": 80, "seed": 0},
    }
    return load_recipe(dump(data), wire.known_names(), overrides)
