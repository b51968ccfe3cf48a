"""Coverage: the sites of a model, which share of its computation they are, and what is left out."""

import argparse
from collections.abc import Sequence
from typing import Any

from precision.site import Site
from precision_search.commands import Answer, CommandError
from precision_search.draft import TAKES, draft, model_named
from precision_search.loading import load_model
from precision_search.uncovered import outside_lines, warning
from precision_search.wire import located, make_setting, read_recipe
from voice.model import Voice
from voice.sites import Discovery, count_weights

_CARD = "p150a"
"""A recipe is of one; what is looked for in a model does not depend on it."""
_CLIPS = (1, 2)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sites`."""
    text = "List the sites of a model, a recipe's or any, and the share of its computation that they are."
    sub = subparsers.add_parser("sites", help=text, description=text)
    sub.add_argument("recipe", nargs="?", help="a recipe file, or the name of a recipe that the package brings")
    sub.add_argument("--model", metavar="MODEL", help=f"in place of a recipe a model: {TAKES}")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a value, as model.checkpoint=PATH"
    )
    sub.add_argument("--json", action="store_true", help="print JSON in place of a table")
    sub.set_defaults(answer=lambda parsed: sites(parsed.recipe, parsed.model, parsed.set))


def sites(source: str | None, model: str | None, overrides: Sequence[str]) -> Answer:
    """The sites of a recipe's model, or of a model that no recipe names.

    Args:
        source: a recipe; or None.
        model: as `model_named` takes it; or None. Such a model is only run: it is not held against gates.
        overrides: `key.path=value`, of the recipe, or of one that would name the model.

    Raises:
        CommandError: both are given, or neither; no such model.
        SetupError, CheckpointError, AudioFileError, RecipeError: as for a recipe.
    """
    if (source is None) == (model is None):
        raise CommandError("sites: name a recipe, or a model by --model, and not both")
    if source is not None:
        setting = make_setting(read_recipe(source, overrides))
        return _told(setting.voice, setting.discovery, setting.parameters)
    recipe = draft(model_named(str(model)), _CARD, overrides, "sites", *_CLIPS)
    voice, clips = load_model(recipe)
    found = located(voice, clips[0])[0]
    return _told(voice, found, count_weights(voice.module, found.sites))


def _told(voice: Voice, found: Discovery, parameters: int) -> Answer:
    total = found.total_macs_per_second
    rows = [_row(site, total) for site in found.sites]
    wide = max(44, *(len(site.name) for site in found.sites))
    lines = [f"{'site':{wide}} {'op':17} {'weight':>18} {'K':>6} {'N':>6} {'MMAC/s':>9} {'share':>7}"]
    lines += [
        f"{site.name:{wide}} {site.op:17} {'x'.join(map(str, site.weight_shape)) or '-':>18} {site.k:6} {site.n:6}"
        f" {site.macs_per_second / 1e6:9.3f} {site.macs_per_second / total:7.2%}"
        for site in found.sites
    ]
    weights = sum(site.weight_elements for site in found.sites)
    lines.append(
        f"{voice.name}, {voice.family}: {len(rows)} sites, {found.covered_share:.2%} of {total / 1e6:.1f} million MACs"
        f" per second of audio, {weights:,} of {parameters:,} weights"
    )
    lines += [f"  {line}" for line in outside_lines(found.uncovered)]
    warned = warning(found.covered_share)
    lines += [] if warned is None else [f"warning: {warned}"]
    data = {
        "model": voice.name,
        "family": voice.family,
        "sites": rows,
        "covered_mac_share": found.covered_share,
        "macs_per_second": total,
        "weights": weights,
        "parameters": parameters,
        "outside": [{"module": path, "mac_share": share} for path, share in found.uncovered],
        "warning": warned,
    }
    return Answer(data, "\n".join(lines))


def _row(site: Site, total: float) -> dict[str, Any]:
    return {
        **site.described(),
        "macs_per_second": site.macs_per_second,
        "mac_share": site.macs_per_second / total,
    }
