"""Page: the sections of a report in one HTML file that loads nothing from anywhere."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from precision.study import write_atomic
from precision_search.report.abx import abx
from precision_search.report.arithmetic import arithmetic
from precision_search.report.breaks import breaks
from precision_search.report.damage import damage
from precision_search.report.front import front
from precision_search.report.gates import gates
from precision_search.report.listening import listening
from precision_search.report.markup import Html, element, joined
from precision_search.report.policy import policy
from precision_search.report.prediction import prediction
from precision_search.report.price import price
from precision_search.report.provenance import provenance
from precision_search.report.results import Results, read_results
from precision_search.report.style import STYLE
from precision_search.report.verdict import is_kept, verdict

Section: TypeAlias = Callable[[Results], Html]

REPORT = "report.html"
CONTENTS = {
    "gates": "Gates",
    "damage": "Damage",
    "prediction": "Prediction",
    "front": "Front",
    "cost": "Cost",
    "listening": "Listening",
    "abx": "Blind test",
    "breaks": "What breaks next",
    "arithmetic": "Arithmetic",
    "policy": "Policy",
    "provenance": "Provenance",
}
OF_SOUND = ("listening", "abx")
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


_SMALL_PRINT: tuple[Section, ...] = (arithmetic, policy, provenance)


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a finished study; the same folder gives the same bytes.

    Args:
        folder: With summary.json, damage.json, study.jsonl and policy.yaml; samples/reference and samples/candidate
            where there is something to hear.

    Returns:
        The path of the report.

    Raises:
        ValueError: the folder is no finished study; the message says what is missing.
        StudyError: the report cannot be written.
    """
    path = folder / REPORT
    write_atomic(path, render(read_results(folder)))
    return path


def render(results: Results) -> str:
    """The page as text."""
    recipe, device = str(results.summary["recipe"]), str(results.summary["device"])
    title = f"{recipe} on {device}: {'kept' if is_kept(results) else 'broken'}"
    told = (verdict, _contents, gates, damage, prediction, front, price, *_heard(results), breaks, *_SMALL_PRINT)
    return document(
        title,
        element("header", {}, element("h1", {}, f"{recipe} on {device}"), _of_what(results)),
        element("main", {}, joined((part(results) for part in told), "\n")),
        element("script", {}, scripts()),
    )


def document(title: str, *body: Html) -> str:
    """A whole page in the report's style, which loads nothing from anywhere."""
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, title),
        element("style", {}, Html(STYLE)),
    )
    return "<!DOCTYPE html>\n" + element("html", {"lang": "en"}, head, "\n", element("body", {}, *body)) + "\n"


def scripts() -> Html:
    """Every script of this folder, one after the other.

    Raises:
        ValueError: a script holds what ends a script's element.
    """
    found = sorted(
        (file for file in files(__package__).iterdir() if file.name.endswith(".js")), key=lambda file: file.name
    )
    told = "\n".join(file.read_text(encoding="utf-8") for file in found)
    if "</script" in told.lower() or "<!--" in told:
        raise ValueError("a script of the report holds </script or <!--, which would end it; write it in parts")
    return Html(told)


def _heard(results: Results) -> tuple[Section, ...]:
    return (listening, abx) if results.makes_sound else ()


def _contents(results: Results) -> Html:
    shown = {anchor: name for anchor, name in CONTENTS.items() if anchor not in OF_SOUND or results.makes_sound}
    links = (element("a", {"href": f"#{anchor}"}, name) for anchor, name in shown.items())
    return element("nav", {"aria-label": "Sections"}, *links)


def _of_what(results: Results) -> Html:
    """The model and the card, in words."""
    summary = results.summary
    told = [f"Model: {summary['model']}"] if summary.get("model") else []
    card = ", ".join(str(summary[key]) for key in ("device_title", "backend") if summary.get(key))
    told.append(f"Card: {summary['device']}{f' ({card})' if card else ''}")
    return element("p", {"class": "model"}, ". ".join(told))
