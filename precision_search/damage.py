"""Damage of every option, measured once: what the study holds is not measured again."""

from collections.abc import Mapping
from dataclasses import replace

from backends.emulation.audition import Bench
from precision.policy import Scheme
from precision.site import Site
from precision.study import Study
from precision_search.progress import Progress
from precision_search.setting import Setting
from precision_search.workers import Workers


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

    def log(place: int, found: Mapping[str, float]) -> None:
        site, scheme = first[asked[place]]
        study.add_damage(site.name, scheme, found)
        progress.step(f"{site.name} as {scheme.name}")

    # Logged as they come, in whatever order, so that a kill loses no more than what was in work.
    measured = crew.damage([(first[key][0].name, first[key][1]) for key in asked], bench.additive, log)
    held |= dict(zip(asked, measured, strict=True))
    damage: dict[tuple[str, str], Mapping[str, float]] = {}
    for site, scheme in todo:
        known = held[_alike(site, scheme)]
        assert known is not None
        damage[site.name, scheme.name] = known
    return damage


def _alike(site: Site, scheme: Scheme) -> tuple[str, Scheme]:
    """A key that is one for schemes that differ in their weights alone, at a product of two activations."""
    return site.name, scheme if site.weight_shape else replace(scheme, name="", weight="", levers=())
