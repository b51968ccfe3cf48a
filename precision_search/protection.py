"""Protection: the sites that no search lowers: those that the voice names, and those found to make phases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from precision.blocks import stored_bits
from precision.policy import Policy, Scheme
from precision.recipe import Recipe
from precision.site import Site
from precision_search.setting import Setting
from voice.model import Voice
from voice.sites import Discovery

Refuses = Callable[[Site, Scheme], str | None]
_PASSES = ("lofi", "hifi2", "hifi3", "hifi4")
"""Fidelities, from the one that reads least."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a protected site computes under, and why."""

    scheme: Scheme
    why: str


def held(recipe: Recipe, voice: Voice, discovery: Discovery, refuses: Refuses) -> dict[str, Held]:
    """The protected sites of a model, by name.

    Those that the voice names keep the baseline. Those that make a phase get the widest scheme of the recipe that the
    card can run there, whatever the recipe's rules allow them: of a baseline in bf16 a phase must be spared, too.
    """
    found: dict[str, Held] = {}
    for site in discovery.sites:
        reasons = [why for pattern, why in voice.protected.items() if fnmatchcase(site.name, pattern)]
        phase = discovery.phases.get(site.name)
        if reasons:
            found[site.name] = Held(recipe.baseline, reasons[-1])
        elif phase is not None:
            found[site.name] = Held(widest(site, (recipe.baseline, *recipe.schemes), refuses), phase.why)
    return found


def widest(site: Site, schemes: Sequence[Scheme], refuses: Refuses) -> Scheme:
    """Of the schemes that a site can run under, the one that keeps most; the first where all are alike or refused."""

    def bits(scheme: Scheme) -> tuple[float, ...]:
        fidelity = -1 if scheme.fidelity is None else _PASSES.index(scheme.fidelity)
        wide = scheme.accumulate == "fp32"
        return (stored_bits(scheme.activation), stored_bits(scheme.weight), wide, fidelity, scheme.bias_apart)

    possible = [scheme for scheme in schemes if refuses(site, scheme) is None]
    return max(possible or schemes[:1], key=bits)


def protected_space(
    space: Mapping[str, tuple[Scheme, ...]], kept: Mapping[str, Held]
) -> tuple[dict[str, tuple[Scheme, ...]], dict[str, str]]:
    """The space with protected sites held, and why each of them is."""
    narrowed = {site: (kept[site].scheme,) if site in kept else schemes for site, schemes in space.items()}
    return narrowed, {site: one.why for site, one in kept.items()}


def baseline_policy(setting: Setting) -> Policy:
    """The baseline at every site but those that are protected."""
    kept = {name: setting.space[name][0] for name in setting.protected}
    return Policy.of({site.name: kept.get(site.name, setting.recipe.baseline) for site in setting.sites})
