"""Page: the sections of a report in one HTML file that loads nothing from anywhere."""

from pathlib import Path

from precision.study import write_atomic
from precision_search.report.arithmetic import arithmetic
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

REPORT = "report.html"
CONTENTS = {
    "gates": "Gates",
    "arithmetic": "Arithmetic",
    "damage": "Damage",
    "prediction": "Prediction",
    "front": "Front",
    "cost": "Cost",
    "listening": "Listening",
    "policy": "Policy",
    "provenance": "Provenance",
}
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
# One player at a time, so that reference and candidate are heard in turn.
SCRIPT = (
    "document.addEventListener('play',function(e){document.querySelectorAll('audio').forEach(function(a)"
    "{if(a!==e.target)a.pause()})},true)"
)


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
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, title),
        element("style", {}, Html(STYLE)),
    )
    told = (verdict, _contents, gates, arithmetic, damage, prediction, front, price, _listening, policy, provenance)
    body = element(
        "body",
        {},
        element("header", {}, element("h1", {}, f"{recipe} on {device}"), *_model(results)),
        element("main", {}, joined((part(results) for part in told), "\n")),
        element("script", {}, Html(SCRIPT)),
    )
    return "<!DOCTYPE html>\n" + element("html", {"lang": "en"}, head, "\n", body) + "\n"


def _listening(results: Results) -> Html:
    return listening(results) if makes_sound(results) else Html("")


def makes_sound(results: Results) -> bool:
    """Whether the model makes something to hear; older studies are of models that do."""
    return results.summary.get("sound") is not False


def _contents(results: Results) -> Html:
    shown = {anchor: name for anchor, name in CONTENTS.items() if anchor != "listening" or makes_sound(results)}
    links = (element("a", {"href": f"#{anchor}"}, name) for anchor, name in shown.items())
    return element("nav", {"aria-label": "Sections"}, *links)


def _model(results: Results) -> tuple[Html, ...]:
    model = results.summary.get("model")
    return (element("p", {"class": "model"}, f"Model: {model}"),) if model else ()
