"""Reading: a finished study opened by its parts, for notebooks and scripts of one's own."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from audio_eval.audio import read_folder
from backends.emulation.adaptation import adapted_policy
from backends.money import Accounting
from backends.workload import ClipWorkload, Side, Terms
from precision.candidate import Candidate
from precision.policy import Policy
from precision.recipe import Recipe
from precision.site import Site
from precision_search.cards import cards_of
from precision_search.costing import accounting_of, sides_of, terms_of
from precision_search.report.gates import GateRow, gate_rows
from precision_search.report.results import Results, read_results
from precision_search.slow_fp8 import measured_card
from precision_search.wire import read_recipe

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SamplePair:
    """A clip held back as fp32 renders it, and as the policy does."""

    clip: str
    reference: Samples
    """[time], full scale 1."""
    candidate: Samples | None
    """[time]; None where the render was not finite, which no sound file holds."""
    sample_rate_hz: int


@dataclass(frozen=True)
class OpenStudy:
    """A finished study; nothing of it is changed, and no model is loaded."""

    results: Results

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.results.folder

    @property
    def summary(self) -> Mapping[str, Any]:
        """summary.json: verdict, shares, cost, versions, digests."""
        return self.results.summary

    @property
    def cost(self) -> Mapping[str, Any]:
        """The summary's block of costs; empty where the study was not priced."""
        return self.summary.get("cost") or {}

    @cached_property
    def gates(self) -> tuple[GateRow, ...]:
        """Every gate that was judged: broken ones first, then by room as a share of the threshold, flags last."""
        rows = gate_rows(self.results)
        return tuple(sorted(rows, key=lambda gate: (gate.kept, not gate.relative, gate.relative_or_worst)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics in which the damage of single sites was measured."""
        return self.results.metrics

    @property
    def schemes(self) -> tuple[str, ...]:
        """Names of the schemes that a site may take, in the recipe's order."""
        return self.results.schemes

    def damage(self, metric: str) -> NDArray[np.float64]:
        """Damage [sites, schemes] in the metric's unit: one site under a scheme, every other in fp32.

        NaN where the site does not offer the scheme, or the card refuses it; infinite where nothing finite came out.

        Raises:
            ValueError: damage was not measured in that metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"no damage was measured in {metric!r}, only in {', '.join(self.metrics) or 'no metric'}")
        options = [[site.option(scheme) for scheme in self.schemes] for site in self.results.sites]
        return np.array(
            [[math.nan if one is None else one.damage.get(metric, math.nan) for one in row] for row in options]
        )

    def changes(self, metric: str) -> tuple[tuple[float, str, str], ...]:
        """(damage, site, scheme) of every scheme that a site offers and the policy does not take, the worst first."""
        damage, chosen = self.damage(metric), self.results.chosen
        found = [
            (float(value), site.name, scheme)
            for site, row in zip(self.results.sites, damage, strict=True)
            for scheme, value in zip(self.schemes, row, strict=True)
            if math.isfinite(value) and scheme != chosen.get(site.name)
        ]
        return tuple(sorted(found, key=lambda change: -change[0]))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every policy that was heard, in the order of hearing: prediction, scores by clip, verdicts."""
        return self.results.study.candidates()

    @property
    def final(self) -> Candidate | None:
        """The candidate whose verdict is the study's; None where the log has none of that policy."""
        return self.results.final

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was run.

        Raises:
            RecipeError: this code reads such a recipe no more.
        """
        return read_recipe(str(self.folder / "recipe.yaml"), ())

    @cached_property
    def policy(self) -> Policy:
        """Scheme of every site, in the model's order: the policy that was kept, or came nearest."""
        chosen = self.results.chosen
        policy = Policy(tuple((site, self.recipe.scheme(scheme)) for site, scheme in chosen.items()))
        written = yaml.safe_load(self.results.policy_text)
        adapted = written.get("adapted") if isinstance(written, dict) else None
        if not isinstance(adapted, dict):
            return policy
        return adapted_policy(policy, str(adapted["weights"]), {site: chosen[site] for site in adapted["sites"]})

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every matrix product of the model as the price of it needs to know it, in the order of calls."""
        entries = json.loads((self.folder / "sites.json").read_text(encoding="utf-8"))
        return tuple(_site(entry) for entry in entries)

    @property
    def workload(self) -> ClipWorkload:
        """The model's streams, to be put on any card under any policy."""
        return ClipWorkload(self.sites)

    @cached_property
    def sides(self) -> tuple[Side, Side]:
        """The policy on its card, and what it is set against, both cards as the package's table has them today.

        Prices that the recipe gives go before the table's, and so does what it has of the user's own card.

        Raises:
            SetupError: the recipe names results of a card that are not there any more.
        """
        recipe = self.recipe
        device = measured_card(recipe, cards_of(recipe)[str(self.summary["device"])])
        return sides_of(recipe, device, self.policy, recipe.name)

    @property
    def terms(self) -> Terms:
        """How the recipe has both cards serve: how busy they may be, and the audio of a launch."""
        return terms_of(self.recipe)

    @property
    def accounting(self) -> Accounting:
        """How the recipe pays for cards: years, PUE and price of electricity, or rent."""
        return accounting_of(self.recipe)

    @cached_property
    def samples(self) -> tuple[SamplePair, ...]:
        """What can be heard, a pair a clip held back; none of a model that makes no sound.

        Raises:
            AudioFileError: a file of the folder `samples` cannot be read.
        """
        folder = self.folder / "samples"
        if not (folder / "reference").is_dir():
            return ()
        references = read_folder(folder / "reference")
        heard = folder / "candidate"
        candidates = read_folder(heard) if any(heard.glob("*.wav")) else {}
        return tuple(
            SamplePair(Path(name).stem, reference, candidates[name][0] if name in candidates else None, rate)
            for name, (reference, rate) in references.items()
        )


def open_study(folder: str | Path) -> OpenStudy:
    """Open the folder of a study that has ended.

    Raises:
        ValueError: it is no finished study: what is missing, or which file does not say what it must.
    """
    return OpenStudy(read_results(Path(folder)))


def _site(entry: Mapping[str, Any]) -> Site:
    shape = tuple(entry["weight_shape"])
    taps = math.prod(shape[2:]) if entry["op"].startswith("conv") else 1
    return Site(
        entry["name"],
        entry["op"],
        shape,
        entry["k"],
        entry["n"],
        entry["rows_per_second"],
        groups=entry["groups"],
        kernel=taps,
        group=entry.get("group"),
        fed_by=entry.get("fed_by"),
    )
