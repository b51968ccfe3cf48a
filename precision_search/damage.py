"""Damage of every option: measured once, found in the study or the cache, or settled by a gradient's forecast."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from backends.emulation.audition import Bench
from precision.policy import Scheme
from precision.site import Site
from precision.study import Study
from precision_search.damage_cache import DamageCache
from precision_search.progress import Progress
from precision_search.setting import Setting
from precision_search.settling import FEWEST, Key, first_part, settle
from precision_search.workers import Workers
from voice.model import AdaptableVoice

Damage = Mapping[str, float]
"""Metric -> amplitude."""


def measure_damage(
    setting: Setting,
    study: Study,
    crew: Workers,
    bench: Bench,
    progress: Progress,
    cache: DamageCache | None = None,
) -> dict[Key, Damage]:
    """Damage of each (site, scheme) that is allowed and not refused.

    What the study holds is not measured again, nor what the cache does; both give what a measurement would. Where the
    voice gives gradients and there are options enough, a part is measured and what that leaves no doubt of is settled:
    the same options whatever study, cache and workers there are.
    """
    options = _distinct(setting)
    work = _Work(study, crew, bench, progress, cache, options)
    progress.begin("measuring damage", len(work.missing))
    if work.missing and len(options) >= FEWEST and isinstance(setting.voice, AdaptableVoice):
        foretold = work.foretell()
        part = first_part(foretold)
        work.measure(part)
        known = {key: work.held[key] for key in part}
        for key, found in settle(foretold, known, bench.budgets, len(setting.sites)).items():
            work.settle(key, found.why, found.damage)
    work.measure(options)
    return {
        (site.name, scheme.name): work.held[site.name, named]
        for site in setting.sites
        for scheme, named in _allowed(setting, site)
    }


def _allowed(setting: Setting, site: Site) -> list[tuple[Scheme, str]]:
    """The schemes of a site, each with the name of the first that is alike there.

    At a product of two activations schemes are alike that differ in their weights alone.
    """
    first: dict[Scheme, str] = {}
    found = []
    for scheme in setting.space[site.name]:
        if (site.name, scheme.name) not in setting.refused:
            like = scheme if site.weight_shape else replace(scheme, name="", weight="", levers=())
            found.append((scheme, first.setdefault(like, scheme.name)))
    return found


def _distinct(setting: Setting) -> dict[Key, Scheme]:
    return {
        (site.name, scheme.name): scheme
        for site in setting.sites
        for scheme, named in _allowed(setting, site)
        if scheme.name == named
    }


@dataclass
class _Work:
    study: Study
    crew: Workers
    bench: Bench
    progress: Progress
    cache: DamageCache | None
    options: Mapping[Key, Scheme]

    def __post_init__(self) -> None:
        found = {key: self.study.damage(key[0], scheme) for key, scheme in self.options.items()}
        self.held: dict[Key, Damage] = {key: damage for key, damage in found.items() if damage is not None}

    @property
    def missing(self) -> list[Key]:
        return [key for key in self.options if key not in self.held]

    def measure(self, keys: Iterable[Key]) -> None:
        """Find in the cache, or measure, those that are not held."""
        asked = []
        for key in keys:
            if key in self.held:
                continue
            kept = None if self.cache is None else self.cache.get("damage", key[0], self.options[key])
            if kept is None or kept.keys() != set(self.bench.additive):
                asked.append(key)
            else:
                self._log(key, {metric: kept[metric] for metric in self.bench.additive}, skipped=True)

        # Logged as they come, in whatever order, so that a kill loses no more than what was in work.
        def log(place: int, found: Damage) -> None:
            key = asked[place]
            if self.cache is not None:
                self.cache.put("damage", key[0], self.options[key], found)
            self._log(key, found)

        self.crew.damage([(key[0], self.options[key]) for key in asked], self.bench.additive, log)

    def settle(self, key: Key, why: str, damage: Damage) -> None:
        """Take an option's damage as told, where it is not held: on a resumed study it was settled before."""
        if key not in self.held:
            self.study.add_damage(key[0], self.options[key], damage, settled=why)
            self.held[key] = damage
            self.progress.step(f"{key[0]} as {key[1]}: {why}", skipped=True)

    def foretell(self) -> dict[Key, tuple[float, ...]]:
        """The gradient's forecast of every option, of those measured too: what is settled must not depend on those."""
        kept = (
            {}
            if self.cache is None
            else {key: self.cache.get("foretold", key[0], scheme) for key, scheme in self.options.items()}
        )
        known = {key: tuple(found.values()) for key, found in kept.items() if found is not None}
        asked = [key for key in self.options if key not in known]
        for key, found in zip(asked, self.crew.foretell([(key[0], self.options[key]) for key in asked]), strict=True):
            known[key] = found
            if self.cache is not None:
                values = {str(view): value for view, value in enumerate(found)}
                self.cache.put("foretold", key[0], self.options[key], values)
        return {key: known[key] for key in self.options}

    def _log(self, key: Key, damage: Damage, *, skipped: bool = False) -> None:
        self.study.add_damage(key[0], self.options[key], damage)
        self.held[key] = damage
        self.progress.step(f"{key[0]} as {key[1]}", skipped=skipped)
