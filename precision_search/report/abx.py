"""ABX: a blind test of whether the candidate can be told from the reference by ear.

The procedure is that of Munson and Gardner, "Standardizing auditory tests" (J. Acoust. Soc. Am. 22, 1950), as it is
used for codecs: A and B are the two sounds in an order drawn anew for each trial, X is one of them, and the listener
says which. Who cannot hear a difference is right in half of the trials, so the score has a binomial p-value.
"""

from precision_search.report.listening import shown_clips
from precision_search.report.markup import Html, element, note, paragraph, section
from precision_search.report.results import Results

TRIALS = 16
"""With so many trials, 12 right answers are p = 0.038; fewer trials hardly ever tell anything."""
KEYS = {
    "play-a": "A",
    "play-b": "B",
    "play-x": "X",
    "stop": "S",
    "answer-a": "1",
    "answer-b": "2",
    "next": "N",
}
"""The key of each button, which works while the focus is in the test."""


def abx(results: Results) -> Html:
    """The section of the blind test; it plays what the players of the section `listening` hold."""
    title = "Blind test: can you hear it?"
    if not shown_clips(results):
        return section("abx", title, note("There is nothing to compare: the study has no pairs of samples."))
    told = paragraph(
        "A and B are the reference and the candidate, in an order drawn anew for every trial, and X is one of the two. "
        "Listen, then say which one X is. All three go on from the same position and at the same level: the louder "
        "one of a clip is turned down to the root mean square of the other."
    )
    plan = paragraph(
        f"Decide beforehand how many trials you will do, {TRIALS} for example: who stops when the score looks best "
        "makes the p-value smaller than it is. It is the chance to be right at least as often by guessing."
    )
    # Once the script found the players it shows the test instead of this.
    without = element(
        "p",
        {"class": "note", "id": "abx-without"},
        "The blind test needs JavaScript with Web Audio; the players above work without it.",
    )
    study = str(results.summary.get("policy_digest") or results.summary.get("recipe_digest") or "")
    test = element(
        "div",
        {"class": "abx", "id": "abx-test", "role": "group", "aria-label": "ABX test", "tabindex": "-1", "hidden": ""}
        | {"data-study": f"{results.summary['recipe']} on {results.summary['device']}, policy {study}"},
        *_choice(),
        _play(),
        _answer(),
        element("p", {"id": "abx-said", "role": "status"}, ""),
        *_score(),
    )
    return section("abx", title, told, plan, without, test)


def _button(act: str, text: str, attributes: dict[str, str] | None = None) -> Html:
    key = KEYS.get(act)
    hint = (" ", element("kbd", {"aria-hidden": "true"}, key)) if key else ()
    shared = {"type": "button", "data-act": act, "aria-keyshortcuts": key}
    return element("button", shared | (attributes or {}), text, *hint)


def _choice() -> tuple[Html, ...]:
    clip = element("label", {"class": "pick"}, "Clip ", element("select", {"id": "abx-clip"}, ""))
    loop = element("input", {"type": "checkbox", "id": "abx-loop", "checked": ""})
    return (
        element(
            "div",
            {"class": "abx-row"},
            clip,
            element("label", {}, loop, " Loop"),
        ),
        element(
            "div",
            {"class": "abx-part"},
            _slider("abx-from", "Part from", "0"),
            _slider("abx-to", "Part to", "1"),
        ),
        element("progress", {"id": "abx-position", "max": "1", "value": "0", "aria-label": "Position in the clip"}),
    )


def _slider(name: str, text: str, value: str) -> Html:
    # The value stands outside the label, which would else name the output instead of the slider.
    slider = {"type": "range", "id": name, "min": "0", "max": "1", "step": "0.01", "value": value}
    said = element("span", {}, element("label", {"for": name}, text), " ", element("output", {"for": name}, ""))
    return element("div", {}, said, element("input", slider))


def _play() -> Html:
    sides = ((f"play-{side}", f"Play {side.upper()}") for side in "abx")
    pressed = {"aria-pressed": "false"}
    plays = (_button(act, text, pressed) for act, text in sides)
    return element("div", {"class": "abx-row"}, *plays, _button("stop", "Stop"))


def _answer() -> Html:
    answers = (_button(f"answer-{side}", f"X is {side.upper()}") for side in "ab")
    return element("div", {"class": "abx-row"}, *answers, _button("next", "Next trial"))


def _score() -> tuple[Html, ...]:
    numbers = {"id": "abx-score", "data-trials": "0", "data-right": "0", "data-p": "1"}
    return (
        element("p", numbers, "No trials yet."),
        element(
            "details",
            {},
            element("summary", {}, "Score as text"),
            element("textarea", {"id": "abx-text", "readonly": "", "rows": "6", "aria-label": "Score as text"}, ""),
            _button("copy", "Copy"),
        ),
        element(
            "p",
            {"class": "legend"},
            "The keys work while the focus is in the test. ",
            _button("reset", "Reset the score"),
        ),
    )
