"""Unscorable: clips on which a gate can never be kept, found before anything is searched."""

from audio_eval.scoring import score_clips, threads
from audio_eval.suite import ReferenceClip
from backends.emulation.audition import output_of
from precision.candidate import Split
from precision_search.jury import bench_of
from precision_search.progress import Progress
from precision_search.setting import Setting, SetupError

SPLITS: tuple[Split, ...] = ("search", "held_back")


def refuse_clips(setting: Setting, progress: Progress, workers: int) -> None:
    """Score the model's own fp32 against itself on every clip.

    Raises:
        SetupError: a metric that a gate names has no score; all such clips are named, with the reasons.
    """
    found = unscorable(setting, progress, workers)
    mistakes = [reason for reasons in found.values() for reason in reasons]
    if mistakes:
        raise SetupError(
            "data: clips that cannot be judged, not even against themselves; leave them out, or the gates on"
            f" {', '.join(found)}: list the gates that are left under gates\n  " + "\n  ".join(mistakes)
        )


def unscorable(setting: Setting, progress: Progress, workers: int) -> dict[str, list[str]]:
    """Which metrics of the gates have no score of the model's own fp32 against itself, and on which clips why."""
    rate = setting.voice.sample_rate_hz
    progress.begin("hearing fp32 against itself", sum(len(setting.clips_of(split)) for split in SPLITS))
    mistakes: dict[str, list[str]] = {}
    for split in SPLITS:
        clips = setting.clips_of(split)
        outputs = [output_of(setting.voice.render(clip)) for clip in clips]
        pairs = [
            (ReferenceClip(output, rate, clip.natural), output) for output, clip in zip(outputs, clips, strict=True)
        ]
        with threads(workers) as mapped:
            _, undefined = score_clips(
                bench_of(setting, split).metrics, pairs, mapped=mapped, told=lambda _: progress.step()
            )
        for found in undefined:
            mistakes.setdefault(found.metric, []).append(f"{clips[found.clip].name}: {found.reason}")
    progress.end()
    return mistakes
