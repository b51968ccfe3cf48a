"""Programs: what was chosen, lowered to a program for its card, and the runs of it that are its sample."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.lower.lowering import Host
from backends.tenstorrent.program import Program
from precision.policy import Policy
from precision_search.commands import CommandError
from precision_search.lowering import CardChoice, refuse_refused
from precision_search.progress import Progress
from precision_search.run import moments_of
from precision_search.sampled import Sampled
from voice.graph import GraphError, export_graph, site_nodes
from voice.streaming import StreamingError, utterance


@dataclass(frozen=True, slots=True, eq=False)
class Made(Sampled):
    """A program, and what it was made of."""

    chosen: CardChoice
    program: Program

    @property
    def sample(self) -> dict[str, NDArray[Any]]:
        """The sample's inputs, as `run.py` takes them: of chunks the whole utterance, of steps a first axis of runs."""
        return {value.name: self.given[value.name].numpy() for value in self.program.inputs if value.name in self.given}

    @property
    def policy(self) -> Policy:
        """The policy of the sites that the program has: all of them, or those of the part that is streamed."""
        return self.part_of(self.chosen.policy)


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
    return Made(graph, stream, chosen, program)
