"""Judged: what the summary says of the gates, the yardsticks beside them, and how far the clips can be trusted."""

from typing import Any

from audio_eval.judge import summaries
from precision_search.run import Found
from precision_search.setting import Setting
from precision_search.verdict_lines import gate_line, unjudged_lines
from voice.family import COMPARISONS


def judged(setting: Setting, found: Found) -> dict[str, Any]:
    """The summary's entries on judging."""
    beside = {"baseline": found.baseline.verdicts, **found.yardsticks}
    fast = {verdict.gate: verdict for verdict in found.heard_fast.verdicts} if found.exact else {}
    described = summaries(list(found.heard.scores.values()), seed=setting.recipe.search.seed)
    comparison = COMPARISONS[setting.voice.family]
    return {
        "comparison": {"family": setting.voice.family, "forced": comparison.forced, "judged": list(comparison.judged)},
        "gates": [gate_line(verdict, fast, beside) for verdict in found.heard.verdicts],
        "yardsticks": {name: sum(not verdict.kept for verdict in verdicts) for name, verdicts in beside.items()},
        "statistics": {metric: summary.to_dict() for metric, summary in described.items()},
        "unjudged": unjudged_lines(found.bench.unjudged),
        "unforced": found.unforced,
    }
