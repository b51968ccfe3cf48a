"""Programs: what was chosen, lowered to a program for its card, and the runs of it that are its sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.lower.lowering import Host
from backends.tenstorrent.program import Program
from precision.policy import Policy
from precision_search.commands import CommandError
from precision_search.lowering import CardChoice, refuse_refused
from precision_search.progress import Progress
from precision_search.run import moments_of
from voice.graph import GraphError, SiteGraph, export_graph, site_nodes
from voice.streaming import StreamingError, Utterance, utterance

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Mapping[str, Tensor]]
"""Inputs of one run, after those before it -> its parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A program, and what it was made of."""

    chosen: CardChoice
    graph: SiteGraph
    stream: Utterance | None
    """The clip in runs of the program; None where it is one run."""
    program: Program

    @property
    def policy(self) -> Policy:
        """The policy of the sites that the program has: all of them, or those of the part that is streamed."""
        there = {site.site for site in site_nodes(self.graph)}
        return Policy(tuple(entry for entry in self.chosen.policy.schemes if entry[0] in there))

    @property
    def runs(self) -> Sequence[Inputs]:
        """Inputs of each run of the sample, one after another."""
        return [self.graph.examples] if self.stream is None else self.stream.runs

    @property
    def sample(self) -> dict[str, NDArray[Any]]:
        """The sample's inputs, as `run.py` takes them: of chunks the whole utterance, of steps a first axis of runs."""
        given = self.graph.examples if self.stream is None else self.stream.inputs
        return {value.name: given[value.name].numpy() for value in self.program.inputs if value.name in given}

    def parts_by(self, run: Run) -> dict[str, NDArray[Any]]:
        """Parts of the sample by a way to compute runs, asked for one after another; of a stream as it joins them."""
        made = [run(inputs) for inputs in self.runs]
        if self.stream is None:
            return {name: part.detach().numpy() for name, part in made[0].items()}
        parts = self.graph.parts
        whole = self.stream.join([[outputs[part].detach() for part in parts] for outputs in made])
        return {part: values.numpy() for part, values in zip(parts, whole, strict=True)}


def make(chosen: CardChoice, *, host: bool, chunk_ms: float | None, progress: Progress) -> Made:
    """Trace the model on the clip, store its weights under the policy, and lower it.

    Args:
        chosen: what was asked for; the card refuses none of its sites.
        host: whether operations may stay in torch on the host.
        chunk_ms: of a program that runs chunk by chunk; None runs the whole clip.
        progress: told of each stage.

    Raises:
        CommandError: the model cannot be traced or streamed, the card refuses a site in a stream, or operations cannot
            be lowered, which are all named.
    """
    torch.set_num_threads(1)
    setting = chosen.setting
    moments = moments_of(setting, progress)
    progress.begin(f"tracing {setting.voice.name} on {chosen.clip.name}")
    try:
        stream = None if chunk_ms is None else utterance(setting.voice, chosen.clip, chunk_ms)
        graph = export_graph(setting.voice, chosen.clip) if stream is None else stream.graph
        if stream is not None:
            refuse_refused(chosen, {site.site for site in site_nodes(graph)})
        progress.begin("storing weights under the policy")
        operands = stored_operands(graph, chosen.policy, moments, setting.chains, chosen.adapted)
        progress.begin("lowering to ttnn")
        left: Host = "allow" if host else "refuse"
        seldom = frozenset[str]() if stream is None else stream.seldom
        program = lower(graph, chosen.policy, chosen.card, operands, host=left, between=chosen.between, seldom=seldom)
    except CommandError:
        raise
    except (GraphError, LoweringError, StreamingError) as error:
        raise CommandError(f"{chosen.setting.voice.name}: {error}") from error
    except ValueError as error:
        raise CommandError(f"{chosen.policy_source}: {error}") from error
    progress.end()
    return Made(chosen, graph, stream, program)
