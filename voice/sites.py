"""discover: turn a running module into its Sites."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from precision.site import Site
from voice.intercept import Interception, intercept
from voice.modes import Mode, light
from voice.phase import Phase
from voice.site_call import SiteCall

OUTSIDE = "(outside the module)"
TOP = "(the module itself)"


def _cpu_recurrent_flops(x: Sequence[int], fresh: Sequence[int], past: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * (math.prod(fresh) + math.prod(past))


def _cuda_recurrent_flops(x: Sequence[int], weights: Sequence[Sequence[int]], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * sum(math.prod(weight) for weight in weights if len(weight) == 2)


def _flops_of_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _flops_of_added(_: Any, matrices: Sequence[int], other: Sequence[int], *__: Any, **___: Any) -> int:
    return 2 * math.prod(matrices) * (other[-1] if len(other) > 1 else 1)


def _flops_of_distances(x1: Sequence[int], x2: Sequence[int], p: float = 2.0, *_: Any, **__: Any) -> int:
    batch = torch.broadcast_shapes(x1[:-2], x2[:-2])  # type: ignore[no-untyped-call]
    return 2 * math.prod(batch) * x1[-2] * x2[-2] * x1[-1] if p == 2 else 0


# What torch's counter does not know, and would count as nothing.
_UNKNOWN_TO_TORCH = {
    torch.ops.aten.mkldnn_rnn_layer: _cpu_recurrent_flops,
    torch.ops.aten._cudnn_rnn: _cuda_recurrent_flops,
    torch.ops.aten.mv: _flops_of_vector,
    torch.ops.aten.dot: _flops_of_vector,
    torch.ops.aten.addmv: _flops_of_added,
    torch.ops.aten.addbmm: _flops_of_added,
    torch.ops.aten._addmm_activation: _flops_of_added,
    torch.ops.aten._euclidean_dist: _flops_of_distances,
    torch.ops.aten._cdist_forward: _flops_of_distances,
}


class _Everywhere:
    """In place of torch's tracker of modules, which fails on a module that is given a parameter in inference_mode."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Discovery:
    """The sites of a model, and how much of its computation they are."""

    sites: tuple[Site, ...]
    """In the order in which they were first called."""
    covered_share: float
    """Share of all multiply-accumulates that the sites do, 0 to 1."""
    uncovered: tuple[tuple[str, float], ...]
    """Path of each module that multiplies outside the sites, and its share of all; largest first."""
    total_macs_per_second: float
    """Multiply-accumulates per second of audio, counted by torch over everything that ran."""
    phases: Mapping[str, Phase] = field(default_factory=dict)
    """By site, of those that make angles; `voice.phase` finds them."""


def discover(module: nn.Module, run: Callable[[], object], seconds: float) -> Discovery:
    """Run a model once and find where it multiplies.

    Args:
        module: the model.
        run: renders one clip with it; what it returns is dropped.
        seconds: duration of the audio that `run` makes, above 0.

    Returns:
        Sites as GEMMs per second of audio. A weight used several times is one site whose rows add up. A product whose
        shapes change from call to call has the shape of its largest call, and the rows that keep its MACs.

    Raises:
        ValueError: where `seconds` is not positive, or nothing was multiplied.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"the run must make audio of a positive length, got {seconds} s")
    tallies: dict[str, _Tally] = {}
    counting = FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH)
    counting.mod_tracker = _Everywhere()  # type: ignore[assignment]
    # Fused attention has no formula in torch's counter, its parts have one.
    with sdpa_kernel(SDPBackend.MATH), counting as counter:
        watch = _Unclaimed(counter)

        def handler(call: SiteCall) -> Tensor:
            watch.claimed = True
            result = call.compute()
            watch.claimed = False
            tallies.setdefault(call.site, _Tally(call)).add(_gemm(call, result))
            return result

        with light(type(counter.mode)), intercept(module, handler) as interception, watch.at(interception):
            run()
    total = counter.get_total_flops() // 2
    if total == 0:
        raise ValueError("the run multiplied no matrices: it must call the module it is given with")
    sites = tuple(tally.site(name, seconds) for name, tally in tallies.items())
    return Discovery(
        sites=sites,
        covered_share=sum(tally.macs for tally in tallies.values()) / total,
        uncovered=tuple((path, flops / 2 / total) for path, flops in watch.flops.most_common()),
        total_macs_per_second=total / seconds,
    )


def count_weights(module: nn.Module, sites: Sequence[Site]) -> int:
    """Number of weights of a model: its parameters, and the buffers that sites multiply with (an inverse STFT's)."""
    modules, fixed = dict(module.named_modules()), 0
    for site in sites:
        owner = modules.get(site.name.partition("#")[0])
        if owner is not None and site.weight_shape:
            shapes = {tuple(buffer.shape) for buffer in owner.buffers(recurse=False)}
            trained = {tuple(parameter.shape) for parameter in owner.parameters(recurse=False)}
            fixed += site.weight_elements if site.weight_shape in shapes - trained else 0
    return fixed + sum(parameter.numel() for parameter in module.parameters())


class _Unclaimed(Mode):
    """Notes, by module, what the counter below it counts outside the sites."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()
        self.claimed = False
        self._counter = counter
        self._interception: Interception | None = None

    def at(self, interception: Interception) -> "_Unclaimed":
        """Look up the running module there."""
        self._interception = interception
        return self

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and ask how much it counted."""
        before = self._counter.get_total_flops()
        result = function(*args, **(kwargs or {}))
        counted = self._counter.get_total_flops() - before
        if counted and not self.claimed:
            assert self._interception is not None
            path = self._interception.path
            self.flops[OUTSIDE if path is None else path or TOP] += counted
        return result


@dataclass(frozen=True, slots=True)
class _Gemm:
    rows: int
    k: int
    n: int
    groups: int = 1
    kernel: int = 1

    @property
    def macs(self) -> int:
        return self.rows * self.k * self.n * self.groups


class _Tally:
    """What the calls of one site add up to."""

    def __init__(self, call: SiteCall) -> None:
        self.macs = 0
        self._op = call.op
        self._weight_shape = () if call.is_product else tuple(call.weight.shape)
        self._largest: _Gemm | None = None

    def add(self, gemm: _Gemm) -> None:
        self.macs += gemm.macs
        if self._largest is None or gemm.macs > self._largest.macs:
            self._largest = gemm

    def site(self, name: str, seconds: float) -> Site:
        gemm = self._largest
        assert gemm is not None
        once = gemm.k * gemm.n * gemm.groups
        return Site(
            name=name,
            op=self._op,
            weight_shape=self._weight_shape,
            k=gemm.k,
            n=gemm.n,
            rows_per_second=self.macs / once / seconds if once else 0.0,
            groups=gemm.groups,
            kernel=gemm.kernel,
        )


def _gemm(call: SiteCall, result: Tensor) -> _Gemm:
    x, weight = call.x, call.weight
    if call.op == "linear":
        return _Gemm(x.numel() // max(x.shape[-1], 1), weight.shape[1], weight.shape[0])
    if call.op == "matmul":
        # Axis -3 of the right operand counts the heads; what a product repeats beyond them are rows.
        heads = weight.shape[-3] if weight.ndim > 2 else 1
        columns = weight.shape[-1]
        return _Gemm(result.numel() // max(heads * columns, 1), weight.shape[-2], columns, heads)
    assert call.options is not None
    groups, kernel = call.options.groups, math.prod(weight.shape[2:])
    if call.op == "conv_transpose1d":
        return _Gemm(x.shape[0] * x.shape[2], weight.shape[0] // groups, weight.shape[1] * kernel, groups, kernel)
    positions = result.shape[0] * math.prod(result.shape[2:])
    return _Gemm(positions, weight.shape[1] * kernel, weight.shape[0] // groups, groups, kernel)
