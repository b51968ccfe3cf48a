"""What a recipe's schema cannot say: that names are known, and that entries agree with each other.

These look at the plain data, so that they find their mistakes beside those of the schema, not after them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from precision.document import Document
from precision.gates import BOUNDS, Gate
from precision.mistakes import Mistake, Path, nearest, path_text, shown, unknown_name

Promise = tuple[str, str, str]
"""What tells gates apart: metric, over, and side (min or max)."""

NAMES = (
    ("model.name", "model"),
    ("target.device", "card"),
    ("cost.against.device", "card"),
    ("schemes.*.weight", "format"),
    ("schemes.*.activation", "format"),
    ("gates.*.metric", "metric"),
    ("gates.profile", "profile"),
    ("gates.add.*.metric", "metric"),
    ("gates.replace.*.metric", "metric"),
    ("presets.*", "preset"),
)
"""Where in a recipe a name stands, `*` for any key or index, and of what it is one."""
_PRESET_NAMES = (
    ("presets.*.schemes.*.weight", "format"),
    ("presets.*.schemes.*.activation", "format"),
    ("presets.*.architectures.*", "architecture"),
)
_ALLOWED = "space.*.allow.*"
_SCHEME_NAMES = ("baseline", _ALLOWED, "cost.against.scheme")
_SOURCED = (("cost", "prices", "*"), ("cost", "cloud_prices", "*"), ("cost", "characters_per_second"))
_DAY = r"(19|20)\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
_WITHOUT_REPEATS = ("space.*.allow", "schemes.*.levers", "presets")

_MODEL_KEYS = {
    "name": ("checkpoint", "config"),
    "hf": ("revision", "trust_remote_code"),
    "entrypoint": ("inputs", "outputs", "sample_rate_hz", "family"),
}
"""What names a model, and the keys that go with it."""
_FUNCTION = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*"
_AS = {"entrypoint": "build", "inputs": "clips"}


def _is_date(text: str) -> bool:
    """Whether a text is a year, month or day that the calendar has, or one `to` another that is no earlier."""
    if not re.fullmatch(f"{_DAY}( to {_DAY})?", text):
        return False
    first, _, last = text.partition(" to ")
    try:
        for day in (first, last):
            if len(day) == len("2026-11-20"):
                date.fromisoformat(day)
    except ValueError:
        return False
    shorter = min(len(first), len(last))
    return not last or first[:shorter] <= last[:shorter]


def promise(gate: Gate) -> Promise:
    """What tells a gate apart from the others of a recipe."""
    return gate.metric, gate.over, "min" if gate.min is not None else "max"


def names(
    document: Document,
    known: Mapping[str, Collection[str]],
    brought: Collection[str] = (),
    presets: Collection[str] = (),
) -> Iterator[Mistake]:
    """Find names that are not known: of models, cards, formats, metrics, profiles, presets, and of schemes.

    `brought` are the schemes of the recipe's `presets`, which are known beside its own; a rule may allow a preset.
    """
    yield from _unknown(document, NAMES, known)
    for key in ("prices", "cloud_prices"):
        for path, _ in document.walk("cost", key, "*"):
            if path[-1] not in known["card"]:
                yield Mistake(path, unknown_name(str(path[-1]), "card", known["card"]))
    own = [path[-1] for path, _ in document.walk("schemes", "*") if isinstance(path[-1], str)]
    usable = list(dict.fromkeys((*brought, *own)))
    listing = ", ".join(usable) or "none"
    for pattern in _SCHEME_NAMES:
        more = presets if pattern == _ALLOWED else ()
        also = f", or one of its presets ({', '.join(more)})" if more else ""
        for path, value in document.walk(*pattern.split(".")):
            if isinstance(value, str) and value not in usable and value not in more:
                near = nearest(value, (*usable, *more))
                yield Mistake(path, f"got {shown(value)}, must be one of this recipe's schemes ({listing}){also}{near}")


def schemes(document: Document) -> Iterator[Mistake]:
    """Find a recipe that has no schemes, neither its own nor a preset's."""
    if not any(value for key in ("presets", "schemes") for _, value in document.walk(key)):
        said = "missing, must be given, or presets that bring them: presets: [...]"
        yield Mistake(("schemes",), said)


def preset_names(document: Document, known: Mapping[str, Collection[str]]) -> Iterator[Mistake]:
    """Find what a file of presets names and is not known, and levers and architectures that it names twice."""
    yield from _unknown(document, _PRESET_NAMES, known)
    for pattern in ("presets.*.schemes.*.levers", "presets.*.architectures"):
        for path, entries in document.walk(*pattern.split(".")):
            yield from _repeats(path, entries)


def _unknown(
    document: Document, patterns: Iterable[tuple[str, str]], known: Mapping[str, Collection[str]]
) -> Iterator[Mistake]:
    for pattern, noun in patterns:
        for path, value in document.walk(*pattern.split(".")):
            if isinstance(value, str) and value not in known[noun]:
                yield Mistake(path, unknown_name(value, noun, known[noun]))


def rules(document: Document, profiles: Mapping[str, Sequence[Gate]]) -> Iterator[Mistake]:
    """Find entries that do not agree with each other."""
    for path, version in document.walk("version"):
        if version == 1 and type(version) is not int:
            yield Mistake(path, f"got {shown(version)}, must be 1")
    for pattern in _WITHOUT_REPEATS:
        for path, entries in document.walk(*pattern.split(".")):
            yield from _repeats(path, entries)
    yield from _model(document)
    yield from _percentile(document)
    yield from _goal(document)
    yield from _sourced_numbers(document)
    yield from _gates(document, profiles)


def _repeats(path: Path, entries: Any) -> Iterator[Mistake]:
    if isinstance(entries, list):
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                yield Mistake((*path, index), f"got {shown(entry)} a second time, must be listed once")


def _model(document: Document) -> Iterator[Mistake]:
    for path, section in document.walk("model"):
        if not isinstance(section, dict):
            continue
        given = {key for key, value in section.items() if value is not None and value is not False}
        kinds = [kind for kind in _MODEL_KEYS if kind in given]
        if not kinds:
            said = "missing, must be given: name, or in its place hf or entrypoint"
            yield Mistake((*path, "name"), said)
        if len(kinds) > 1:
            yield Mistake(path, f"got {' and '.join(kinds)}, must set exactly one of {', '.join(_MODEL_KEYS)}")
        for kind, keys in _MODEL_KEYS.items():
            for key in keys:
                if kinds and key in given and kind not in kinds:
                    yield Mistake((*path, key), f"given, must be left out with {kinds[0]}: it goes with {kind}")
        for key in ("entrypoint", "inputs"):
            value = section.get(key)
            if isinstance(value, str) and value and not re.fullmatch(_FUNCTION, value):
                said = f"got {shown(value)}, must be module:function, as my_package.my_model:{_AS[key]}"
                yield Mistake((*path, key), said)


def _percentile(document: Document) -> Iterator[Mistake]:
    for path, section in document.walk("calibrate"):
        if not isinstance(section, dict):
            continue
        method, percentile = section.get("method"), section.get("percentile")
        if method == "percentile" and percentile is None:
            yield Mistake((*path, "percentile"), "missing, must be given with method percentile; 99.99 is usual")
        if method in ("amax", "mse") and percentile is not None:
            said = f"got {shown(percentile)} with method {method}, must be left out or null there"
            yield Mistake((*path, "percentile"), said)


def _goal(document: Document) -> Iterator[Mistake]:
    for path, section in document.walk("search"):
        if not isinstance(section, dict) or section.get("goal") != "best_audio":
            continue
        within = section.get("within") or {}
        if isinstance(within, dict) and all(limit is None for limit in within.values()):
            said = "missing, must be given with goal best_audio, as {seconds: 0.8}; with no limit nothing is gained"
            yield Mistake((*path, "within"), said)
        for adapt, asked in document.walk("adapt"):
            if asked is not None:
                said = "given, must be left out with search.goal best_audio: weights are trained for a cheaper policy"
                yield Mistake(adapt, said)


def _sourced_numbers(document: Document) -> Iterator[Mistake]:
    for pattern in _SOURCED:
        for path, entry in document.walk(*pattern):
            if not isinstance(entry, dict):
                continue
            numbers = [entry.get(key) for key in ("low", "value", "high")]
            if entry.get("value") is None and None in (entry.get("low"), entry.get("high")):
                yield Mistake(path, "has neither a value nor low and high; give the number, or both ends of its range")
            given = [number for number in numbers if isinstance(number, int | float)]
            if given != sorted(given):
                said = ", ".join(f"{key} {shown(entry[key])}" for key in ("low", "value", "high") if key in entry)
                yield Mistake(path, f"got {said}, must be low <= value <= high")
            written = entry.get("date")
            if isinstance(written, str) and not _is_date(written):
                said = "must be a date, as 2026-11 or 2026-11-20, or one 'to' another"
                yield Mistake((*path, "date"), f"got {shown(written)}, {said}")


def _gates(document: Document, profiles: Mapping[str, Sequence[Gate]]) -> Iterator[Mistake]:
    chosen = next((value for _, value in document.walk("gates", "profile")), None)
    profile = [promise(gate) for gate in profiles.get(chosen, ())] if isinstance(chosen, str) else []
    taken = dict.fromkeys(profile, f"profile {chosen}")
    form = next((value for _, value in document.walk("gates")), None)
    listed = list(document.walk("gates", "*")) if isinstance(form, list) else list(document.walk("gates", "add", "*"))
    for path, entry in listed:
        yield from _sides(path, entry)
        key = _promise_of(entry)
        if key is None:
            continue
        if key in taken:
            change = "; change it under gates.replace" if taken[key].startswith("profile") else ""
            yield Mistake(path, f"got {_named(key)} again, must be promised once ({taken[key]} has it){change}")
        taken.setdefault(key, path_text(path))
    seen: set[Promise] = set()
    for path, entry in document.walk("gates", "replace", "*"):
        yield from _sides(path, entry)
        key = _promise_of(entry)
        if key is None:
            continue
        if profile and key not in profile:
            has = ", ".join(map(_named, profile))
            yield Mistake(
                path, f"got {_named(key)}, must be a gate of profile {chosen} ({has}); new gates go to gates.add"
            )
        if key in seen:
            yield Mistake(path, f"got {_named(key)} again, must be replaced once")
        seen.add(key)
    yield from _bounds(document, {*taken, *seen})


def _sides(path: Path, entry: Any) -> Iterator[Mistake]:
    if isinstance(entry, dict):
        given = [side for side in ("min", "max") if entry.get(side) is not None]
        if len(given) != 1:
            got = f"min {shown(entry['min'])} and max {shown(entry['max'])}" if given else "neither min nor max"
            yield Mistake(path, f"got {got}, must set exactly one of min and max")


def _bounds(document: Document, promises: Collection[Promise]) -> Iterator[Mistake]:
    bounded = sorted({metric for metric, over, _ in promises if over in BOUNDS})
    for path, clips in document.walk("data", "held_back"):
        if clips == 1 and bounded:
            said = (
                f"got 1, must be at least 2: one clip has no confidence bound, and the gate on {bounded[0]} asks for it"
            )
            yield Mistake(path, said)


def _promise_of(entry: Any) -> Promise | None:
    if not isinstance(entry, dict):
        return None
    metric, over = entry.get("metric"), entry.get("over", "mean")
    sides = [side for side in ("min", "max") if entry.get(side) is not None]
    if isinstance(metric, str) and isinstance(over, str) and len(sides) == 1:
        return metric, over, sides[0]
    return None


def _named(key: Promise) -> str:
    metric, over, side = key
    return f"{metric} over {over} with {side}"
