"""GemmEngine: a voice under a policy by torch's own products, FP8 ones by torch._scaled_mm; eager or as a CUDA graph.

It computes what TensorRT cannot: E5M2 operands, scales of each tensor, a transformer step by step, its KV cache in
place. Operands are those of `HopperArithmetic` to the bit; sums are the kernels'. All between sites is float32.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import NOTHING_MEASURED, BuildError, Measured
from backends.emulation.engine import PolicyMismatchError
from backends.hopper.gemm_graph import CapturedStep, InPlaceStep, Timing, median_time
from backends.hopper.gemm_operands import Held, hold, multiply
from backends.hopper.gemm_products import Ran, fp32_sums
from backends.hopper.gemm_sites import shown, site_of
from backends.hopper.numerics import FP8_TYPES
from backends.hopper.support import refuses
from calibrate.calibration import UncalibratedSiteError
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.intercept import intercept
from voice.model import Clip, Rendering, Voice
from voice.site_call import SiteCall


class GemmEngine:
    """A voice or a module under a policy; fulfils `backends.base.Engine`. The model given is not changed."""

    def __init__(
        self,
        model: Voice | nn.Module,
        policy: Policy,
        measured: Measured = NOTHING_MEASURED,
        *,
        device: str = "cuda",
        fast_accum: bool = False,
        sites: Sequence[Site] = (),
    ) -> None:
        """Build; weights are quantized when their site is first called, and kept.

        Args:
            model: float32; copied to the device where it is elsewhere.
            policy: a scheme for each site of the model.
            measured: of the model: static scales, and trained weights where schemes name them.
            device: "cuda", or "cpu", which has the same operands and float32 sums.
            fast_accum: leaves FP8 sums in the tensor core's own registers, of about 14 bits; faster, and not what
                `HopperArithmetic` has.
            sites: of the model, where they are known: what the GEMM path refuses is then told here, and not at the end
                of the first run.

        Raises:
            BuildError: naming all sites that the GEMM path refuses under their scheme, or that have none.
            RuntimeError: there is no CUDA device, or it has no FP8.
        """
        self.device = torch.device(device)
        self.fast_accum = fast_accum
        self._schemes = dict(policy.schemes)
        self._measured = measured
        self._held: dict[str, Held] = {}
        self._biases: dict[str, tuple[int, int] | None] = {}
        self._ran: dict[str, Ran] = {}
        self._realized: dict[str, Scheme] = {}
        self._faults: dict[str, str] = {}
        for site in sites:
            self._judge(site)
        self._raise_faults()
        _check_device(self.device, policy)
        self._model = _placed(model, self.device)
        self.module: nn.Module = self._model if isinstance(self._model, nn.Module) else self._model.module
        """The model that runs: a copy where the one given is on another device."""

    def render(self, clip: Clip) -> Rendering:
        """What the voice makes of a clip, float32, on the CPU; NaN and Inf come out as the kernels make them.

        Raises:
            BuildError: as `running`.
            PolicyMismatchError: a site of the policy was not called.
            TypeError: the engine was made of a module, which renders nothing.
        """
        if isinstance(self._model, nn.Module):
            raise TypeError("the engine was made of a module; give it a voice to render, or use running()")
        with self.running() as called:
            made = self._model.render(replace(clip, inputs=tuple(value.to(self.device) for value in clip.inputs)))
        missed = [site for site in self._schemes if site not in called]
        if missed:
            raise PolicyMismatchError(
                f"clip {clip.name}: {len(missed)} of the policy's sites were not called, the first is {missed[0]!r};"
                " find the model's sites again"
            )
        sound = None if made.waveform is None else made.waveform.cpu()
        return Rendering(sound, {head: values.cpu() for head, values in made.logits.items()})

    @contextmanager
    def running(self) -> Iterator[set[str]]:
        """Within the context, sites of `module` compute under the policy, and tensors are made on the device.

        Gives the names of the sites called so far.

        Raises:
            BuildError: at the end, naming all sites called that the GEMM path refuses, that the policy lacks, or whose
                static scale was never measured; they were computed in float32, so that the run came to its end.
        """
        called: set[str] = set()

        def handle(call: SiteCall) -> Tensor:
            called.add(call.site)
            return self._multiply(call) if self._ready(call) else call.compute()

        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(fp32_sums())
                stack.enter_context(self.device)
            stack.enter_context(torch.no_grad())
            stack.enter_context(intercept(self.module, handle))
            yield called
        self._raise_faults()

    def compute(self, call: SiteCall) -> Tensor:
        """Compute a call under its site's scheme; float32, in the shape of `call.compute()`.

        Raises:
            BuildError: the GEMM path refuses the site, or the policy lacks it, or its static scale was never measured.
            TypeError: an operand is not float32.
            ValueError: the weight has Inf or NaN.
        """
        if not self._ready(call):
            self._raise_faults()
        return self._multiply(call)

    def realized(self) -> Mapping[str, Scheme]:
        """What each site did compute under, by the tensors that were passed; in the order of first calls."""
        return dict(self._realized)

    def ran(self) -> Mapping[str, Ran]:
        """Which kernel computed each site, and of what types; the CPU's stand-ins say so here."""
        return dict(self._ran)

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes of the stored weight, bias and scales of each site called so far."""
        return {site: held.bytes for site, held in self._held.items()}

    def graph(self, step: InPlaceStep, inputs: Mapping[str, Tensor]) -> CapturedStep:
        """Capture a step of `module` as a CUDA graph, under the policy.

        Args:
            step: of shapes that stay the same, its states in place, as `kv_cache.CachedStep` has them.
            inputs: of one step, by name.

        Raises:
            RuntimeError: the engine computes on the CPU, which has no graphs.
            BuildError: as `running`.
        """
        if self.device.type != "cuda":
            raise RuntimeError(
                f"a CUDA graph needs a CUDA device, and this engine computes on {self.device}; run the step eagerly,"
                " or make the engine with device='cuda' on a machine that has one"
            )
        with self.running():
            return CapturedStep(step, inputs, self.device)

    def time(self, run: Callable[[], object], runs: int = 100, warm_up: int = 10) -> Timing:
        """Time runs under the policy: by CUDA events on a card, by the wall clock on the CPU; see `median_time`."""
        with self.running():
            return median_time(run, self.device, runs, warm_up)

    def _multiply(self, call: SiteCall) -> Tensor:
        for operand, values in (("input", call.x), ("weight", call.weight)):
            if values.dtype != torch.float32:
                raise TypeError(
                    f"site {call.site}: {operand} must be float32, got {values.dtype}; load the model in float32"
                )
        scheme = self._schemes[call.site]
        result, ran = multiply(call, scheme, self._held[call.site], self.fast_accum)
        # Of several calls the one that departs from the policy is kept.
        if self._realized.get(call.site, scheme) == scheme:
            self._ran[call.site], self._realized[call.site] = ran, shown(scheme, ran, call)
        return result.to(torch.float32)

    def _ready(self, call: SiteCall) -> bool:
        """Prepare a site at its first call; whether it may compute, and else what is in the way is noted."""
        if call.site in self._held:
            if self._biases[call.site] == _place(call.bias):
                return True
            self._faults[call.site] = "layers share its weight and have biases of their own; give each its own weight"
            return False
        if not self._judge(site_of(call)):
            return False
        scheme = self._schemes[call.site]
        self._biases[call.site] = _place(call.bias)
        if scheme.adapted is not None:
            operands = self._measured.adapted[scheme.adapted][call.site]
            bias = None if operands.bias is None else operands.bias.to(self.device)
            call = replace(call, weight=operands.weight.to(self.device), bias=bias)
        try:
            self._held[call.site] = hold(call, scheme, self._measured.calibration)
        except UncalibratedSiteError as error:
            self._faults[call.site] = str(error).removeprefix(f"site {call.site!r}: ")
            return False
        return True

    def _judge(self, site: Site) -> bool:
        """Note what is in the way of a site; whether nothing is."""
        if site.name in self._faults:
            return False
        scheme = self._schemes.get(site.name)
        why = "the policy has no scheme for it" if scheme is None else refuses(site, scheme, "gemm")
        if scheme is not None and scheme.adapted is not None:
            trained = self._measured.adapted.get(scheme.adapted, {})
            why = why if site.name in trained else f"there are no trained weights {scheme.adapted} of it"
        if why is not None:
            self._faults[site.name] = why
        return why is None

    def _raise_faults(self) -> None:
        faults = sorted(f"{site}: {why}" for site, why in self._faults.items())
        self._faults = {}
        if faults:
            raise BuildError("the GEMM path cannot have the model under this policy\n  " + "\n  ".join(faults))


def _check_device(device: torch.device, policy: Policy) -> None:
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise RuntimeError(f"the GEMM path runs on cuda or cpu, got device {str(device)!r}")
    if not torch.cuda.is_available():
        raise RuntimeError(
            "device 'cuda': torch sees no CUDA device here; use device='cpu', which has the same operands and float32"
            " sums, or a machine with an NVIDIA driver"
        )
    needs = [site for site, scheme in policy.schemes if scheme.activation in FP8_TYPES]
    if needs and torch.cuda.get_device_capability(device) < (8, 9):
        raise RuntimeError(
            f"{torch.cuda.get_device_name(device)} has no FP8 (compute capability 8.9 and up), and the policy has"
            f" {len(needs)} FP8 sites; use a card from Ada or Hopper on, or bf16"
        )


def _placed(model: Any, device: torch.device) -> Any:
    """The model, where it is on the device, or a copy there."""
    module: nn.Module = model if isinstance(model, nn.Module) else model.module
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device.type == device.type for tensor in tensors):
        return model
    moved = copy.deepcopy(model)
    (moved if isinstance(moved, nn.Module) else moved.module).to(device)
    return moved


def _place(bias: Tensor | None) -> tuple[int, int] | None:
    """Where a bias lies, without a look at its numbers, which a graph that is being captured does not allow."""
    return None if bias is None else (bias.untyped_storage()._cdata, int(bias.storage_offset()))
