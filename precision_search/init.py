"""`precision-search init MODEL`: look at a model and write a commented recipe that runs; `schema`, for editors."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from audio_eval.audio import read_folder
from precision.journal import write_atomic
from precision.mistakes import unknown_name
from precision.policy import Scheme
from precision.recipe import load_recipe
from precision.schema import schema_text
from precision.space import resolve_space
from precision_search import loading, wire
from precision_search.commands import Answer, CommandError
from precision_search.draft import TAKES, draft, model_named
from precision_search.protection import held
from precision_search.recipe_text import recipe_text
from precision_search.setting import SetupError
from precision_search.survey import Look, Proposal, propose
from precision_search.uncovered import outside_lines, warning

_SEARCH_CLIPS, _HELD_BACK_CLIPS, _LEAST_HELD_BACK = 8, 12, 2
_FIRST, _USUAL = (1, _LEAST_HELD_BACK), _SEARCH_CLIPS + _HELD_BACK_CLIPS
_NOT_SET = {
    "space": "init finds the rules itself; change them in the file that it writes",
    "target": "init takes the card by --device",
    **dict.fromkeys(("model.name", "model.hf", "model.entrypoint"), "init takes the model as its argument"),
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `init` and `schema`."""
    text = "Look at a model and write a commented recipe that runs, to begin with."
    sub = subparsers.add_parser("init", help=text, description=text)
    sub.add_argument("model", metavar="MODEL", help=f"a model: {TAKES}")
    sub.add_argument("--device", default="p150a", metavar="CARD", help="a card of `devices` (default: p150a)")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a value, as model.checkpoint=PATH"
    )
    sub.add_argument("--out", type=Path, metavar="FILE", help="where to (default: MODEL_CARD.yaml)")
    sub.add_argument("--force", action="store_true", help="write over a file that is there")
    sub.add_argument("--json", action="store_true", help="print JSON in place of text")
    sub.set_defaults(
        answer=lambda parsed: init(parsed.model, parsed.device, parsed.set, parsed.out, force=parsed.force)
    )
    text = "Print the JSON schema of a recipe, by which an editor completes and checks."
    sub = subparsers.add_parser("schema", help=text, description=text)
    sub.set_defaults(answer=lambda parsed: schema(), json=False)


def schema() -> Answer:
    """The JSON schema of a recipe, with the names of models, cards, formats, metrics, profiles and presets."""
    return Answer({}, schema_text(wire.known_names().nouns).removesuffix("\n"))


def init(model: str, device: str, overrides: Sequence[str], out: Path | None, *, force: bool) -> Answer:
    """Write a recipe for a model that was loaded and looked at.

    Args:
        model: name of a model, or hf:PATH, or entrypoint:MODULE:FUNCTION.
        device: name of a card that a backend drives.
        overrides: `key.path=value` for anything but `space`, applied before the model is loaded.
        out: file to write; `MODEL_CARD.yaml` in this folder by default.
        force: write over what is there.

    Raises:
        CommandError: no such model, a rule set from outside, or a file in the way.
        SetupError, CheckpointError, AudioFileError, RecipeError: as for a recipe that names the same.
    """
    named = model_named(model)
    if device not in wire.devices():
        raise CommandError(unknown_name(device, "card", wire.devices()))
    for key, instead in _NOT_SET.items():
        if any(re.match(rf"{key}\b", override) for override in overrides):
            raise CommandError(f"--set {key}: {instead}")
    short = _short(model)
    path = out if out is not None else Path(f"{short}_{device}.yaml")
    if path.exists() and not force:
        raise CommandError(f"{path}: is there already; write over it by --force, or name another file by --out")
    look = _look(named, device, overrides, _name(path.stem, short, device))
    proposals = propose(
        look.sites, look.recipe.schemes, look.recipe.baseline, look.voice.protected, look.refuses, _phases(look)
    )
    text = recipe_text(look, proposals, path)
    _read_back(text, look, proposals)
    write_atomic(path, text)
    policies = look.policies(proposals)
    data = {
        "recipe": str(path),
        "sites": len(look.sites),
        "policies": policies,
        "search": look.recipe.data.search,
        "held_back": look.recipe.data.held_back,
        "space": [
            {"match": rule.match, "op": rule.op, "allow": [s.name for s in rule.allow], "sites": len(rule.sites)}
            for rule in proposals
        ],
    }
    warned = warning(look.discovery.covered_share)
    lines = [
        f"{path}: {look.voice.name} on {look.device.title}, {len(look.sites)} sites under {len(proposals)} rules,"
        f" {look.recipe.data.search} clips to search with, {look.recipe.data.held_back} held back",
        *(f"  {line}" for line in outside_lines(look.discovery.uncovered)),
        *([] if warned is None else [f"  warning: {warned}"]),
        "  look through it, then",
        f"    precision-search check {path}",
        f"    precision-search run {path}",
    ]
    return Answer(data, "\n".join(lines))


def _phases(look: Look) -> dict[str, tuple[Scheme, str]]:
    """What sites that make phases are held at, where the voice does not name them itself."""
    kept = held(look.recipe, look.voice, look.discovery, look.refuses)
    named = {site for site in kept for pattern in look.voice.protected if fnmatchcase(site, pattern)}
    return {site: (one.scheme, one.why) for site, one in kept.items() if site not in named}


def _name(*candidates: str) -> str:
    """A name of a recipe, made of a file's, or of the model's and the card's."""
    stem, model, device = (re.sub("[^a-z0-9_]+", "_", text.lower()).strip("_") for text in candidates)
    return (stem or f"{model}_{device}")[:100]


def _short(model: str) -> str:
    """What files and recipes of a model are named by: the last part of a path or of a module."""
    way, _, rest = model.partition(":")
    if way == "hf":
        return Path(rest).expanduser().resolve().name if Path(rest).expanduser().is_dir() else rest.rpartition("/")[2]
    return rest.partition(":")[0].rpartition(".")[2] if way == "entrypoint" else model


def _look(model: Mapping[str, str], device: str, overrides: Sequence[str], name: str) -> Look:
    card = wire.devices()[device]
    backend = wire.backend_of(card)
    first = draft(model, device, overrides, name, *_FIRST)
    if "name" not in model:
        # These give as many clips as they are asked for, or as there are recordings.
        audio = first.data.audio
        first = draft(model, device, overrides, name, *_split(_USUAL if audio is None else len(read_folder(audio))))
    voice, clips = loading.load_model(first)
    if not clips:
        raise SetupError("data: there are no clips; name a folder with recordings by --set data.audio=FOLDER")
    search, held_back = _split(len(clips))
    # Said only where it cuts: not of short clips, nor of a model that speaks whole sentences of its own.
    longest = max(clip.seconds for clip in clips)
    cut = first.data.seconds is not None and 0.9 * first.data.seconds < longest <= first.data.seconds
    recipe = draft(model, device, overrides, name, search, held_back, cut=cut)
    if recipe.data.search + recipe.data.held_back > len(clips):
        raise SetupError(
            f"data: {recipe.data.search} + {recipe.data.held_back} clips are asked for, and there are {len(clips)};"
            " ask for fewer, or name a folder with more recordings by --set data.audio=FOLDER"
        )
    discovery, _ = wire.discovered(recipe, voice, clips[0])
    look = Look(recipe, voice, card, backend.refuses, discovery, len(clips))
    unfit = [f"{site.name}: {why}" for site in look.sites if (why := backend.refuses(site, recipe.baseline))]
    if unfit:
        raise SetupError(
            f"{card.name} cannot run the baseline {recipe.baseline.name}; name another by --set baseline=SCHEME\n  "
            + "\n  ".join(unfit)
        )
    return look


def _split(clips: int) -> tuple[int, int]:
    """How many clips search and how many judge: 8 and 12, or two of five and the rest where there are fewer."""
    search = max(1, min(_SEARCH_CLIPS, clips * 2 // 5))
    return search, max(_LEAST_HELD_BACK, min(_HELD_BACK_CLIPS, clips - search))


def _read_back(text: str, look: Look, proposals: Sequence[Proposal]) -> None:
    """Make sure that the text says what was meant."""
    recipe = load_recipe(text, wire.known_names())
    meant = replace(look.recipe, written=replace(look.recipe.written, space=recipe.space))
    space = {site.name: rule.allow for rule in proposals for site in rule.sites}
    if recipe.digest != meant.digest or resolve_space(recipe, look.sites) != space:
        raise AssertionError(f"the recipe of {recipe.name} does not read back as it was meant:\n{text}")
