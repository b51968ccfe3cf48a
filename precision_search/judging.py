"""Judging: clips on disk held against gates, with no model and no study in sight."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from audio_eval.audio import RESAMPLER
from audio_eval.judge import Judgement, judge, judge_in_order, judgeable, stages
from audio_eval.profiles import PROFILES
from audio_eval.scoring import score_clips, threads
from audio_eval.suite import METRICS, Material, ReferenceClip
from precision.candidate import numbers, verdict_line
from precision.journal import write_atomic
from precision.recipe import Known, load_gates
from precision_search.pairs import PairedClip, Pairs, read_pairs
from precision_search.progress import Progress
from precision_search.verdict_lines import unjudged_lines

PACKAGES = ("precision-search", "numpy", "scipy", "librosa", "pesq", "pystoi", "soxr")


class JudgingError(ValueError):
    """Clips that cannot be judged as was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found, and of what."""

    pairs: Pairs
    judgement: Judgement
    promise: str
    """Name of the profile, or of the file of gates."""


def judge_files(
    reference: Path,
    degraded: Path,
    natural: Path | None = None,
    *,
    profile: str = "transparent",
    gates: Path | None = None,
    stop: bool = False,
    free: bool = False,
    workers: int = 1,
    progress: Progress,
) -> Judged:
    """Judge two folders of audio paired by name, or two files.

    Args:
        reference: clips as they should be.
        degraded: the same clips as they came out.
        natural: the recordings that the reference imitates, of the same lengths.
        profile: whose gates must hold.
        gates: a file of gates, in place of a profile.
        stop: end at the first metric with a broken gate.
        free: nothing was forced on the model that made the clips, so lengths may differ.
        workers: threads.
        progress: told of every clip.

    Raises:
        AudioFileError: clips are missing, cannot be read or do not fit together.
        RecipeError: mistakes in the file of gates.
        JudgingError: no gate applies to these clips.
    """
    asked = PROFILES[profile] if gates is None else load_gates(gates, Known((), (), tuple(METRICS), PROFILES))
    pairs = read_pairs(reference, degraded, natural, progress)
    material = Material(pairs.sample_rate_hz, has_natural=natural is not None, free=free)
    others = {gate.metric: METRICS[gate.metric].misfit(material) for gate in asked if gates is not None}
    mistakes = [f"{metric}: {reason}" for metric, reason in others.items() if reason is not None]
    if mistakes:
        raise JudgingError(f"{gates}: gates that cannot be judged on such clips:\n  " + "\n  ".join(mistakes))
    chosen, unjudged = judgeable(asked, material, clips=len(pairs.clips))
    if not chosen:
        raise JudgingError("no gate can be judged:\n  " + "\n  ".join(dict.fromkeys(left.reason for left in unjudged)))
    metrics = tuple(chain.from_iterable(stages(chosen)))
    progress.begin("scoring clips", len(pairs.clips) * (len(metrics) if stop else 1))

    def told(index: int) -> None:
        progress.step(pairs.clips[index].name)

    if stop:
        references = [_reference(clip, pairs, free) for clip in pairs.clips]
        rendered = [clip.degraded for clip in pairs.clips]
        judgement = judge_in_order(asked, references, rendered, workers=workers, told=told)
    else:
        # References made as they are asked for are forgotten with all that was computed of them: folders may be large.
        with threads(workers) as mapped:
            made = ((_reference(clip, pairs, free), clip.degraded) for clip in pairs.clips)
            scores, undefined = score_clips(metrics, made, mapped=mapped, told=told)
        verdicts = judge([gate for name in metrics for gate in chosen if gate.metric == name], scores)
        judgement = Judgement(verdicts, unjudged, tuple(undefined), tuple(scores))
    progress.end()
    return Judged(pairs, judgement, profile if gates is None else str(gates))


def _reference(clip: PairedClip, pairs: Pairs, free: bool) -> ReferenceClip:
    return ReferenceClip(clip.reference, pairs.sample_rate_hz, clip.natural, free)


def found_data(judged: Judged) -> dict[str, Any]:
    """All that was found, as JSON can hold it; NaN is the text nan."""
    judgement, names = judged.judgement, [clip.name for clip in judged.pairs.clips]
    return {
        "verdict": "kept" if judgement.kept else "broken",
        "promise": judged.promise,
        "clips": len(names),
        "sample_rate_hz": judged.pairs.sample_rate_hz,
        "seconds": round(judged.pairs.seconds, 3),
        "gates": [verdict_line(verdict) for verdict in judgement.verdicts],
        "unjudged": unjudged_lines(judgement.unjudged),
        "unreached": [{"metric": gate.metric, "over": gate.over} for gate in judgement.unreached],
        "undefined": [
            {"clip": names[left.clip], "metric": left.metric, "reason": left.reason} for left in judgement.undefined
        ],
        "statistics": {name: summary.to_dict() for name, summary in judgement.statistics().items()},
        "scores": {name: numbers(scores) for name, scores in zip(names, judgement.scores, strict=True)},
        "resampler": RESAMPLER,
        "versions": {name: version(name) for name in PACKAGES},
    }


def check_outputs(paths: Sequence[Path]) -> None:
    """Refuse, before anything is computed, files that cannot be written.

    Raises:
        JudgingError: the folder is missing, or the path is a folder.
    """
    mistakes = [f"{path}: is a folder; name a file" for path in paths if path.is_dir()]
    mistakes += [f"{path}: there is no folder {path.parent}; make it" for path in paths if not path.parent.is_dir()]
    if mistakes:
        raise JudgingError("\n  ".join(mistakes))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write what was found; StudyError where that is not possible."""
    write_atomic(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, judged: Judged) -> None:
    """Write a row a clip and a column a metric; StudyError where that is not possible."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    metrics = tuple(judged.judgement.scores[0])
    table.writerow(("clip", *metrics))
    for clip, scores in zip(judged.pairs.clips, judged.judgement.scores, strict=True):
        table.writerow((clip.name, *(scores[metric] for metric in metrics)))
    write_atomic(path, text.getvalue())
