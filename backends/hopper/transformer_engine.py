"""Transformer Engine: a policy's FP8 linear layers as te.Linear, everything else as the GEMM path has it.

The only file that imports transformer_engine, and late: the import loads cuDNN, NCCL and NVRTC, and fails without them.

What its forward pass does (read in the sources of 2.9.0 and 2.20.2), and how it differs from `HopperArithmetic`:
* E4M3 alone; HYBRID keeps E5M2 for gradients. One scale for a whole weight, none for a channel.
* It multiplies by 448 / amax where the emulation divides by amax / 448: about 4 codes in 10 million are one step off.
* Sums stay in the tensor core's own registers (`use_split_accumulator=False`), as with `fast_accum` of `GemmEngine`.
* Rows in multiples of 8; others are padded with zeros here.
A static scale is DelayedScaling with the scale preset. It is recomputed from the history of amax only where gradients
are enabled when the autocast ends, and they never are here: so it stays what was calibrated, to the bit.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.base import NOTHING_MEASURED, Measured
from backends.hopper.gemm import GemmEngine
from backends.hopper.transformer_engine_plan import Replacement, plan
from precision.formats import FORMATS
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.model import Clip, Rendering, Voice

EXTRA = "pip install --no-build-isolation 'precision-search[transformer-engine]'"
OLDEST = "2.9"
"""The first version with `te.autocast`."""
ROWS = 8
"""Rows of an FP8 product there are a multiple of this."""


class TransformerEngineError(RuntimeError):
    """Transformer Engine is not there, or does not load; the message says what to install."""


class TransformerEngine:
    """A voice whose FP8 linear layers are te.Linear; fulfils `backends.base.Engine`. The voice is not changed."""

    def __init__(
        self,
        voice: Voice,
        policy: Policy,
        measured: Measured = NOTHING_MEASURED,
        *,
        device: str = "cuda",
        sites: Sequence[Site] = (),
    ) -> None:
        """Copy the voice, replace its layers, copy their weights and preset their scales.

        Args:
            voice: float32.
            policy: a scheme for each site.
            measured: static scales, and trained weights of sites that are not replaced.
            device: where it runs; te.Linear itself refuses anything but CUDA.
            sites: of the model, as `GemmEngine` takes them, for those that are not replaced.

        Raises:
            BuildError: naming all sites that Transformer Engine, or the GEMM path for the others, refuses.
            TransformerEngineError: it is not installed, or does not load.
            RuntimeError: there is no CUDA device.
        """
        self.plan = plan(voice.module, policy, measured.calibration)
        self._schemes = dict(policy.schemes)
        planned = {replacement.site for replacement in self.plan}
        others = Policy.of({site: scheme for site, scheme in policy.schemes if site not in planned})
        te, recipes = library()
        copied: Any = copy.deepcopy(voice)
        copied.module.to(device)
        self._replaced: dict[str, TeLinear] = {}
        for replacement in self.plan:
            layer = copied.module.get_submodule(replacement.site)
            self._replaced[replacement.site] = TeLinear(te, recipes, layer, replacement, device)
            copied.module.set_submodule(replacement.site, self._replaced[replacement.site])
        self._engine = GemmEngine(
            copied, others, measured, device=device, sites=[site for site in sites if site.name not in planned]
        )

    @property
    def module(self) -> nn.Module:
        """The model with its layers replaced; by itself the rest of it computes in float32."""
        return self._engine.module

    def render(self, clip: Clip) -> Rendering:
        """See `GemmEngine.render`."""
        return self._engine.render(clip)

    @contextmanager
    def running(self) -> Iterator[set[str]]:
        """See `GemmEngine.running`; the layers that were replaced are not among the names."""
        with self._engine.running() as called:
            yield called

    def realized(self) -> Mapping[str, Scheme]:
        """What each site did compute under, in the policy's order; FP8 ones by what the library holds of them."""
        found = dict(self._engine.realized())
        found |= {site: layer.shown(self._schemes[site]) for site, layer in self._replaced.items() if layer.called}
        return {site: found[site] for site in self._schemes if site in found}


class TeLinear(nn.Module):
    """A te.Linear under a recipe of its own: float32 in, bf16 values out as float32, any number of rows."""

    def __init__(self, te: Any, recipes: Any, layer: nn.Linear, replacement: Replacement, device: str) -> None:
        super().__init__()
        self.called = False
        self._autocast = te.autocast
        e4m3 = recipes.Format.E4M3
        if replacement.input_amax is None:
            self.recipe = recipes.Float8CurrentScaling(fp8_format=e4m3)
        else:
            self.recipe = recipes.DelayedScaling(
                fp8_format=e4m3, amax_history_len=1, amax_compute_algo="most_recent", reduce_amax=False
            )
        # Parameters in float32, as inputs are: it quantizes them once, and not what bf16 left of them.
        self.linear = te.Linear(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            params_dtype=torch.float32,
            device=device,
        )
        with torch.no_grad():
            self.linear.weight.copy_(layer.weight)
            if layer.bias is not None:
                self.linear.bias.copy_(layer.bias)
            if replacement.input_amax is not None:
                self._preset(replacement.input_amax, float(layer.weight.abs().max()))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        rows = x.reshape(-1, x.shape[-1])
        count = rows.shape[0]
        # Rows of zeros change no amax.
        rows = F.pad(rows, (0, 0, 0, -count % ROWS))
        with torch.no_grad(), self._autocast(enabled=True, recipe=self.recipe):
            # The weight is quantized by the first call, and kept.
            made: Tensor = self.linear(rows, is_first_microbatch=not self.called)
        self.called = True
        return made[:count].view(*x.shape[:-1], -1).to(torch.bfloat16).to(torch.float32)

    def shown(self, scheme: Scheme) -> Scheme:
        """The scheme with what the layer's quantizers show in place of what was asked for."""
        read, weight = (_format_of(quantizer) for quantizer in self.linear.quantizers["scaling_fwd"][:2])
        delayed = self.linear.fp8_meta["recipe"].delayed()
        mode: Literal["static", "dynamic"] = "static" if delayed else "dynamic"
        return replace(scheme, activation=read, weight=weight, weight_scale="tensor", activation_scale=mode)

    def _preset(self, *amax: float) -> None:
        """Set the scales of input and weight, in this order, as the library does from an amax; 1 where that is 0."""
        with self._autocast(enabled=True, recipe=self.recipe):
            self.linear.init_fp8_metadata(num_gemms=1)
        held = torch.tensor(amax, dtype=torch.float32)
        scale = torch.where(held > 0, FORMATS["fp8_e4m3"].max_value / held, torch.ones_like(held))
        self.linear.fp8_meta["scaling_fwd"].scale[:2].copy_(scale)


def library() -> tuple[Any, Any]:
    """Import `transformer_engine.pytorch` and its recipes.

    Raises:
        TransformerEngineError: it is not installed, does not load, or is too old.
    """
    try:
        import transformer_engine.pytorch as te
        from transformer_engine.common import recipe
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "transformer_engine":
            raise TransformerEngineError(_does_not_load(error)) from error
        raise TransformerEngineError(
            f"Transformer Engine is not installed: {EXTRA}, beside a CUDA toolkit, against which its extension for"
            " torch is built; or use GemmEngine, which needs torch alone"
        ) from error
    except Exception as error:  # its import raises OSError, RuntimeError, FileNotFoundError, AssertionError ...
        raise TransformerEngineError(_does_not_load(error)) from error
    if not hasattr(te, "autocast"):
        raise TransformerEngineError(f"Transformer Engine {OLDEST} or later is needed, for te.autocast: {EXTRA}")
    return te, recipe


def _does_not_load(error: Exception) -> str:
    said = " ".join(str(error).split())
    return (
        f"Transformer Engine is installed and does not load ({type(error).__name__}: {said}). It needs cuDNN, NCCL and"
        f" NVRTC, which torch's CUDA wheels bring, and an extension built for this torch: {EXTRA}; or use GemmEngine,"
        " which needs torch alone"
    )


def _format_of(quantizer: Any) -> str:
    """Format of a quantizer, by the name of its type: kFloat8E4M3, kFloat8E5M2."""
    name = getattr(quantizer.dtype, "name", str(quantizer.dtype))
    return {"kFloat8E4M3": "fp8_e4m3", "kFloat8E5M2": "fp8_e5m2"}.get(name, name)
