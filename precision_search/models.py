"""Models: what was chosen for a Hopper GPU, lowered to ONNX."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from backends.base import Measured
from backends.hopper.lower import Lowered, LoweringError, lower
from backends.hopper.manifest import Limits, limits_of
from backends.hopper.modelopt import calibration_from
from calibrate.calibration import Calibration
from precision_search.commands import CommandError
from precision_search.lengths import any_length, noise_of
from precision_search.lowering import HopperChoice, refuse_refused
from precision_search.progress import Progress
from precision_search.run import calibrated
from precision_search.sampled import Sampled
from voice.graph import DynamicError, DynamicGraph, GraphError, SiteGraph, export_graph, site_nodes
from voice.streaming import StreamingError, utterance

LONGER = 4
"""Times the longest clip, where nothing in the model limits a length."""


@dataclass(frozen=True, slots=True, eq=False)
class Model(Sampled):
    """An ONNX model, and what it was made of."""

    chosen: HopperChoice
    lowered: Lowered
    measured: Measured
    limits: Mapping[str, Limits]
    """Of every length that may be chosen."""
    noise: Mapping[str, str]
    """Input -> what it is drawn from."""
    fixed: str | None
    """Why its shapes are those of the clip alone; None where they are not."""


def make(
    chosen: HopperChoice, *, any_shape: bool, chunk_ms: float | None, ranges: Path | None, progress: Progress
) -> Model:
    """Trace the model on clips, calibrate it, and lower it.

    Args:
        chosen: what was asked for; the target refuses none of its sites.
        any_shape: whether lengths are to stay open; a model of which they cannot has the clip's.
        chunk_ms: of a model that runs chunk by chunk; None runs whole clips.
        ranges: file of a model that ModelOpt calibrated, whose ranges go before our own; None takes ours alone.
        progress: told of each stage.

    Raises:
        CommandError: the model cannot be traced or streamed, the target refuses a site in a stream, operations have no
            ONNX, or the file of ranges cannot be used.
    """
    torch.set_num_threads(1)
    setting = chosen.setting
    stream, noise = None, dict[str, str]()
    fixed: str | None = "a chunk has one length" if chunk_ms is not None else "as --fixed asks"
    try:
        graph: SiteGraph | None = None
        if chunk_ms is not None:
            progress.begin(f"tracing {setting.voice.name} on {chosen.clip.name}")
            stream = utterance(setting.voice, chosen.clip, chunk_ms)
            graph = stream.graph
            refuse_refused(chosen, {site.site for site in site_nodes(graph)})
        elif any_shape:
            try:
                graph = any_length(chosen, progress)
                noise = {name: noise_of(graph.examples[name]) for name in graph.noise}
                fixed = None
            except DynamicError as error:
                graph, fixed = None, str(error)
        if graph is None:
            progress.begin(f"tracing {setting.voice.name} on {chosen.clip.name}")
            graph = export_graph(setting.voice, chosen.clip)
        sampled = Sampled(graph, stream)
        policy = sampled.part_of(chosen.policy)
        calibration = calibrated(setting, progress)
        if ranges is not None:
            calibration = _replaced(calibration, calibration_from(ranges), {site.name for site in setting.sites})
        measured = Measured(calibration=calibration, adapted=chosen.adapted or {})
        progress.begin("lowering to ONNX")
        lowered = lower(graph, policy, measured, chosen.route)
    except (GraphError, LoweringError, StreamingError) as error:
        raise CommandError(f"{setting.voice.name}: {error}") from error
    except CommandError:
        raise
    except ValueError as error:
        raise CommandError(f"{chosen.policy_source}: {error}") from error
    progress.end()
    limits = _limits(graph, chosen) if isinstance(graph, DynamicGraph) else {}
    return Model(graph, stream, chosen, lowered, measured, limits, noise, fixed)


def _replaced(own: Calibration | None, other: Calibration, sites: Collection[str]) -> Calibration:
    """Our ranges, with those of another calibration in the place of those that it has.

    Raises:
        ValueError: it has ranges of sites that the model has not.
    """
    unknown = [site for site in other if site not in sites]
    if unknown:
        raise ValueError(f"--ranges: the model has no sites {', '.join(unknown)}; name a file of the same model")
    held = {} if own is None else {(site, operand): amax for site, operand, amax in own.ranges}
    held |= {(site, operand): amax for site, operand, amax in other.ranges}
    return Calibration(other.method, tuple((site, operand, amax) for (site, operand), amax in held.items()))


def _limits(graph: DynamicGraph, chosen: HopperChoice) -> dict[str, Limits]:
    """From the shortest that was traced to `LONGER` times the longest clip, or what a constant of the model holds."""
    clips = (*chosen.setting.held_back_clips, *chosen.setting.search_clips)
    times = LONGER * max(clip.seconds for clip in clips) / chosen.clip.seconds
    usual = graph.lengths_of(graph.examples)
    return limits_of(graph, {name: round(times * length) for name, length in usual.items()})
