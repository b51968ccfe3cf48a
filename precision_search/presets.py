"""`precision-search presets`: the sets of schemes that a recipe brings by naming them."""

import argparse
from typing import Any

from precision.document import flow
from precision.schema import plain
from precision_search import wire
from precision_search.commands import Answer


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `presets`."""
    text = "List the sets of schemes that a recipe brings by `presets: [NAME]`."
    sub = subparsers.add_parser("presets", help=text, description=text)
    sub.add_argument("--json", action="store_true", help="print JSON in place of text")
    sub.set_defaults(answer=lambda parsed: presets())


def presets() -> Answer:
    """The presets, with what they are for and the schemes that they bring."""
    rows: list[dict[str, Any]] = []
    lines = []
    for name, preset in wire.presets().items():
        schemes = {scheme: plain(entry) for scheme, entry in preset.schemes.items()}
        architectures = list(preset.architectures)
        rows.append(
            {
                "name": name,
                "about": preset.about,
                "architectures": architectures,
                "usual": preset.usual,
                "schemes": schemes,
            }
        )
        usual = "; a recipe of `init` begins with it" if preset.usual else ""
        lines.append(f"{name} ({', '.join(architectures)}{usual}): {preset.about}")
        lines += [f"    {scheme}: {flow(entry)}" for scheme, entry in schemes.items()]
    lines.append(
        "a recipe's own scheme of the same name takes the place of a preset's; definitions: recipes/presets.yaml"
    )
    return Answer({"presets": rows}, "\n".join(lines))
