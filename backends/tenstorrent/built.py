"""Built: a graph under a policy as a program of ttnn, planned by the library and computed by simulation."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from backends.base import NOTHING_MEASURED, BuildError, Measured
from backends.tenstorrent import engine
from backends.tenstorrent.cards import Card
from backends.tenstorrent.emission import emit
from backends.tenstorrent.export import write_program
from backends.tenstorrent.exported import FILES, FOLDER
from backends.tenstorrent.hosted import host_constants, host_module
from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.manifest import manifest
from backends.tenstorrent.planning import Plan, Realized, realized
from backends.tenstorrent.program import Program
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.support import refuses
from precision.policy import FIDELITIES, Policy, Scheme
from precision.site import Site
from voice.graph import SiteGraph, site_nodes


@dataclass(slots=True, eq=False)
class TenstorrentBuilt:
    """A program for one card; fulfils `backends.base.Built`."""

    graph: SiteGraph
    policy: Policy
    program: Program
    _plan: Plan | None = None

    @property
    def digest(self) -> str:
        """See `Built.digest`; weights go in as the numbers that ttnn packs, which `write` checks to the bit."""
        program = self.program
        texts = [emit(program), host_module(program), json.dumps(manifest(program))]
        texts += [(FOLDER / name).read_text(encoding="utf-8") for name in sorted(FILES)]
        digest = hashlib.sha256(json.dumps(texts).encode())
        arrays = {name: constant.values for name, constant in program.constants.items()}
        for name, array in sorted({**arrays, **host_constants(program)}.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """See `Built.write`; raises PackingError, a ValueError, and EngineError, a RuntimeError."""
        write_program(self.program, folder, engine.pack)

    def plan(self) -> Plan:
        """What the library makes of the program on a mock card; planned once.

        Raises:
            EngineError: ttnn is not there, or a real card is.
        """
        if self._plan is None:
            plan_builds([self])
        assert self._plan is not None
        return self._plan

    def realized(self) -> dict[str, Scheme]:
        """See `Built.realized`; ttnn shows no levers, they are in the bits of the weights."""
        plan = self.plan()
        if plan.refusals:
            raise BuildError(
                f"ttnn refuses {len(plan.refusals)} operations on {plan.card}"
                + "".join(f"\n  {step.site or step.source}, {step.call}: {step.refused}" for step in plan.refusals)
            )
        biased = {site.site for site in site_nodes(self.graph) if site.bias is not None}
        schemes = dict(self.policy.schemes)
        held: dict[str, Scheme] = {}
        for step in plan.steps:
            for site, found in realized(replace(plan, steps=(step,))).items():
                if held.get(site, schemes[site]) == schemes[site]:
                    held[site] = _shown(schemes[site], found, step.op == "matmul", site in biased)
        return held

    def compute(self, runs: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """See `Built.compute`; products are the card's to the bit, other operations float32, rounded where stored."""
        simulator = Simulator(self.program)
        names = dict(zip(self.graph.inputs, (value.name for value in self.program.inputs), strict=True))
        for run in runs:
            yield simulator.run({names.get(name, name): values for name, values in run.items()})


def build(
    graph: SiteGraph, policy: Policy, sites: Sequence[Site], card: Card, measured: Measured = NOTHING_MEASURED
) -> TenstorrentBuilt:
    """Lower a graph for a card; see `Builder.build`."""
    there = dict.fromkeys(site.site for site in site_nodes(graph))
    known, schemes = {site.name: site for site in sites}, dict(policy.schemes)
    faults = [f"{site}: the policy has no scheme for it" for site in there if site not in schemes]
    faults += [f"{site}: the graph has no such site, and the policy has" for site in schemes if site not in there]
    faults += [f"{site}: not one of the model's sites; find them again" for site in there if site not in known]
    for name in there.keys() & schemes.keys() & known.keys():
        why = refuses(known[name], schemes[name], card.architecture, streaming=bool(graph.states))
        faults += [] if why is None else [f"{name}: {why}"]
    if faults:
        raise BuildError(f"{card.name} cannot have the graph under this policy\n  " + "\n  ".join(sorted(faults)))
    chains = {site.name: site.feeds for site in sites if site.feeds is not None}
    operands = stored_operands(graph, policy, measured.moments, chains, measured.adapted)
    try:
        program = lower(graph, policy, card, operands)
    except LoweringError as error:
        raise BuildError(f"{card.name}: {error}") from error
    return TenstorrentBuilt(graph, policy, program)


def plan_builds(builds: Sequence[TenstorrentBuilt], mock_folder: Path | None = None) -> None:
    """Plan builds for one card in one process, whose set-up takes seconds; `plan` and `realized` give what is found.

    Args:
        builds: all for one card.
        mock_folder: where the mock card is kept; None is the user's cache.

    Raises:
        EngineError, PackingError: as `write`.
    """
    with TemporaryDirectory() as scratch:
        folders = [Path(scratch, str(number)) for number in range(len(builds))]
        for built, folder in zip(builds, folders, strict=True):
            folder.mkdir()
            write_program(built.program, folder, partial(engine.pack, mock_folder=mock_folder))
        for built, plan in zip(builds, engine.plan_many(folders, mock_folder=mock_folder), strict=True):
            built._plan = plan


def _shown(wanted: Scheme, found: Realized, product: bool, biased: bool) -> Scheme:
    """The scheme with all that the library shows in place of what was wanted."""
    weight, activation = found.weight, found.activation
    if product:
        # Both operands are activations, and what departs is to be seen; the scheme's weight means nothing.
        activation = activation if activation != wanted.activation else found.weight
        weight = wanted.weight
    width = wanted.in0_block_w
    if width is None:
        width = None if found.k_blocks in (None, 1) else found.k_block_tiles
    elif found.k_block_tiles is not None and not (found.k_blocks == 1 and found.k_block_tiles <= width):
        width = found.k_block_tiles  # where K has no more tiles than the block, both are the same
    return replace(
        wanted,
        weight=weight,
        activation=activation,
        accumulate="fp32" if found.accumulate == "fp32" else "bf16",
        fidelity=next(name for name in FIDELITIES if name == found.fidelity),
        packer_l1_acc=found.packer_l1_acc,
        in0_block_w=width,
        bias_apart=not found.bias_fused if biased else wanted.bias_apart,
    )
