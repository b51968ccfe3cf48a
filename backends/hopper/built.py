"""Built: a graph under a policy as a strongly typed ONNX model, computed by ONNX Runtime."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor

from backends.base import NOTHING_MEASURED, BuildError, Measured
from backends.hopper.lower import Lowered, LoweringError, lower
from backends.hopper.numerics import FP8_TYPES
from backends.hopper.onnx_runtime import OrtSession
from backends.hopper.reading import Shown, shown
from backends.hopper.support import Route, refuses
from calibrate.calibration import Calibration, Operand, UncalibratedSiteError
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.graph import SiteGraph, constant_of, site_nodes

MODEL = "model.onnx"


@dataclass(slots=True, eq=False)
class HopperBuilt:
    """An ONNX model for one route; fulfils `backends.base.Built`."""

    lowered: Lowered
    _session: OrtSession | None = None

    @property
    def model(self) -> ModelProto:
        """What is deployed."""
        return self.lowered.model

    @property
    def digest(self) -> str:
        """See `Built.digest`."""
        return hashlib.sha256(self._bytes()).hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """See `Built.write`; needs no software of the target's."""
        (folder / MODEL).write_bytes(self._bytes())

    def shown(self) -> Mapping[str, tuple[Shown, ...]]:
        """What the model shows of the calls of each site, in the order of first calls."""
        policy = dict(self.lowered.policy.schemes)
        found: dict[str, list[Shown]] = {site.site: [] for site in site_nodes(self.lowered.graph)}
        for call in shown(self.model, policy):
            found[call.site].append(call)
        return {site: tuple(calls) for site, calls in found.items() if calls}

    def realized(self) -> dict[str, Scheme]:
        """See `Built.realized`; read from the ONNX model, which is what an engine has to keep to.

        It shows formats of operands and what their scales are and cover, but no accumulator and no lever.
        """
        schemes = dict(self.lowered.policy.schemes)
        products = {site.site: site.is_product for site in site_nodes(self.lowered.graph)}
        held: dict[str, Scheme] = {}
        for site, calls in self.shown().items():
            for call in calls:
                if held.get(site, schemes[site]) == schemes[site]:
                    held[site] = _scheme(schemes[site], call, products[site])
        return held

    def compute(self, runs: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """See `Built.compute`; by ONNX Runtime on one thread of a CPU, 16-bit islands as `exported.widening` says."""
        if self._session is None:
            self._session = OrtSession(self.model)
        graph, outputs = self.lowered.graph, self.lowered.outputs
        places = {str(node.target): node.meta["val"] for node in graph.module.graph.find_nodes(op="placeholder")}
        states = {name: torch.zeros(tuple(places[name].shape), dtype=places[name].dtype) for name in graph.states}
        for run in runs:
            given = {name: values.numpy() for name, values in {**run, **states}.items()}
            found = self._session.run(given)
            states, parts = (
                {name: torch.from_numpy(found[outputs[name]]) for name in names}
                for names in (graph.states, graph.parts)
            )
            yield parts

    def _bytes(self) -> bytes:
        return bytes(self.model.SerializeToString(deterministic=True))


def build(
    graph: SiteGraph,
    policy: Policy,
    sites: Sequence[Site],
    measured: Measured = NOTHING_MEASURED,
    route: Route | None = None,
) -> HopperBuilt:
    """Lower a graph for a route, see `Builder.build`; None: TensorRT where it takes all sites, GEMMs elsewhere."""
    there = dict.fromkeys(site.site for site in site_nodes(graph))
    known, schemes = {site.name: site for site in sites}, dict(policy.schemes)
    faults = [f"{site}: the policy has no scheme for it" for site in there if site not in schemes]
    faults += [f"{site}: the graph has no such site, and the policy has" for site in schemes if site not in there]
    faults += [f"{site}: not one of the model's sites; find them again" for site in there if site not in known]
    ours = there.keys() & schemes.keys() & known.keys()
    if route is None:
        refused = any(refuses(known[name], schemes[name], "tensorrt") is not None for name in ours)
        route = "gemm" if refused else "tensorrt"
    for name in ours:
        why = refuses(known[name], schemes[name], route, streaming=bool(graph.states))
        why = _uncalibrated(known[name], schemes[name], measured.calibration) if why is None else why
        faults += [] if why is None else [f"{name}: {why}"]
    faults += [f"{site}: the weight has Inf or NaN; find where it comes from first" for site in _not_finite(graph)]
    if faults:
        raise BuildError(f"Hopper ({route}) cannot have the graph under this policy\n  " + "\n  ".join(sorted(faults)))
    try:
        return HopperBuilt(lower(graph, policy, measured, route))
    except LoweringError as error:
        raise BuildError(f"Hopper ({route}): {error}") from error


def _not_finite(graph: SiteGraph) -> Iterator[str]:
    """Names of sites whose weight has NaN or Inf."""
    for name, site in {site.site: site for site in site_nodes(graph)}.items():
        if site.weight.op == "get_attr" and not bool(torch.isfinite(constant_of(graph, site.weight)).all()):
            yield name


def _uncalibrated(site: Site, scheme: Scheme, calibration: Calibration | None) -> str | None:
    """Say what a static scale lacks; None where nothing is lacking."""
    if scheme.activation not in FP8_TYPES or scheme.activation_scale != "static":
        return None
    operands: tuple[Operand, ...] = ("input",) if site.weight_shape else ("left", "right")
    if calibration is None:
        return "a static activation scale, and no calibration; observe the model on clips and give `measured`"
    for operand in operands:
        try:
            calibration.amax(site.name, operand)
        except UncalibratedSiteError as error:
            return str(error).partition(": ")[2]
    return None


def _scheme(wanted: Scheme, call: Shown, product: bool) -> Scheme:
    """The scheme with all that the model shows in place of what was wanted."""
    if product:
        # Both operands are activations, and what departs is to be seen; the scheme's weight means nothing.
        reads = (call.left, call.right)
        activation = next((read.fmt for read in reads if read.fmt != wanted.activation), wanted.activation)
        scales = [read.scale for read in reads if read.scale is not None]
        scale = next((scale for scale in scales if scale != wanted.activation_scale), wanted.activation_scale)
        return replace(wanted, activation=activation, activation_scale=scale)
    return replace(
        wanted,
        weight=call.right.fmt,
        activation=call.left.fmt,
        weight_scale=call.right.granularity or wanted.weight_scale,
        activation_scale=call.left.scale or wanted.activation_scale,
    )
