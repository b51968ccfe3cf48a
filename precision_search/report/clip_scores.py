"""The scores of one clip: which of its gates are tightest on it, and all of them."""

from dataclasses import dataclass

from precision_search.report.allowance import used
from precision_search.report.figures import percent, significant, told_apart
from precision_search.report.gates import GateRow, gate_rows
from precision_search.report.markup import Html, breakable, element, folded, joined
from precision_search.report.results import Results

TIGHTEST = 3


@dataclass(frozen=True, slots=True)
class Tight:
    """A score of one clip beside the gate on its metric."""

    gate: GateRow
    value: float
    share: float
    """Of what the gate allows; above 1 this clip alone would break it."""

    def to_html(self) -> Html:
        """The metric with its value, and how much that is of what the gate allows."""
        told = element("strong", {}, told_apart(self.value, self.gate.threshold))
        much = percent(self.share) if self.share <= 1 else f"{significant(100 * self.share)} %"
        limit = f" ({self.gate.over.replace('_', ' ')} {self.gate.threshold_text}: uses {much})"
        return joined((breakable(self.gate.metric), " ", told, limit))


def tightest(results: Results, name: str) -> list[Tight]:
    """The scores of a clip that have gates, each metric once; the one that uses most of what is allowed comes first."""
    found: dict[str, Tight] = {}
    for gate in gate_rows(results):
        value = _of(results, name).get(gate.metric)
        share = used(gate.metric, gate.side, gate.threshold, value)
        if value is None or share is None:
            continue
        if gate.metric not in found or share > found[gate.metric].share:
            found[gate.metric] = Tight(gate, value, share)
    return sorted(found.values(), key=lambda tight: -tight.share)


def clip_scores(results: Results, name: str) -> tuple[Html, ...]:
    """The tightest gates of a clip in a line, and all of its scores folded; nothing where it was not scored."""
    scores = _of(results, name)
    if not scores:
        return ()
    each = (
        joined((breakable(metric), " ", element("strong", {}, significant(value)))) for metric, value in scores.items()
    )
    every = folded(f"All {len(scores)} scores of {name}", element("p", {"class": "scores"}, joined(each, ", "), "."))
    tight = [found.to_html() for found in tightest(results, name)[:TIGHTEST]]
    if not tight:
        return (every,)
    said = element("p", {"class": "scores"}, "Tightest gates on this clip: ", joined(tight, "; "), ".")
    return (said, every)


def _of(results: Results, name: str) -> dict[str, float]:
    return dict(results.final.scores.get(name) or {}) if results.final is not None else {}
