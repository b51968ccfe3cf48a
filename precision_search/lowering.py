"""Lowering: what a study or a recipe comes to on a target: its policy, and a clip; refusals come first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from backends.base import Backend, Builder
from backends.devices import Device
from backends.hopper.backend import HopperBackend
from backends.hopper.support import Route
from backends.tenstorrent.backend import TenstorrentBackend
from backends.tenstorrent.cards import CARDS, Card
from backends.tenstorrent.lower.builder import Between
from calibrate.adapted import StoredAdaptations, adapted_file
from precision.policy import Policy
from precision.recipe import Recipe, RecipeError, load_recipe
from precision.study import LOG
from precision_search import wire
from precision_search.cards import cards_of
from precision_search.commands import CommandError
from precision_search.protection import baseline_policy
from precision_search.results import read_policy
from precision_search.setting import Setting
from voice.checkpoint import content_digest
from voice.model import AdaptableVoice, Clip

POLICY, RECIPE, SUMMARY = "policy.yaml", "recipe.yaml", "summary.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked to be lowered."""

    source: str
    """A study's folder, or a recipe: its file, or its name in the package."""
    policy: Path | None = None
    """A policy file; None: the study's own, or a recipe's baseline at every site."""
    clip: str | None = None
    """Name of a clip; None: the shortest of those held back."""
    seconds: float | None = None
    """How much of the clip; None: all of it."""
    overrides: Sequence[str] = ()
    """Of the recipe's values, as `run --set` has them."""
    card: str | None = None
    """A key of CARDS; None: the one that the study is for. Of Tenstorrent."""
    between: Between = "fp32"
    """In what results between sites are kept. Of Tenstorrent."""
    route: Route | None = None
    """What is to run it; None: as the recipe has it, or TensorRT. Of Hopper."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What that comes to."""

    setting: Setting
    """Of the target."""
    policy: Policy
    policy_source: str
    """Where the policy is from, in words."""
    target: str
    """What it is lowered for, in words."""
    clip: Clip
    folder: Path | None
    """Of the study; None where a recipe was named."""

    def refused(self, streamed: Collection[str] = ()) -> dict[str, str]:
        """Site -> why the target cannot run it under its scheme, and what to use; of every site that it refuses.

        `streamed` are the sites that run once a chunk, and must give what they would on the whole.
        """
        sites, backend = {site.name: site for site in self.setting.sites}, self.setting.backend
        assert isinstance(backend, Builder)
        found = {
            name: (backend.refuses_in_stream if name in streamed else backend.refuses)(sites[name], scheme)
            for name, scheme in self.policy.schemes
        }
        return {name: why for name, why in found.items() if why is not None}

    @property
    def clip_told(self) -> str:
        """How much of which clip, in words: what was asked for may be more than there is."""
        whole = any(self.clip is held for held in (*self.setting.held_back_clips, *self.setting.search_clips))
        return f"{'all ' * whole}{self.clip.seconds:.2f} s of {self.clip.name}"

    @property
    def adapted(self) -> StoredAdaptations | None:
        """Trained weights of the study."""
        return None if self.folder is None else StoredAdaptations(self.folder)

    def mac_shares(self, named: Mapping[str, str]) -> dict[str, float]:
        """Share of the MACs of the named sites by what each is named, the largest first."""
        sites = [site for site in self.setting.sites if site.name in named]
        total = sum(site.macs_per_second for site in sites)
        found: dict[str, float] = {}
        for site in sites:
            found[named[site.name]] = found.get(named[site.name], 0.0) + site.macs_per_second / total
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class CardChoice(Chosen):
    """For a Tenstorrent card."""

    card: Card
    between: Between
    """In what results between sites are kept."""


@dataclass(frozen=True, slots=True)
class HopperChoice(Chosen):
    """For a Hopper GPU."""

    route: Route


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    backend: Backend
    device: Device


def choose(asked: Asked) -> CardChoice:
    """Load what was asked for, for a Tenstorrent card; nothing is held against the card yet.

    Raises:
        CommandError: there is no such study, it has not ended, is not for a Tenstorrent card, or is of other weights;
            the policy does not fit the model; there is no such clip, or it cannot be cut.
        SetupError, CheckpointError, AudioFileError, RecipeError: as `make_setting` has them.
    """
    folder, recipe, path = _sources(asked)
    card = _card(recipe, asked)
    target = _Target(card.name, TenstorrentBackend(card.architecture), wire.devices()[card.device])
    return CardChoice(*_chosen(asked, folder, recipe, path, target), card, asked.between)


def choose_hopper(asked: Asked) -> HopperChoice:
    """Load what was asked for, for a Hopper GPU; nothing is held against it yet.

    Raises:
        CommandError: as `choose`; or the study is not for a Hopper GPU.
    """
    folder, recipe, path = _sources(asked)
    device = cards_of(recipe)[recipe.target.device]
    if device.backend != "hopper":
        raise CommandError(
            f"{asked.source}: is for {device.name}, a card of {device.backend or 'no backend'}; ONNX for Hopper is made"
            " of a study for a Hopper GPU"
        )
    route: Route = asked.route or recipe.target.route or "tensorrt"
    runner = "TensorRT" if route == "tensorrt" else "scaled GEMMs"
    target = _Target(f"{runner} on {device.name}", HopperBackend(route), device)
    return HopperChoice(*_chosen(asked, folder, recipe, path, target), route)


def backend_of_study(asked: Asked) -> str | None:
    """Name of the backend that a study or a recipe is for; None of a card that none drives.

    Raises:
        CommandError: as `choose`.
    """
    recipe = _sources(asked)[1]
    return cards_of(recipe)[recipe.target.device].backend


def _sources(asked: Asked) -> tuple[Path | None, Recipe, Path | None]:
    """The study's folder, the recipe with the schemes of the policy's file, and that file."""
    folder = Path(asked.source) if Path(asked.source).is_dir() else None
    if folder is not None and asked.overrides:
        raise CommandError("--set: a study's recipe stands as it was searched; name the recipe in place of the study")
    recipe = _recipe(asked.source, folder, asked.overrides)
    path = asked.policy if asked.policy is not None else None if folder is None else folder / POLICY
    written = {} if path is None else _written(path)
    return folder, _with_schemes(recipe, written.get("schemes"), path), path


def _chosen(
    asked: Asked, folder: Path | None, recipe: Recipe, path: Path | None, target: _Target
) -> tuple[Setting, Policy, str, str, Clip, Path | None]:
    """The fields of `Chosen`, in order."""
    loaded = wire.make_setting(recipe)
    if folder is not None:
        _check_weights(loaded, folder)
    setting = replace(loaded, refused={})  # another target may be asked about than the recipe's
    policy = _policy(setting, path)
    own = {name: (scheme,) for name, scheme in policy.schemes}
    setting = replace(setting, backend=target.backend, device=target.device, space=own)
    _check_adapted(policy, folder, path)
    source = f"the baseline {recipe.baseline.name} at every site" if path is None else str(path)
    return setting, policy, source, target.name, _clip(setting, asked), folder


def refuse_refused(chosen: Chosen, streamed: Collection[str] = ()) -> None:
    """Refuse a policy that the target cannot run; `streamed` as of `Chosen.refused`.

    Raises:
        CommandError: naming every site, why, and what to use.
    """
    refused = chosen.refused(streamed)
    if not refused:
        return
    by_reason: dict[str, list[str]] = {}
    for site, why in refused.items():
        by_reason.setdefault(f"{chosen.policy[site].name}: {why}", []).append(site)
    lines = []
    for why, sites in by_reason.items():
        named = f"{len(sites)} site{'s' * (len(sites) > 1)}: {', '.join(sites)}"
        lines.append(f"{why}\n{fill(named, 118, initial_indent=' ' * 6, subsequent_indent=' ' * 8)}")
    raise CommandError(
        f"{chosen.target} refuses {len(refused)} of {len(chosen.policy)} sites of {chosen.policy_source}\n  "
        + "\n  ".join(lines)
    )


def _recipe(source: str, folder: Path | None, overrides: Sequence[str]) -> Recipe:
    if folder is None:
        if not Path(source).is_file() and source not in wire.packaged_recipes():
            raise CommandError(
                f"{source}: there is neither a study's folder nor a recipe; the package brings the recipes"
                f" {', '.join(wire.packaged_recipes())}"
            )
        return wire.read_recipe(source, overrides)
    path = folder / RECIPE
    if path.is_file() and (folder / POLICY).is_file():
        return wire.read_recipe(str(path), ())
    if (folder / LOG).is_file():
        raise CommandError(f"{folder}: the study has not ended, it has no policy yet; finish it with run --resume")
    raise CommandError(
        f"{folder}: holds no study (there is no {RECIPE}); name a study's folder, a recipe's file, or one of"
        f" {', '.join(wire.packaged_recipes())}"
    )


def _written(path: Path) -> dict[str, Any]:
    """What a policy file holds."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"{path}: cannot be read ({reason}); name a policy file by --policy") from error
    except yaml.YAMLError as error:
        raise CommandError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return data if isinstance(data, dict) else {}


def _with_schemes(recipe: Recipe, schemes: object, path: Path | None) -> Recipe:
    """The recipe with the schemes that the policy's file brings, which take the place of those of the same names."""
    if not isinstance(schemes, dict) or not schemes:
        return recipe
    data = yaml.safe_load(recipe.to_yaml())
    data["schemes"] = data.get("schemes", {}) | schemes
    try:
        return load_recipe(yaml.safe_dump(data, sort_keys=False), wire.known_names())
    except RecipeError as error:
        raise CommandError(f"{path}: its schemes do not fit the recipe: {error}") from error


def _card(recipe: Recipe, asked: Asked) -> Card:
    device = cards_of(recipe)[recipe.target.device]
    if device.backend != "tenstorrent":
        raise CommandError(
            f"{asked.source}: is for {device.name}, a card of {device.backend or 'no backend'}; a program of ttnn is"
            " made of a study for a Tenstorrent card"
        )
    if asked.card is not None:
        return CARDS[asked.card]
    fitting = [card for card in CARDS.values() if card.device == device.name]
    fitting += [card for card in CARDS.values() if card.architecture == device.architecture]
    return fitting[0]


def _check_weights(setting: Setting, folder: Path) -> None:
    path = folder / SUMMARY
    if not path.is_file():
        return
    summary = yaml.safe_load(path.read_text(encoding="utf-8"))
    searched = summary.get("digests", {}).get("weights")
    weights = content_digest(setting.voice.module.state_dict())
    if searched is not None and searched != weights:
        raise CommandError(
            f"{folder}: was searched with weights {searched}, and the model's are {weights} now; put the checkpoint"
            " back, or run the recipe again"
        )


def _policy(setting: Setting, path: Path | None) -> Policy:
    if path is None:
        return baseline_policy(setting)
    try:
        return read_policy(setting, path)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _check_adapted(policy: Policy, folder: Path | None, path: Path | None) -> None:
    for weights in {scheme.adapted for scheme in policy.values() if scheme.adapted is not None}:
        if folder is None:
            raise CommandError(f"{path}: has trained weights {weights}; name the study's folder, which holds them")
        if not (folder / adapted_file(weights)).is_file():
            raise CommandError(
                f"{folder / adapted_file(weights)}: the policy has trained weights, and they are not there; put the"
                " file back"
            )


def _clip(setting: Setting, asked: Asked) -> Clip:
    clips = {clip.name: clip for clip in (*setting.held_back_clips, *setting.search_clips)}
    if asked.clip is None:
        clip = min(setting.held_back_clips, key=lambda held: held.seconds)
    elif asked.clip in clips:
        clip = clips[asked.clip]
    else:
        raise CommandError(f"--clip {asked.clip}: there is no such clip; take one of {', '.join(clips)}")
    if asked.seconds is None or asked.seconds >= clip.seconds:
        return clip
    voice = setting.voice
    if not isinstance(voice, AdaptableVoice):
        raise CommandError(f"--seconds: {voice.name} cannot be cut; take a short clip by --clip, or leave it out")
    return voice.excerpt(clip, 0.5, asked.seconds)  # from the middle: recordings begin with silence
