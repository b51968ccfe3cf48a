"""Recipe: what to search, on which card, and what must still hold; read from YAML, with every mistake told at once."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from precision import checks
from precision.blocks import known_formats
from precision.cards import brought_cards
from precision.cost_section import CostSection
from precision.decoding_section import DecodingSection
from precision.document import Document, YamlError, dump
from precision.gates import Gate
from precision.mistakes import Mistake, RecipeError, shown
from precision.model_section import ModelSection
from precision.policy import Scheme
from precision.presets import Preset, allowed, brought, disagreements
from precision.schema import plain, validate, validate_gates
from precision.sections import (
    AdaptSection,
    CalibrateSection,
    DataSection,
    GateEntry,
    GatesSection,
    RecipeFile,
    Rule,
    SchemeEntry,
    SearchSection,
    TargetSection,
)

__all__ = ["Known", "Recipe", "RecipeError", "load_gates", "load_recipe"]

_LARGEST = 1 << 20  # characters; a recipe takes a few thousand


@dataclass(frozen=True, slots=True)
class Known:
    """The names a recipe may use, handed in by whoever holds the objects behind them."""

    models: Collection[str]
    devices: Collection[str]
    metrics: Collection[str]
    profiles: Mapping[str, Sequence[Gate]]
    formats: Collection[str] = field(default_factory=known_formats)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    unfit_card: Callable[[str, object], Sequence[str]] | None = None
    """What is wrong with a card of a recipe's own, by its name and its figures; None where none may be brought."""

    @property
    def nouns(self) -> dict[str, Collection[str]]:
        """Names by the noun that messages use of what they name."""
        return {
            "model": self.models,
            "card": self.devices,
            "metric": self.metrics,
            "profile": self.profiles,
            "format": self.formats,
            "preset": self.presets,
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe whose every name is known: what was written, and the schemes and gates it comes to."""

    written: RecipeFile
    """The file as it is written, with `--set` applied and its presets spelled out."""
    schemes: tuple[Scheme, ...]
    """Every scheme: those of presets first, then the others in the order of the file."""
    gates: tuple[Gate, ...]
    """Every gate that must hold, a profile's included."""

    @property
    def name(self) -> str:
        """Name of the recipe, and of its study folder."""
        return self.written.name

    @property
    def model(self) -> ModelSection:
        """The voice model: one of name, hf and entrypoint, and what goes with it (paths as written)."""
        return self.written.model

    @property
    def target(self) -> TargetSection:
        """What the model is to run on: device, and for a Hopper card route and slow_fp8."""
        return self.written.target

    @property
    def data(self) -> DataSection:
        """Numbers of clips: search, held_back; and audio, a folder as written."""
        return self.written.data

    @property
    def calibrate(self) -> CalibrateSection:
        """How activations are given a scale: method, and percentile with that method."""
        return self.written.calibrate

    @property
    def baseline(self) -> Scheme:
        """The scheme that is the yardstick."""
        return self.scheme(self.written.baseline)

    @property
    def space(self) -> tuple[Rule, ...]:
        """The rules of who may choose what; `precision.space.resolve_space` applies them."""
        return self.written.space

    @property
    def search(self) -> SearchSection:
        """What is looked for and how much is tried: goal, minimize, within, method, candidates, evaluations, seed."""
        return self.written.search

    @property
    def adapt(self) -> AdaptSection | None:
        """Training of weights: steps, local_steps, rate; None where weights stay as they are."""
        return self.written.adapt

    @property
    def cost(self) -> CostSection:
        """What a stream is priced at, against what and with whose prices; the defaults where the file is silent."""
        return self.written.cost if self.written.cost is not None else CostSection()

    @property
    def decoding(self) -> DecodingSection:
        """What is assumed of a decoder's streams; the defaults where the file is silent."""
        return self.written.decoding if self.written.decoding is not None else DecodingSection()

    @property
    def cost_scheme(self) -> Scheme:
        """The scheme that the card to compare with runs; the baseline where the file is silent."""
        return self.scheme(self.cost.against.scheme or self.written.baseline)

    def scheme(self, name: str) -> Scheme:
        """Give a scheme by its name; KeyError where the recipe defines none."""
        for scheme in self.schemes:
            if scheme.name == name:
                return scheme
        raise KeyError(name)

    @property
    def digest(self) -> str:
        """Hash of all that the recipe comes to, defaults and a profile's gates included: 16 hexadecimal digits.

        Paths count as they are written; where the recipe lies, its comments and its layout do not count.
        """
        written = asdict(self.written)
        written["schemes"] = [scheme.to_dict() for scheme in self.schemes]
        written["gates"] = [asdict(gate) for gate in self.gates]
        # What these had before they had more: studies of then can be gone on with.
        cost = self.cost
        written["cost"] = {"streams": cost.streams, "utilization": cost.utilization, "years": cost.years} | plain(cost)
        written["cost"]["against"] = asdict(cost.against)
        written["model"] = {"checkpoint": None, "config": None} | plain(self.model)
        written["target"] = plain(self.target)
        if self.adapt is None:
            del written["adapt"]
        # No search reads it.
        del written["decoding"]
        text = json.dumps(written, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """Write the recipe so that `load_recipe` reads back an equal one; keys that hold their default are left out."""
        return dump(plain(self.written))


def load_recipe(source: str | Path, known: Known, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        source: a Path is a file to read; a str is the YAML itself.
        known: the names that may be used.
        overrides: `key.path=value` as `--set` gives them, the value in YAML; applied in order.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or holds mistakes: one message names them all, each with its
            path, the value that was got, what must hold and the nearest known name.
    """
    label = str(source) if isinstance(source, Path) else "recipe"
    document = _read(source, label)
    document.override(overrides)
    if not isinstance(document.data, dict):
        hint = "; a file is named with a pathlib.Path" if isinstance(source, str) else ""
        said = f"got {shown(document.data)}, must be a mapping of version, name, model and so on{hint}"
        raise RecipeError(label, document.told([*document.mistakes, Mistake((), said)]))
    cards, unread = brought_cards(document, known.devices, known.unfit_card)
    known = replace(known, devices=(*known.devices, *cards))
    written, mistakes = validate(document.data)
    mistakes += unread
    told = {mistake.path for mistake in mistakes}
    mistakes += [mistake for mistake in checks.schemes(document) if mistake.path not in told]
    mistakes = _checked(document, [*document.mistakes, *mistakes], known)
    if mistakes or written is None:
        raise RecipeError(label, document.told(mistakes))
    written = _spelled_out(written, known.presets)
    schemes = tuple(_scheme(name, entry) for name, entry in written.schemes.items())
    return Recipe(written, schemes, _gates(written.gates, known.profiles))


def _spelled_out(written: RecipeFile, presets: Mapping[str, Preset]) -> RecipeFile:
    """Put the schemes of presets in their place, so that a study's recipe means the same when a preset has changed."""
    schemes = brought(written.presets, presets) | written.schemes
    space = (
        replace(rule, allow=tuple(allowed(rule.allow, written.presets, presets, written.schemes)))
        for rule in written.space
    )
    return replace(written, presets=(), schemes=schemes, space=tuple(space))


def load_gates(source: str | Path, known: Known) -> tuple[Gate, ...]:
    """Read the gates of a file that need hold nothing else: its key `gates`, as recipes have it; a recipe will do.

    Args:
        source: a Path is a file to read; a str is the YAML itself.
        known: the metrics and profiles that may be used.

    Raises:
        RecipeError: the file cannot be read, is not YAML, has no gates, or mistakes in them: one message names them
            all.
    """
    label = str(source) if isinstance(source, Path) else "gates"
    document = _read(source, label)
    if not isinstance(document.data, dict) or "gates" not in document.data:
        said = f"got {shown(document.data)}, must be a mapping with the key gates, as a recipe has it"
        raise RecipeError(label, document.told([Mistake((), said)]))
    document.data = {"gates": document.data["gates"]}
    written, mistakes = validate_gates(document.data)
    twice = [mistake for mistake in document.mistakes if mistake.path[:1] == ("gates",)]
    mistakes = _checked(document, [*twice, *mistakes], known)
    if mistakes or written is None:
        raise RecipeError(label, document.told(mistakes))
    return _gates(written.gates, known.profiles)


def _checked(document: Document, mistakes: list[Mistake], known: Known) -> list[Mistake]:
    """The mistakes, and with them those that the schema does not see."""
    # A value the schema has refused needs no second complaint.
    refused = {mistake.path for mistake in mistakes}
    named = [name for _, name in document.walk("presets", "*") if isinstance(name, str)]
    found = [
        *checks.names(document, known.nouns, brought(named, known.presets), named),
        *checks.rules(document, known.profiles),
        *disagreements(document, known.presets),
    ]
    return [*mistakes, *(mistake for mistake in found if mistake.path not in refused)]


def _read(source: str | Path, label: str) -> Document:
    try:
        text = source.read_text(encoding="utf-8-sig") if isinstance(source, Path) else source
    except OSError as error:
        raise RecipeError(label, [f"cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            label, [f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"]
        ) from error
    if len(text) > _LARGEST:
        raise RecipeError(label, [f"got {len(text)} characters, must be at most {_LARGEST}; is this a recipe?"])
    try:
        return Document.parse(text)
    except YamlError as error:
        raise RecipeError(label, [f"not YAML: {error}"]) from error


def _scheme(name: str, entry: SchemeEntry) -> Scheme:
    return Scheme(
        name=name,
        weight=entry.weight,
        activation=entry.activation,
        accumulate=entry.accumulate,
        fidelity=entry.fidelity,
        weight_scale=entry.weight_scale,
        activation_scale=entry.activation_scale,
        levers=entry.levers,
        packer_l1_acc=entry.packer_l1_acc,
        in0_block_w=entry.in0_block_w,
        bias_apart=entry.bias_apart,
    )


def _gate(entry: GateEntry) -> Gate:
    return Gate(metric=entry.metric, over=entry.over, min=entry.min, max=entry.max)


def _gates(written: tuple[GateEntry, ...] | GatesSection, profiles: Mapping[str, Sequence[Gate]]) -> tuple[Gate, ...]:
    if isinstance(written, tuple):
        return tuple(_gate(entry) for entry in written)
    replaced = {checks.promise(_gate(entry)): _gate(entry) for entry in written.replace}
    kept = [replaced.get(checks.promise(gate), gate) for gate in profiles[written.profile]]
    return (*kept, *(_gate(entry) for entry in written.add))
