"""Sampled: a graph and one clip in runs of it, which is the sample of an export."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from precision.policy import Policy
from voice.graph import SiteGraph, site_nodes
from voice.streaming import Utterance

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Mapping[str, Tensor]]
"""Inputs of one run, after those before it -> its parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A graph whose examples are those of the clip."""

    graph: SiteGraph
    stream: Utterance | None
    """The clip in runs of the graph; None where it is one run."""

    @property
    def runs(self) -> Sequence[Inputs]:
        """Inputs of each run, one after another."""
        return [self.graph.examples] if self.stream is None else self.stream.runs

    @property
    def given(self) -> Inputs:
        """Inputs as who runs an export has them: of chunks the whole utterance, of steps a first axis of runs."""
        return self.graph.examples if self.stream is None else self.stream.inputs

    def part_of(self, policy: Policy) -> Policy:
        """The policy of the sites that the graph has: all of them, or those of the part that is streamed."""
        there = {site.site for site in site_nodes(self.graph)}
        return Policy(tuple(entry for entry in policy.schemes if entry[0] in there))

    def parts_by(self, run: Run) -> dict[str, NDArray[Any]]:
        """Parts of the sample by a way to compute runs, asked for one after another; of a stream as it joins them."""
        made = [run(inputs) for inputs in self.runs]
        if self.stream is None:
            return {name: part.detach().numpy() for name, part in made[0].items()}
        parts = self.graph.parts
        whole = self.stream.join([[outputs[part].detach() for part in parts] for outputs in made])
        return {part: values.numpy() for part, values in zip(parts, whole, strict=True)}
