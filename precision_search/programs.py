"""Programs: what was chosen, lowered to a program for its card, and the runs of it that are its sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.lower.lowering import Host
from backends.tenstorrent.program import Program
from precision.policy import Policy
from precision_search.commands import CommandError
from precision_search.lowering import Chosen
from precision_search.progress import Progress
from precision_search.run import moments_of
from voice.graph import GraphError, SiteGraph, export_graph, site_nodes
from voice.streaming import StreamGraph, StreamingError, streamable

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Mapping[str, Tensor]]
"""Inputs of one run, after those before it -> its parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A program, and what it was made of."""

    chosen: Chosen
    graph: SiteGraph
    stream: StreamGraph | None
    runs: Sequence[Inputs]
    """Inputs of each run of the sample: of the clip, or of its chunks one after another."""
    program: Program

    @property
    def policy(self) -> Policy:
        """The policy of the sites that the program has: all of them, or those of the part that is streamed."""
        there = {site.site for site in site_nodes(self.graph)}
        return Policy(tuple(entry for entry in self.chosen.policy.schemes if entry[0] in there))

    @property
    def sample(self) -> dict[str, NDArray[Any]]:
        """The sample's inputs; of a stream with a first axis of chunks, where they are not always the same."""
        gathered = {value.name: [run[value.name].numpy() for run in self.runs] for value in self.program.inputs}
        return {
            name: arrays[0] if all(array is arrays[0] or (array == arrays[0]).all() for array in arrays) else stacked
            for name, arrays in gathered.items()
            for stacked in [np.stack(arrays)]
        }

    def parts_by(self, run: Run) -> dict[str, NDArray[Any]]:
        """Parts of the sample by a way to compute runs, asked for one after another; of a stream with a first axis."""
        made = [run(inputs) for inputs in self.runs]
        if self.stream is None:
            return {name: part.detach().numpy() for name, part in made[0].items()}
        return {name: np.stack([parts[name].detach().numpy() for parts in made]) for name in made[0]}


def make(chosen: Chosen, *, host: bool, chunk_ms: float | None, progress: Progress) -> Made:
    """Trace the model on the clip, store its weights under the policy, and lower it.

    Args:
        chosen: what was asked for; the card refuses none of its sites.
        host: whether operations may stay in torch on the host.
        chunk_ms: of a program that runs chunk by chunk; None runs the whole clip.
        progress: told of each stage.

    Raises:
        CommandError: the model cannot be traced or streamed, or operations cannot be lowered, which are all named.
    """
    torch.set_num_threads(1)
    setting = chosen.setting
    moments = moments_of(setting, progress)
    progress.begin(f"tracing {setting.voice.name} on {chosen.clip.name}")
    stream = None
    try:
        if chunk_ms is None:
            graph = export_graph(setting.voice, chosen.clip)
            runs: list[Inputs] = [graph.examples]
        else:
            part = streamable(setting.voice, chosen.clip)
            stream = part.step(chunk_ms)
            graph = stream.graph
            runs = list(_chunks(stream, part.inputs))
        progress.begin("storing weights under the policy")
        operands = stored_operands(graph, chosen.policy, moments, setting.chains, chosen.adapted)
        progress.begin("lowering to ttnn")
        left: Host = "allow" if host else "refuse"
        program = lower(graph, chosen.policy, chosen.card, operands, host=left, between=chosen.between)
    except (GraphError, LoweringError, StreamingError) as error:
        raise CommandError(f"{chosen.setting.voice.name}: {error}") from error
    except ValueError as error:
        raise CommandError(f"{chosen.policy_source}: {error}") from error
    progress.end()
    return Made(chosen, graph, stream, runs, program)


def _chunks(step: StreamGraph, inputs: Inputs) -> Iterator[dict[str, Tensor]]:
    """What goes into the step for each chunk of an utterance, its masks and the chunks that flush it included."""
    frames = min(int(inputs[name].shape[timing.axis] / timing.rate) for name, timing in step.inputs.items())
    for index in range(step.chunks(frames)):
        taken = dict(inputs)
        for name, timing in step.inputs.items():
            taken[name] = _frames_of(inputs[name], timing.axis, index, timing.samples(step.chunk_frames))
        ended = (index + 1) * step.chunk_frames >= frames
        yield taken | step.masks(index, frames if ended else None)


def _frames_of(values: Tensor, axis: int, index: int, samples: int) -> Tensor:
    """Samples of chunk `index`, filled up with zeros."""
    total = values.shape[axis]
    begin = min(index * samples, total)
    there = values.narrow(axis, begin, min(samples, total - begin))
    shape = list(values.shape)
    shape[axis] = samples - there.shape[axis]
    return torch.cat([there, values.new_zeros(shape)], axis) if shape[axis] else there
