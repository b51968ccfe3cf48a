"""`precision-search cost RECIPE`: what a recipe's model costs to run, before anything is searched or heard."""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from backends.money import Comparison, Range, compare
from backends.serving import Serving
from backends.workload import ClipWorkload
from precision.policy import Policy
from precision.search.budget import BudgetError
from precision.search.solve import solve
from precision_search import decoder_pricing, wire
from precision_search.commands import Answer, CommandError
from precision_search.costing import clip_comparison, money_blocks
from precision_search.loading import ON_PAPER
from precision_search.money_table import money_lines
from precision_search.problem import pose
from precision_search.setting import Setting
from precision_search.table import number_text
from voice.decoder import DecoderVoice, SpeechDecoder
from voice.decoder_sites import on_paper, step_discovery
from voice.model import Rendering

UNHEARD = "nothing was heard: this prices, it does not judge"

_EPILOG = """examples:
  precision-search cost tts_hopper                     seconds, streams and dollars of a recipe's baseline and cheapest
  precision-search cost blvoice_7b_hopper              a decoder of 7 billion weights on paper: first sound, streams
  precision-search cost blvoice_7b_hopper --set decoding.context_rows=4096 --set target.device=h200_sxm

Two policies are priced: the baseline at every site, and at every site the cheapest scheme that the recipe allows and
the card can run. What keeps the gates lies between the two, and `run` finds it."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `cost`."""
    text = "Price a recipe's baseline and its cheapest policy on its card; search and hear nothing."
    sub = subparsers.add_parser(
        "cost", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.add_argument("recipe", help="a recipe file, or the name of a recipe that the package brings")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value, as target.device=CARD"
    )
    sub.add_argument("--json", action="store_true", help="print JSON in place of a table")
    sub.set_defaults(answer=lambda parsed: price(parsed.recipe, parsed.set))


def price(source: str, overrides: Sequence[str]) -> Answer:
    """Price a recipe.

    Raises:
        SetupError, CheckpointError, AudioFileError, RecipeError: as for a recipe that is to be run.
        CommandError: no policy keeps within the recipe's limits.
    """
    recipe = wire.read_recipe(source, overrides)
    paper = ON_PAPER.get(recipe.model.name or "")
    if paper is None:
        setting = wire.load_setting(recipe)
    else:
        decoder = on_paper(paper)
        voice = DecoderVoice(decoder, str(recipe.model.name))
        setting = wire.fitted(recipe, voice, ((), ()), step_discovery(decoder), Rendering(None, {}))
    cheapest = cheapest_policy(setting)
    baseline = Policy.uniform([site.name for site in setting.sites], recipe.baseline)
    model: nn.Module = setting.voice.module
    if isinstance(model, SpeechDecoder) and (paper is not None or recipe.written.decoding is not None):
        data, lines = decoder_pricing.price(setting, model, baseline, cheapest)
    else:
        data, lines = _ordinary(setting, baseline, cheapest)
    counts = _counts(setting, cheapest)
    data = {
        "recipe": recipe.name,
        "model": setting.voice.name,
        "device": setting.device.name,
        "heard": False,
        "sites": len(setting.sites),
        "covered_mac_share": setting.discovery.covered_share,
        "baseline_scheme": recipe.baseline.name,
        "cheapest_schemes": {site: scheme.name for site, scheme in cheapest.schemes},
        **data,
    }
    return Answer(data, "\n".join([*lines[:1], UNHEARD, "", *lines[1:], "", f"cheapest allowed: {counts}"]))


def cheapest_policy(setting: Setting) -> Policy:
    """Of the policies that a recipe allows and its card can run, the cheapest in what the recipe minimizes.

    Raises:
        CommandError: none keeps within the recipe's limits.
    """
    posed = pose(setting)
    try:
        (found,) = solve(posed.problem, {}, limits=posed.limits)
    except BudgetError as error:
        raise CommandError(f"search.within: no policy keeps within it: {error}") from error
    schemes = setting.recipe.schemes
    names = (site.name for site in setting.sites)
    return Policy(tuple((name, schemes[option]) for name, option in zip(names, found.choice, strict=True)))


def _counts(setting: Setting, policy: Policy) -> str:
    sites, macs = Counter[str](), Counter[str]()
    schemes = dict(policy.schemes)
    for site in setting.sites:
        sites[schemes[site.name].name] += 1
        macs[schemes[site.name].name] += site.macs_per_second  # type: ignore[assignment]
    whole = math.fsum(macs.values())
    told = ", ".join(
        f"{name} at {count} sites ({macs[name] / whole:.1%} of MACs)" for name, count in sites.most_common()
    )
    refused = f"; {len(setting.refused)} choices are refused" if setting.refused else ""
    return told + refused


@dataclass(frozen=True, slots=True)
class _Column:
    """A policy on a card."""

    title: str
    serving: Serving
    comparison: Comparison


def _ordinary(setting: Setting, baseline: Policy, cheapest: Policy) -> tuple[dict[str, Any], list[str]]:
    """Data and lines of a model that renders whole clips; the first line is the heading."""
    recipe = setting.recipe
    priced = {
        title: clip_comparison(setting, policy, title)
        for title, policy in ((f"{recipe.baseline.name} everywhere", baseline), ("cheapest allowed", cheapest))
    }
    last = priced["cheapest allowed"]
    theirs = last.baseline.serving
    columns = [_Column(title, found.candidate.serving, found) for title, found in priced.items()]
    columns.append(_Column(f"{theirs.label} everywhere", theirs, compare(theirs, theirs, last.accounting)))
    macs = setting.discovery.total_macs_per_second
    lines = [
        f"{recipe.name}: {setting.voice.name} on {setting.device.title}, {len(setting.sites)} sites that are"
        f" {setting.discovery.covered_share:.1%} of {macs / 1e6:.1f} million MACs per second of audio",
        *_table(columns, theirs.device.name),
    ]
    keys = ("baseline", "cheapest")
    data = {key: column.comparison.to_dict() for key, column in zip(keys, columns, strict=False)}
    data["cheapest"] |= money_blocks(setting, cheapest, last, ClipWorkload(setting.sites))
    return {"kind": "clips", "macs_per_second": macs, **data}, [*lines, "", *money_lines(data["cheapest"])]


def _table(columns: Sequence[_Column], against: str) -> list[str]:
    def row(head: str, cells: Sequence[str]) -> str:
        return f"{head:36}" + "".join(f"{cell:>32}" for cell in cells)

    def counted(key: str) -> list[str]:
        cells = []
        for one in served:
            low, middle, high = (str(getattr(case, key)) for case in (one.low, one.middle, one.high))
            cells.append(middle if low == high else f"{middle} ({low} to {high})")
        return cells

    def took(one: Serving) -> str:
        return span(Range(*(1e6 * case.seconds_per_audio_second for case in (one.low, one.middle, one.high))))

    served = [column.serving for column in columns]
    return [
        row("", [column.title for column in columns]),
        row("card", [one.device.name for one in served]),
        row("card's us for a second of audio", [took(one) for one in served]),
        row("streams a card", counted("streams_per_card")),
        row("  in batches of", counted("batch")),
        row("weights, MB", [number_text(one.middle.weight_bytes / 1e6) for one in served]),
        row("USD a stream", [span(column.comparison.candidate.usd_per_stream) for column in columns]),
        row(
            "USD for 1000 hours of speech", [span(column.comparison.candidate.usd_per_1000_hours) for column in columns]
        ),
        row(f"USD a stream, of that on {against}", [span(column.comparison.ratio) for column in columns]),
        "middle (best to worst outcome), by the ranges of the cards' figures, and of what was measured",
    ]


def span(found: Range) -> str:
    """A figure with its ends, where they differ."""
    low, middle, high = (number_text(float(f"{value:.3g}")) for value in (found.low, found.middle, found.high))
    return middle if low == high else f"{middle} ({low} to {high})"
