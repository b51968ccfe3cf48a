"""Cards: those that a recipe may name, the package's and its own, at the prices that it gives."""

from collections.abc import Mapping
from dataclasses import replace

import yaml

from backends.devices import Device, Figure, load_devices, parse_devices
from precision.cost_section import SourcedNumber
from precision.recipe import Recipe
from precision_search.setting import SetupError


def cards_of(recipe: Recipe) -> Mapping[str, Device]:
    """The cards that a recipe may name, by name, at the recipe's prices."""
    cards = dict(load_devices())
    own = recipe.target.cards
    if isinstance(own, Mapping):
        cards |= parse_devices(yaml.safe_dump({"devices": dict(own)}))
    for name, price in recipe.cost.prices.items():
        cards[name] = replace(cards[name], price_usd=figure_of(price))
    for name, price in recipe.cost.cloud_prices.items():
        cards[name] = replace(cards[name], cloud_usd_per_hour=figure_of(price))
    return cards


def unfit_card(name: str, card: object) -> list[str]:
    """What is wrong with a card of a recipe's own, a line each."""
    try:
        found = parse_devices(yaml.safe_dump({"devices": {name: card}}))
    except ValueError as error:
        return str(error).splitlines()[1:]
    return [] if found[name].price_usd else [f"{name}.price_usd: missing; a card is compared by its price"]


def figure_of(written: SourcedNumber) -> Figure:
    """A number of a recipe, as the cost model has its numbers."""
    low, middle, high = written.range
    return Figure(middle, written.source, written.date, low, high, written.doubt)


def refuse_unrented(recipe: Recipe) -> None:
    """Refuse to rent what has no price by the hour.

    Raises:
        SetupError: naming every such card.
    """
    if not recipe.cost.rent:
        return
    cards = cards_of(recipe)
    named = dict.fromkeys((recipe.target.device, recipe.cost.against.device))
    missing = [name for name in named if cards[name].cloud_usd_per_hour is None]
    if missing:
        raise SetupError(
            f"cost.rent: no price by the hour of {', '.join(missing)} is known; give one, with its source and date,"
            " under cost.cloud_prices, or leave cost.rent out"
        )
