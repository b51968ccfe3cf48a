"""Pages of the reference that are tables of the code: command, metrics, formats, cards; and the list of decisions."""

import argparse
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

from audio_eval.profiles import PROFILES
from audio_eval.suite import METRICS
from backends.devices import Device
from precision_search import commands as answers
from precision_search.main import build_parser
from precision_search.wire import devices, presets

_COLUMNS = {"COLUMNS": "110", "NO_COLOR": "1"}


def overview() -> str:
    """What there is in the reference."""
    return _page(
        "Reference",
        "Written anew from the code each time that the site is built, so it says what this version does.",
        "* [The command](commands.md): every subcommand, its arguments, examples and exit codes.",
        "* [The recipe](recipe.md): every key, what it may hold, and its default.",
        "* [Metrics and profiles](metrics.md): what can be a gate, and the gates of each profile.",
        "* [Formats and presets](formats.md): what a scheme may name, and schemes that belong together.",
        "* [Cards](cards.md): rates, memories and prices, with range, source and doubt.",
        "* Python: the public modules, from their docstrings, one page a room: [precision](python/precision.md),"
        " [voice](python/voice.md), [audio_eval](python/audio_eval.md), [calibrate](python/calibrate.md),"
        " [backends](python/backends.md), [precision_search](python/precision_search.md).",
    )


def commands() -> str:
    """Every command as its `--help` has it."""
    with mock.patch.dict(os.environ, _COLUMNS):
        parts = [f"## {name}\n\n```text\n{parser.format_help().rstrip()}\n```" for name, parser in parsers()]
    return _page("The command", *parts)


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command's full name and its parser, those of `study` included."""
    yield from _below("precision-search", build_parser())


def _below(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from _below(f"{name} {word}", below)


def metrics() -> str:
    """Every metric with its unit, what it is good for in a search, and what it says; the gates of each profile."""
    rows = [
        (
            f"`{metric.name}`",
            metric.unit,
            metric.better,
            ", ".join(_traits(metric.name)) or "-",
            _first_line(metric.function),
        )
        for metric in METRICS.values()
    ]
    gates = []
    for name, profile in PROFILES.items():
        limits = [
            (f"`{gate.metric}`", gate.over, f"at {'least' if gate.min is not None else 'most'} {gate.threshold:g}")
            for gate in profile
        ]
        gates += [f"## Gates of the profile `{name}`", _table(("metric", "over the clips", "must be"), limits)]
    return _page(
        "Metrics and profiles",
        "In the order of their cost, cheap to dear, as they are asked. What each hears and is blind to, and why a"
        " threshold is where it is: [Gates](../gates.md). One of your own: [how](../howto/own_gate.md).",
        _table(("metric", "unit", "better", "traits", "what it is"), rows),
        "*adds*: over sites whose errors are independent its square adds (of *power*: the value itself), so a table of"
        " single sites foretells a policy's. *dear*: asked last. *free*: of renders with nothing forced. *text*,"
        " *audio*: of the logits of such heads. *natural*: needs the recording that the reference imitates.",
        *gates,
    )


def _traits(name: str) -> Iterator[str]:
    metric = METRICS[name]
    named = {
        "adds": metric.additive and not metric.power,
        "adds, power": metric.additive and metric.power,
        "dear": metric.dear,
        "free": metric.free,
        "natural": metric.needs_natural,
        f"above {metric.above_hz} Hz": metric.above_hz > 0,
        metric.heads: bool(metric.heads),
    }
    return (word for word, holds in named.items() if holds)


def formats() -> str:
    """The number formats as the command lists them, and the presets' schemes."""
    rows = [
        (
            f"`{row['name']}`",
            f"{row['stored_bits']:g}",
            *("-" if row[key] is None else f"{row[key]:.4g}" for key in ("largest", "smallest")),
            row["overflow"],
            row["rounding"],
            row["block"],
        )
        for row in answers.formats().data["formats"]
    ]
    heads = ("format", "bits stored", "largest", "smallest above 0", "overflow", "rounding", "shared exponent")
    sets = []
    for name, preset in presets().items():
        lines = "\n".join(f"  {scheme}: {_flow(entry)}" for scheme, entry in _schemes(preset.schemes))
        cards = ", ".join(preset.architectures)
        sets += [f"### {name}", f"{preset.about[:1].upper()}{preset.about[1:]}. For {cards}.", f"```yaml\n{lines}\n```"]
    return _page(
        "Formats and presets",
        "What a [scheme](recipe.md#schemes) may name as `weight` and `activation`. The definitions are"
        " `precision/formats.py` and `precision/blocks.py`; what they mean: [Fidelity and block floats]"
        "(../fidelity.md).",
        _table(heads, rows),
        "## Presets",
        "Schemes that belong together, for `presets: [NAME]` in a recipe.",
        *sets,
    )


def _schemes(schemes: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    return schemes.items()


def _flow(entry: object) -> str:
    from precision.schema import plain

    data = plain(entry)
    said = (
        f"{key}: [{', '.join(value)}]" if isinstance(value, list) else f"{key}: {value}" for key, value in data.items()
    )
    return "{" + ", ".join(said) + "}"


def cards() -> str:
    """Every card's figures with range, source and doubt."""
    parts = [part for card in devices().values() for part in (f"## {card.title}", _card(card))]
    return _page(
        "Cards",
        "`backends/devices.yaml`, as `precision-search devices --json` prints it. A number without a source does not"
        " enter; rates of Tenstorrent cards are computed from cores, clock and passes. Cards of your own:"
        " [how](../howto/own_card.md).",
        *parts,
    )


def _card(card: Device) -> str:
    driven = "compared with only" if card.backend is None else f"backend `{card.backend}`"
    rows = [
        (
            f"`{name}`",
            f"{figure.value:.5g}",
            f"{figure.low:.5g} to {figure.high:.5g}",
            figure.source,
            figure.doubt or "-",
        )
        for name, figure in card.figures().items()
    ]
    table = _table(("figure", "value", "range", "source", "doubt"), rows)
    return f"`{card.name}`: {card.architecture}, {driven}.\n\n{table}"


def decisions(folder: Path) -> str:
    """The decisions by their titles."""
    lines = []
    for path in sorted(folder.glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"* [{title}]({path.name})")
    return _page(
        "Decisions",
        "One page for each choice that would be hard to take back: what was decided, why, and what was measured.",
        "\n".join(lines),
    )


def _first_line(function: object) -> str:
    text = inspect.getdoc(function) or ""
    return re.sub(r"\s+", " ", text.partition("\n\n")[0])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *parts]) + "\n"
