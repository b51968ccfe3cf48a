"""recipe_text: a recipe as a person would write it, with what was found in the model as comments."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from audio_eval.profiles import PROFILES
from precision.document import flow
from precision.presets import Preset
from precision.schema import plain
from precision.search.exhaustive import LARGEST
from precision.sections import Method, Minimized
from precision_search import wire
from precision_search.survey import Look, Proposal
from voice.model import AdaptableVoice

SCHEMA_FILE = "recipe.schema.json"
_WIDTH = 120


def recipe_text(look: Look, proposals: Sequence[Proposal], path: Path) -> str:
    """Write a recipe.

    Args:
        look: the model, and all of the recipe but its rules.
        proposals: the rules.
        path: where the text is to lie; an editor's schema is named where it lies beside it.
    """
    blocks = (_head(look, path), _schemes(look), _space(look, proposals), _search(look, proposals), _last(look))
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def _head(look: Look, path: Path) -> Iterator[str]:
    recipe = look.recipe
    yield from _comment(
        f"{look.voice.name} on {look.device.title}, by `precision-search init`, which ran the model once. Change what"
        " you know better; `precision-search check` finds every mistake and runs no search."
    )
    if (path.parent / SCHEMA_FILE).is_file():
        yield f"# yaml-language-server: $schema=./{SCHEMA_FILE}"
    else:
        yield f"# For an editor that checks as you write: precision-search schema > {SCHEMA_FILE}, and one # less here:"
        yield f"# # yaml-language-server: $schema=./{SCHEMA_FILE}"
    yield "version: 1"
    yield f"name: {flow(recipe.name)}"
    yield f"# {len(look.sites)} sites, {look.discovery.covered_share:.1%} of the MACs; {look.parameters:,} parameters."
    for path_outside, share in look.discovery.uncovered:
        yield f"# Outside of all sites: {path_outside}, {share:.2%} of the MACs."
    yield f"model: {flow(plain(recipe.model))}"
    yield f"target: {flow(plain(recipe.target))}"
    yield from _comment(
        f"Of {look.clips} clips the first {recipe.data.search} calibrate and are what the search hears; the next"
        f" {recipe.data.held_back} judge what it found. More of them find more, and take longer."
    )
    yield f"data: {flow(plain(recipe.data))}"
    yield "# How static scales of activations are taken: amax, percentile or mse. bf16 and block formats have none."
    yield f"calibrate: {flow(plain(recipe.calibrate))}"


def _schemes(look: Look) -> Iterator[str]:
    written = look.recipe.written.schemes
    fitting = {name: row for name, row in wire.presets().items() if look.device.architecture in row.architectures}
    used = {name: row for name, row in fitting.items() if row.schemes.items() <= written.items()}
    more = {name: row for name, row in fitting.items() if name not in used}
    if more:
        yield from _comment(
            "Ways to compute. `presets: [NAME]` brings more of them; under `allow`, NAME is all of these:"
        )
        for name, row in more.items():
            yield from _comment(f"{name}: {', '.join(row.schemes)}; {row.about}", "  ")
    yield "schemes:"
    shown: Preset | None = None
    for name, entry in written.items():
        preset = next((row for row in used.values() if name in row.schemes), None)
        if preset is not None and preset is not shown:
            yield from _comment(preset.about, "  ")
        shown = preset
        yield f"  {name}: {flow(plain(entry))}"
    yield "# The yardstick: costs are shares of its cost, and what is protected keeps it."
    yield f"baseline: {flow(look.recipe.baseline.name)}"


def _space(look: Look, proposals: Sequence[Proposal]) -> Iterator[str]:
    yield "# Which site may choose what: the first rule that matches holds. `precision-search sites` lists the sites."
    yield "space:"
    for rule in proposals:
        macs = sum(site.macs_per_second for site in rule.sites) / look.discovery.total_macs_per_second
        weights = sum(site.weight_elements for site in rule.sites) / look.parameters
        sites = "1 site" if len(rule.sites) == 1 else f"{len(rule.sites)} sites"
        shares = f"{_share(macs)} of the MACs" + (f" and {_share(weights)} of the weights" if weights else "")
        yield from _comment(f"{sites}, {shares}" + (f"; {rule.why}" if rule.why else ""), "  ")
        for line in rule.refused:
            yield from _comment(line, "  ", "  ")
        allow = [scheme.name for scheme in rule.allow]
        op = {} if rule.op is None else {"op": rule.op}
        yield f"  - {flow({'match': rule.match, **op, 'allow': allow})}"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _search(look: Look, proposals: Sequence[Proposal]) -> Iterator[str]:
    yield f"# What must hold on the clips held back. Profiles: {', '.join(PROFILES)}; a threshold is changed by"
    yield "# gates: {profile: transparent, replace: [{metric: lsd_db, max: 2.0}], add: [{metric: stoi, min: 0.99}]}"
    yield f"gates: {flow(plain(look.recipe.written.gates))}"
    yield ""
    search = look.recipe.search
    policies = look.policies(proposals)
    size = f"{policies:,} policies" if policies < 1e9 else f"some 10^{len(str(policies)) - 1} policies"
    fits = f"tries all {size}" if policies <= LARGEST else f"is for {LARGEST:,} policies at most, and here are {size}"
    said = {
        "goal": "cheapest: the least cost that keeps the gates. best_audio: the best sound within the limits below.",
        "minimize": f"One of {', '.join(_minimized(look))}.",
        "within": "Limits: shares of what the baseline takes; effective_bits is the mean a weight is stored in.",
        "method": f"One of {', '.join(get_args(Method))}. exhaustive {fits}; tpe and nsga2 are Optuna's.",
        "candidates": "Policies heard in a row that may better nothing before the search ends, and in all.",
    }
    values = asdict(search) | {"within": dict(search.within)}
    yield "search:"
    for key, value in values.items():
        if key in said:
            yield from _comment(said[key], "  ")
        unset = key == "within" and not value
        yield f"  # {key}: {{seconds: 0.8, effective_bits: 6.5}}" if unset else f"  {key}: {flow(value)}"


def _minimized(look: Look) -> list[str]:
    return [name for name in get_args(Minimized) if name != "passes" or look.device.is_tensix]


def _last(look: Look) -> Iterator[str]:
    recipe = look.recipe
    against = {key: value for key, value in asdict(recipe.cost.against).items() if value is not None}
    yield "# What a stream of speech is priced at: streams served at once, the share of the time at work, years in use."
    written = {key: getattr(recipe.cost, key) for key in ("streams", "utilization", "years")}
    yield "# Prices of your own, dated, go in here as prices: {l40s: {value: 8000, source: a quote, date: 2026-11-20}};"
    yield "# pue, usd_per_kwh, rent, cloud_prices, chunk_ms, fleet_streams and characters_per_second have defaults."
    yield f"cost: {flow(written | plain(recipe.cost) | {'against': against})}"
    if recipe.adapt is not None:
        yield f"adapt: {flow(plain(recipe.adapt))}"
    elif isinstance(look.voice, AdaptableVoice):
        yield "# Weights trained in the card's arithmetic for a policy that is a little too cheap; it takes minutes:"
        yield "# adapt: {steps: 300}"


def _comment(text: str, indent: str = "", inner: str = "") -> list[str]:
    """Lines of a comment; a name is never broken in two."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# {inner}",
        subsequent_indent=f"{indent}# {inner}",
        break_long_words=False,
        break_on_hyphens=False,
    )
