"""Programs: what was chosen, lowered to a program for its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.emulation.preparation import Preparation
from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.program import Program
from calibrate.moments import Moments
from precision_search.commands import CommandError
from precision_search.lowering import Chosen
from precision_search.progress import Progress
from precision_search.run import moments_of
from voice.graph import GraphError, SiteGraph, export_graph


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A program, and what it was made of."""

    chosen: Chosen
    graph: SiteGraph
    moments: Mapping[str, Moments]
    program: Program

    @property
    def inputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """The clip's inputs, as the program takes them."""
        return {
            value.name: self.graph.examples[value.name].numpy().astype(value.dtype).reshape(value.shape)
            for value in self.program.inputs
        }

    def emulated(self) -> dict[str, Tensor]:
        """The parts of the clip in the arithmetic of the search: nothing rounded between sites, sums in any order."""
        chosen = self.chosen
        preparation = Preparation(
            chosen.setting.backend.arithmetic, self.moments, chosen.setting.chains, chosen.adapted
        )
        schemes = dict(chosen.policy.schemes)
        parts = self.graph.run(handler=partial(preparation.compute, schemes=schemes, calibration=None))
        return dict(zip(self.graph.parts, parts, strict=False))


def make(chosen: Chosen, *, host: bool, progress: Progress) -> Made:
    """Trace the model on the clip, store its weights under the policy, and lower it.

    Args:
        chosen: what was asked for; the card refuses none of its sites.
        host: whether operations may stay in torch on the host.
        progress: told of each stage.

    Raises:
        CommandError: the model cannot be traced, or operations cannot be lowered, which are all named.
    """
    torch.set_num_threads(1)
    setting = chosen.setting
    moments = moments_of(setting, progress)
    progress.begin(f"tracing {setting.voice.name} on {chosen.clip.name}")
    try:
        graph = export_graph(setting.voice, chosen.clip)
        progress.begin("storing weights under the policy")
        operands = stored_operands(graph, chosen.policy, moments, setting.chains, chosen.adapted)
        progress.begin("lowering to ttnn")
        program = lower(graph, chosen.policy, chosen.card, operands, host="allow" if host else "refuse")
    except (GraphError, LoweringError) as error:
        raise CommandError(str(error)) from error
    except ValueError as error:
        raise CommandError(f"{chosen.policy_source}: {error}") from error
    progress.end()
    return Made(chosen, graph, moments, program)
