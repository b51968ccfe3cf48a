"""Problem of a setting: what each site costs under each scheme, and what it damages."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from backends.cost import CostModel
from backends.emulation.audition import Bench
from precision.policy import FIDELITIES, Scheme
from precision.search.problem import Problem
from precision.site import Site
from precision.study import Study
from precision_search.progress import Progress
from precision_search.setting import Setting
from precision_search.workers import Workers

TIE = 1e-3
"""Weight of the seconds, as a share of the baseline's, where passes are minimized."""


def measure_damage(
    setting: Setting, study: Study, crew: Workers, bench: Bench, progress: Progress
) -> dict[tuple[str, str], Mapping[str, float]]:
    """Damage of each (site, scheme) that is allowed and not refused; what the study holds is not measured again."""
    todo = [
        (site, scheme)
        for site in setting.sites
        for scheme in setting.space[site.name]
        if (site.name, scheme.name) not in setting.refused
    ]
    first: dict[tuple[str, Scheme], tuple[Site, Scheme]] = {}
    for site, scheme in todo:
        first.setdefault(_alike(site, scheme), (site, scheme))
    held = {key: study.damage(site.name, scheme) for key, (site, scheme) in first.items()}
    asked = [key for key, found in held.items() if found is None]
    progress.begin("measuring damage", len(asked))
    measured = crew.damage([(first[key][0].name, first[key][1]) for key in asked], bench.additive)
    for key, found in zip(asked, measured, strict=True):
        site, scheme = first[key]
        study.add_damage(site.name, scheme, found)
        held[key] = found
        progress.step(f"{site.name} as {scheme.name}")
    damage: dict[tuple[str, str], Mapping[str, float]] = {}
    for site, scheme in todo:
        known = held[_alike(site, scheme)]
        assert known is not None
        damage[site.name, scheme.name] = known
    return damage


def _alike(site: Site, scheme: Scheme) -> tuple[str, Scheme]:
    """A key that is one for schemes that differ in their weights alone, at a product of two activations."""
    return site.name, scheme if site.weight_shape else replace(scheme, name="", weight="", levers=())


def problem_of(setting: Setting, damage: Mapping[tuple[str, str], Mapping[str, float]]) -> Problem:
    """The search's arrays: what each choice costs on the card, and what it damages."""
    sites, names = setting.sites, [scheme.name for scheme in setting.recipe.schemes]
    metrics = tuple(next(iter(damage.values())))
    price = _price(setting)
    cost = np.full((len(sites), len(names)), np.inf)
    table = np.zeros((len(metrics), len(sites), len(names)))
    for row, site in enumerate(sites):
        for scheme in setting.space[site.name]:
            if (site.name, scheme.name) in setting.refused:
                continue
            column = names.index(scheme.name)
            cost[row, column] = price(site, scheme)
            table[:, row, column] = [damage[site.name, scheme.name][metric] for metric in metrics]
    groups: dict[str, list[int]] = {}
    for row, site in enumerate(sites):
        if site.group is not None:
            groups.setdefault(site.group, []).append(row)
    return Problem(
        sites=tuple(site.name for site in sites),
        options=tuple(tuple(names) for _ in sites),
        metrics=metrics,
        cost=cost,
        damage=table,
        groups=tuple(tuple(rows) for rows in groups.values()),
    )


def _price(setting: Setting) -> Callable[[Site, Scheme], float]:
    """What a search makes small: seconds a second of audio, or passes of the multiplier a MAC; then seconds decide."""
    model = CostModel.of(setting.device, setting.sites, streams=setting.recipe.cost.streams)
    if setting.recipe.search.minimize == "seconds":
        return lambda site, scheme: model.site_cost(site, scheme).seconds
    total = math.fsum(site.macs_per_second for site in setting.sites)
    whole = math.fsum(model.site_cost(site, setting.recipe.baseline).seconds for site in setting.sites)

    def passes(site: Site, scheme: Scheme) -> float:
        assert scheme.fidelity is not None
        share = site.macs_per_second / total * (1 + FIDELITIES.index(scheme.fidelity))
        return share + TIE * model.site_cost(site, scheme).seconds / whole

    return passes
