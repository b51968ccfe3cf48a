"""Wire: names of a recipe to the objects behind them, in the one place where all rooms meet."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from audio_eval.profiles import PROFILES
from audio_eval.suite import METRICS
from backends.base import Backend
from backends.devices import Architecture, Device, load_devices
from backends.emulation.channel_order import CHANNEL_ORDER
from backends.hopper.backend import HopperBackend
from backends.hopper.support import Route
from backends.tenstorrent.backend import TenstorrentBackend
from precision.blocks import known_formats
from precision.policy import Scheme
from precision.presets import Preset, load_presets
from precision.recipe import Known, Recipe, load_recipe
from precision.site import Site
from precision.space import resolve_groups, resolve_space
from precision_search import loading
from precision_search.cards import cards_of, refuse_unrented, unfit_card
from precision_search.protection import held, protected_space
from precision_search.refusals import refuse
from precision_search.setting import Setting, SetupError
from precision_search.slow_fp8 import measured_card, slow_fp8
from voice.chains import find_chains
from voice.checkpoint import content_digest, layers_digest
from voice.flow import find_flow
from voice.model import AdaptableVoice, Clip, Rendering, Voice
from voice.phase import find_phases
from voice.sites import Discovery, discover

ROOMS = ("precision", "voice", "calibrate", "audio_eval", "backends")
PRESETS = "presets.yaml"
SHORT_SECONDS = 0.5
"""Of sound, by which it is found what lies between sites."""


def known_names() -> Known:
    """Every name that a recipe may use."""
    return Known(
        models=tuple(loading.MODELS),
        devices=tuple(devices()),
        metrics=tuple(METRICS),
        profiles=PROFILES,
        presets=presets(),
        unfit_card=unfit_card,
    )


@cache
def devices() -> Mapping[str, Device]:
    """The cards of devices.yaml, by name."""
    return load_devices()


@cache
def presets() -> Mapping[str, Preset]:
    """The presets of recipes/presets.yaml, by name."""
    known = {"format": known_formats(), "architecture": get_args(Architecture)}
    return load_presets(Path(str(files("recipes") / PRESETS)), known)


def packaged_recipes() -> tuple[str, ...]:
    """Names of the recipes that the package brings."""
    return tuple(
        sorted(
            entry.name.removesuffix(".yaml")
            for entry in files("recipes").iterdir()
            if entry.name.endswith(".yaml") and entry.name != PRESETS
        )
    )


def read_recipe(source: str, overrides: Sequence[str]) -> Recipe:
    """Read a recipe from a path, or one that the package brings by its name.

    Raises:
        SetupError: there is neither such a file nor such a recipe.
        RecipeError: the recipe has mistakes.
    """
    path = Path(source)
    if not path.is_file():
        if source not in packaged_recipes():
            brought = ", ".join(packaged_recipes())
            raise SetupError(f"{source}: no such file, and no recipe of that name; the package brings {brought}")
        path = Path(str(files("recipes") / f"{source}.yaml"))
    return load_recipe(path, known_names(), overrides)


def read_text(text: str) -> Recipe:
    """Read a recipe from its own YAML text."""
    return load_recipe(text, known_names())


def backend_of(device: Device, route: Route | None = None) -> Backend:
    """The backend that drives a card, by a route where it has several.

    Raises:
        SetupError: the card is only compared with, or has no such choice.
    """
    if route is not None and device.backend != "hopper":
        raise SetupError(f"target.route: {route} is a way to run on a Hopper card, not on {device.name}; leave it out")
    if device.backend == "tenstorrent":
        return TenstorrentBackend("blackhole" if device.architecture == "blackhole" else "wormhole")
    if device.backend == "hopper":
        return HopperBackend(route)
    driven = ", ".join(name for name, card in devices().items() if card.backend)
    raise SetupError(
        f"target.device: {device.name} can be compared with, but no backend drives it; take one of {driven}"
    )


def make_setting(recipe: Recipe) -> Setting:
    """Load a setting, and refuse what cannot be judged.

    Raises:
        SetupError, CheckpointError, AudioFileError, RecipeError: each names all that is wrong of its kind.
    """
    setting = load_setting(recipe)
    refuse(setting)
    return setting


def load_setting(recipe: Recipe) -> Setting:
    """Load the model and its clips, find its sites, and ask the backend what it refuses.

    Raises:
        SetupError, CheckpointError, AudioFileError, RecipeError: each names all that is wrong of its kind.
    """
    device = cards_of(recipe)[recipe.target.device]
    backend_of(device, recipe.target.route)
    _refuse_passes(recipe, device)
    voice, clips = loading.load_model(recipe)
    if recipe.adapt is not None and not isinstance(voice, AdaptableVoice):
        raise SetupError(
            f"adapt: {voice.name} cannot be trained, it gives no excerpts with gradients; leave `adapt` out"
        )
    parted = _parted(recipe, clips)
    discovery, first = discovered(recipe, voice, parted[0][0])
    return fitted(recipe, voice, parted, discovery, first)


def fitted(
    recipe: Recipe,
    voice: Voice,
    clips: tuple[tuple[Clip, ...], tuple[Clip, ...]],
    discovery: Discovery,
    first: Rendering,
) -> Setting:
    """Hold the sites that were found against a recipe's rules, and ask the backend what it refuses.

    Args:
        recipe: it.
        voice: its model.
        clips: those of the search, and those held back.
        discovery: the model's sites.
        first: the first clip as fp32 renders it.

    Raises:
        SetupError, RecipeError: each names all that is wrong of its kind.
    """
    refuse_unrented(recipe)
    device = measured_card(recipe, cards_of(recipe)[recipe.target.device])
    backend = backend_of(device, recipe.target.route)
    groups = resolve_groups(recipe, discovery.sites)
    agreeing = (replace(site, group=groups.get(site.name, site.group)) for site in discovery.sites)
    discovery = replace(discovery, sites=tuple(agreeing))
    kept = held(recipe, voice, discovery, backend.refuses)
    space, protected = protected_space(resolve_space(recipe, discovery.sites), kept)
    refused = slow_fp8(recipe, device, discovery.sites, space) | {
        (site.name, scheme.name): reason
        for site in discovery.sites
        for scheme in dict.fromkeys((recipe.baseline, *space[site.name]))
        if (reason := backend.refuses(site, scheme)) is not None
    }
    stuck = [s.name for s in discovery.sites if all((s.name, scheme.name) in refused for scheme in space[s.name])]
    unfit = [s.name for s in discovery.sites if (s.name, recipe.baseline.name) in refused]
    divided = _divided(discovery.sites, space, refused)
    if stuck or unfit or divided:
        lines = [f"{name}: every scheme allowed is refused: {refused[name, space[name][0].name]}" for name in stuck]
        lines += [
            f"{name}: the baseline {recipe.baseline.name} is refused: {refused[name, recipe.baseline.name]}"
            for name in unfit
        ]
        lines += [f"{', '.join(names)}: must agree, and no scheme is left that all may take" for names in divided]
        raise SetupError(f"{device.name} cannot run this recipe\n  " + "\n  ".join(lines))
    return Setting(recipe, voice, device, backend, *clips, discovery, space, protected, refused, first)


def discovered(recipe: Recipe, voice: Voice, clip: Clip) -> tuple[Discovery, Rendering]:
    """Find the sites of a voice, and what lies between them, by a clip; with them the clip as fp32 renders it."""
    discovery, heard = located(voice, clip)
    short = _short(voice, clip)
    names = {site.name for site in discovery.sites}
    flow = {site: producer for site, producer in find_flow(voice.module, short).items() if producer in names}
    reordered = any(CHANNEL_ORDER in scheme.levers for scheme in recipe.schemes)
    chains = find_chains(voice.module, short) if reordered else {}
    sites = (replace(site, feeds=chains.get(site.name), fed_by=flow.get(site.name)) for site in discovery.sites)
    phases = {site: phase for site, phase in find_phases(voice.module, short).items() if site in names}
    return replace(discovery, sites=tuple(sites), phases=phases), heard


def located(voice: Voice, clip: Clip) -> tuple[Discovery, Rendering]:
    """Find the sites of a voice by a clip; with them the clip as fp32 renders it.

    Raises:
        SetupError: the voice multiplies nothing, or not in its module; or the clip lasts no time.
    """
    heard: list[Rendering] = []
    try:
        return discover(voice.module, lambda: heard.append(voice.render(clip)), clip.seconds), heard[-1]
    except ValueError as error:
        raise SetupError(f"model: {voice.name} has no sites that can be found: {error}") from error


def _refuse_passes(recipe: Recipe, device: Device) -> None:
    keys = [
        key
        for key, names in (("minimize", (recipe.search.minimize,)), ("within", recipe.search.within))
        if "passes" in names
    ]
    if keys and not device.is_tensix:
        said = ", ".join(f"search.{key}" for key in keys)
        raise SetupError(f"{said}: passes are a Tensix card's, and {device.name} has none; use seconds")


def _short(voice: Voice, clip: Clip) -> Callable[[], tuple[Tensor, ...]]:
    """Run a voice on as little of a clip as it can be run on."""
    if not isinstance(voice, AdaptableVoice):
        return lambda: voice.render(clip).parts
    excerpt = voice.excerpt(clip, 0.0, SHORT_SECONDS)

    def run() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (voice.sound(excerpt),)

    return run


def _divided(
    sites: Sequence[Site], space: Mapping[str, tuple[Scheme, ...]], refused: Mapping[tuple[str, str], str]
) -> list[list[str]]:
    """Names of the sites of each group that has no scheme in common, after protection and refusals."""
    groups: dict[str, list[str]] = {}
    for site in sites:
        if site.group is not None:
            groups.setdefault(site.group, []).append(site.name)
    found = []
    for names in groups.values():
        free = [{scheme.name for scheme in space[name] if (name, scheme.name) not in refused} for name in names]
        if all(free) and not set.intersection(*free):
            found.append(names)
    return found


def _parted(recipe: Recipe, clips: Sequence[Clip]) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """The clips of both splits: the first for the search, the next held back."""
    wanted = recipe.data.search + recipe.data.held_back
    if wanted > len(clips):
        raise SetupError(
            f"data: search + held_back is {wanted}, and there are {len(clips)} clips; ask for fewer, or name a folder"
            " with more recordings in data.audio"
        )
    return tuple(clips[: recipe.data.search]), tuple(clips[recipe.data.search : wanted])


def study_header(setting: Setting) -> dict[str, str | int | float | bool | None]:
    """What a study must agree with to be gone on with."""
    clips = hashlib.sha256()
    for clip in (*setting.search_clips, *setting.held_back_clips):
        clips.update(clip.name.encode())
        for tensor in clip.inputs:
            clips.update(tensor.numpy().tobytes())
        clips.update(b"" if clip.natural is None else clip.natural.tobytes())
    return {
        "recipe": setting.recipe.name,
        "recipe_digest": setting.recipe.digest,
        "model": setting.voice.name,
        "layers": layers_digest(setting.voice.module),
        "weights": content_digest(setting.voice.module.state_dict()),
        "clips": clips.hexdigest()[:16],
        "code": f"{version('precision-search')}+{code_digest()}",
        "torch": version("torch"),
    }


@cache
def code_digest() -> str:
    """Hash of the source of everything that can change a result: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    sources = [(Path(str(files(room))), "**/*.py") for room in ROOMS]
    # Of the command, not the report: a study may be told otherwise than it was begun.
    for root, pattern in (*sources, (Path(str(files("precision_search"))), "*.py")):
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
