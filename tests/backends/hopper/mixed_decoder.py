"""The decoder under a policy with all that the GEMM path has, and CUDA tensors without a card."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from backends.base import Measured
from backends.hopper import gemm_operands, numerics
from backends.hopper.support import refuses
from calibrate.calibration import Calibration
from calibrate.observing import observing
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.decoder import DecoderVoice
from voice.intercept import intercept
from voice.model import Clip
from voice.sites import discover

FP8 = (
    Scheme("static", "fp8_e4m3", "fp8_e4m3"),
    Scheme("e5m2 input", "fp8_e4m3", "fp8_e5m2", activation_scale="dynamic"),
    Scheme("e5m2 weight", "fp8_e5m2", "fp8_e4m3", weight_scale="tensor"),
    Scheme("dynamic", "fp8_e4m3", "fp8_e4m3", weight_scale="tensor", activation_scale="dynamic"),
    Scheme("e5m2 channels", "fp8_e5m2", "fp8_e4m3"),
    Scheme("stored", "fp8_e4m3", "bf16"),
)
WIDE = (Scheme("bf16", "bf16", "bf16"), Scheme("fp16", "fp16", "fp16"))


@dataclass(frozen=True, eq=False)
class Case:
    voice: DecoderVoice
    clip: Clip
    sites: tuple[Site, ...]
    calibration: Calibration

    @property
    def measured(self) -> Measured:
        return Measured(calibration=self.calibration)

    @property
    def mixed(self) -> Policy:
        """The next of all schemes at each site that takes it."""
        held = {}
        for index, site in enumerate(self.sites):
            wanted = FP8[index % len(FP8)]
            held[site.name] = wanted if refuses(site, wanted, "gemm") is None else WIDE[index % len(WIDE)]
        return Policy.of(held)

    def uniform(self, scheme: Scheme) -> Policy:
        return Policy.uniform([site.name for site in self.sites], scheme)


def case(voice: DecoderVoice) -> Case:
    clip = voice.clips(1)[0]
    with observing(lambda handler: intercept(voice.module, handler), "amax") as observer:
        voice.render(clip)
    sites = discover(voice.module, lambda: voice.render(clip), clip.seconds).sites
    return Case(voice, clip, sites, observer.calibration())


def snr_db(exact: torch.Tensor, got: torch.Tensor) -> float:
    """Infinite where they are equal."""
    noise = (exact.double() - got.double()).square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise))


@contextmanager
def imagined_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[DecoderVoice], DecoderVoice]]:
    """Within it torch makes CUDA tensors without values, and checks shapes, strides and devices as on a card.

    Gives a function that puts a voice there; where values decide, one of them is assumed.
    """
    real_scale = numerics.activation_scale

    def scale(site, operand, scheme, calibration, values=None):
        if scheme.activation_scale == "static":
            return torch.ones((), device=values.device)
        return real_scale(site, operand, scheme, calibration, values)

    def put(voice: DecoderVoice) -> DecoderVoice:
        module = voice.module
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                        held[name] = nn.Parameter(empty, requires_grad=False) if held is part._parameters else empty
        return replace(voice, module=module)

    with FakeTensorMode(allow_non_fake_inputs=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        monkeypatch.setattr(numerics, "_refuse_not_finite", lambda *args: None)
        monkeypatch.setattr(gemm_operands, "activation_scale", scale)
        yield put


def why_no_card() -> str | None:
    """What a test marked `hopper` lacks here; None where a Hopper card is there."""
    if not torch.cuda.is_available():
        return "torch.cuda.is_available() is False: no NVIDIA card, or no driver for it"
    major, minor = torch.cuda.get_device_capability()
    if major != 9:
        return f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}; Hopper is 9.0"
    return None
