"""Lengths: graphs of a voice on clips of several lengths, made one that takes any."""

import math
from collections.abc import Sequence

from torch import Tensor

from precision_search.lowering import Chosen
from precision_search.progress import Progress
from voice.graph import DynamicError, DynamicGraph, SiteGraph, dynamic_graph, export_graph
from voice.model import AdaptableVoice, Clip

SECONDS = (0.35, 0.6, 1.0)
"""Of excerpts beside the clip itself and the longest: three more lengths, whatever else there is."""
WANTED = 5
"""Clips of unlike lengths: two more than the lengths that change by themselves are needed, and texts have two."""


def any_length(chosen: Chosen, progress: Progress) -> DynamicGraph:
    """Trace a voice on the clip, and on others, to one graph of any length; the clip's inputs are its examples.

    Raises:
        DynamicError: there are too few clips of unlike lengths, or graphs differ in more than sizes.
        GraphError: the voice cannot be traced.
    """
    clips = _clips(chosen)
    progress.begin("tracing clips of several lengths", len(clips))
    graphs: list[SiteGraph] = []
    for clip in clips:
        graphs.append(export_graph(chosen.setting.voice, clip))
        progress.step(clip.name)
    return dynamic_graph(graphs)


def noise_of(values: Tensor) -> str:
    """What noise was drawn from, by its numbers: `normal` or `uniform`.

    Raises:
        DynamicError: neither.
    """
    if values.is_floating_point() and values.numel() > 1:
        mean, std = float(values.mean()), float(values.std())
        within = float(values.min()) >= 0.0 and float(values.max()) < 1.0
        if within and abs(mean - 0.5) < 0.1 and abs(std - math.sqrt(1 / 12)) < 0.1:
            return "uniform"
        if abs(mean) < 0.1 and abs(std - 1.0) < 0.1:
            return "normal"
    raise DynamicError("the model draws noise that is neither normal nor uniform, which who runs it could not draw")


def _clips(chosen: Chosen) -> Sequence[Clip]:
    """The clip, the longest one there is, and others of other lengths."""
    setting = chosen.setting
    held = sorted((*setting.held_back_clips, *setting.search_clips), key=lambda clip: clip.seconds)
    longest, voice = held[-1], setting.voice
    if isinstance(voice, AdaptableVoice):
        shorter = [voice.excerpt(longest, 0.5, seconds) for seconds in SECONDS if seconds < longest.seconds]
    else:
        shorter = held[:-1]
    clips, seen = [chosen.clip], {_sizes(chosen.clip)}
    for clip in (longest, *shorter):
        if _sizes(clip) not in seen and len(clips) < WANTED:
            seen.add(_sizes(clip))
            clips.append(clip)
    return clips


def _sizes(clip: Clip) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in clip.inputs)
