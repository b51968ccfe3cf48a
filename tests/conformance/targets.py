"""Targets: every Backend that the suite is for, and the schemes that are tried at it."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Builder, Built
from backends.hopper.backend import HopperBackend
from backends.hopper.support import Route
from backends.tenstorrent.backend import TenstorrentBackend
from backends.tenstorrent.built import plan_builds
from precision.policy import FIDELITIES, Policy, Scheme
from precision.site import Site


@dataclass(frozen=True, eq=False)
class Target:
    name: str
    backend: Backend
    choices: Mapping[str, tuple[Any, ...]]
    """Field of a scheme -> what is tried of it, with some that no target has."""
    widest: Scheme
    """All that the target has of precision."""
    everyday: tuple[Scheme, ...]
    """Schemes that a search would choose between, each good for every site."""
    narrow: tuple[Scheme, ...] = ()
    """As `everyday`, of schemes that only some sites take."""
    layer_db: Callable[[Scheme], float] | None = None
    """SNR, at least, of one built layer against the emulation of it, whose sums have another order, and so of a stream
    against the whole; None where all is equal to the bit."""
    no_software: Callable[[], str | None] = lambda: None
    """Why its software can't be asked here; None where it can."""
    look: Callable[[Sequence[Built], Path], object] | None = None
    """Has the software look at many builds at once, where that is cheaper; keeps what it needs in the folder."""
    needs: str | None = None
    """The marker of tests that need its software."""

    @property
    def builder(self) -> Builder:
        assert isinstance(self.backend, Builder)
        return self.backend

    @cached_property
    def schemes(self) -> tuple[Scheme, ...]:
        """All combinations."""
        return tuple(
            Scheme("conformance", **dict(zip(self.choices, values, strict=True)))
            for values in product(*self.choices.values())
        )

    def claimed(self, site: Site, streaming: bool = False) -> list[Scheme]:
        """All combinations that the backend does not refuse."""
        return [scheme for scheme in self.schemes if self.refuses(site, scheme, streaming) is None]

    def refuses(self, site: Site, scheme: Scheme, streaming: bool = False) -> str | None:
        """What the backend says, of a site in a stream or of one elsewhere."""
        return (self.builder.refuses_in_stream if streaming else self.backend.refuses)(site, scheme)

    def refused(self, site: Site) -> dict[str, Scheme]:
        """Every reason for which it refuses a combination, with one that it refuses so."""
        reasons = {self.backend.refuses(site, scheme): scheme for scheme in self.schemes}
        return {reason: scheme for reason, scheme in reasons.items() if reason is not None}

    def uniform(self, sites: Sequence[Site], scheme: Scheme, streaming: bool = False) -> Policy:
        """The scheme at every site that may have it, all of the target's precision elsewhere."""
        may = {site.name: self.refuses(site, scheme, streaming) is None for site in sites}
        return Policy.of({name: scheme if taken else self.widest for name, taken in may.items()})

    def mixed(self, sites: Sequence[Site], streaming: bool = False) -> Policy:
        """A policy under which each site takes the next of all schemes that it may have."""
        held: dict[str, Scheme] = {}
        for index, site in enumerate(sites):
            # A prime step, so that neighbours differ in nearly every field.
            begin = index * 1009 % len(self.schemes)
            turned = (*self.schemes[begin:], *self.schemes[:begin])
            held[site.name] = next(scheme for scheme in turned if self.refuses(site, scheme, streaming) is None)
        return Policy.of(held)


def targets() -> list[Any]:
    """All, as parameters of a test."""
    return [pytest.param(target, id=target.name) for target in TARGETS]


def asked() -> list[Any]:
    """As `targets`, of a test that asks the target's software."""
    return [
        pytest.param(
            target,
            id=target.name,
            marks=[getattr(pytest.mark, target.needs)] if target.needs is not None else [],
        )
        for target in TARGETS
    ]


def _no_ttnn() -> str | None:
    if importlib.util.find_spec("ttnn") is None:
        return "the ttnn wheel is not installed; there is one for CPython 3.12 (and 3.10) on x86-64 Linux only"
    if Path("/dev/tenstorrent").exists():
        return "a real card is present, and a mock one is not to be mistaken for it"
    return None


TENSIX = {
    "weight": ("bf16", "bfp8_b", "bfp4_b", "fp32", "bfp2_b", "int8"),
    "activation": ("bf16", "bfp8_b", "bfp4_b", "fp32", "fp8_e4m3"),
    "accumulate": ("fp32", "bf16"),
    "fidelity": (*FIDELITIES, None),
    "levers": ((), ("col_tilize",), ("fidelity_rounding",)),
    "packer_l1_acc": (False, True),
    "in0_block_w": (None, 1, 2),
    "bias_apart": (False, True),
}
TENSIX_WIDEST = Scheme("fp32", "fp32", "fp32", fidelity="hifi3", bias_apart=True)
TENSIX_EVERYDAY = (
    Scheme("blocks", "bfp8_b", "bfp8_b", fidelity="lofi"),
    Scheme("bf16", "bf16", "bf16", fidelity="hifi2"),
    Scheme("mixed", "bfp8_b", "bf16", accumulate="bf16", fidelity="hifi2"),
)
HOPPER = {
    "weight": ("fp8_e4m3", "fp8_e5m2", "bf16", "fp16", "fp32", "int8", "bfp8_b"),
    "activation": ("fp8_e4m3", "fp8_e5m2", "bf16", "fp16", "fp32", "int8", "bfp8_b"),
    "accumulate": ("fp32", "bf16"),
    "fidelity": (None, "lofi"),
    "weight_scale": ("channel", "tensor"),
    "activation_scale": ("static", "dynamic"),
    "levers": ((), ("error_feedback",)),
    "packer_l1_acc": (False, True),
    "in0_block_w": (None, 1),
    "bias_apart": (False, True),
}
HOPPER_WIDEST = Scheme("fp32", "fp32", "fp32")
HOPPER_EVERYDAY = (Scheme("bf16", "bf16", "bf16"), Scheme("fp16", "fp16", "fp16"))
HOPPER_NARROW = (Scheme("fp8", "fp8_e4m3", "fp8_e4m3"),)
FP32_SUM_DB = 110.0
"""Two fp32 sums of k products in another order are off by sqrt(k) 2**-24 of their terms, or so, as 2**-24 is the most
that one addition is off by: 122 dB for a k of 160, the largest of the layers; the rest is margin for sums of few terms
that cancel."""
STEPS_DB = {"bf16": 56.0, "fp16": 74.0}
"""A sum so near the middle of two values of 16 bits that its order decides is rounded to the one or to the other, which
are a step apart: 2**-8 (48 dB) or 2**-11 (66 dB) of the value. That is one value in thousands; of the hundreds that a
layer has here, one in a hundred may be (20 dB), and be four times as large as most (-12 dB)."""


def _tenstorrent(name: str, backend: TenstorrentBackend) -> Target:
    return Target(
        name,
        backend,
        TENSIX,
        TENSIX_WIDEST,
        TENSIX_EVERYDAY,
        no_software=_no_ttnn,
        look=plan_builds,  # type: ignore[arg-type]
        needs="tenstorrent",
    )


def hopper_layer_db(scheme: Scheme) -> float:
    """SNR of two computations of a layer that add up in another order."""
    stored = "bf16" if scheme.activation.startswith("fp8") else scheme.activation
    return STEPS_DB.get(stored, FP32_SUM_DB)


def _hopper(route: Route) -> Target:
    return Target(
        f"hopper_{route}",
        HopperBackend(route),
        HOPPER,
        HOPPER_WIDEST,
        HOPPER_EVERYDAY,
        HOPPER_NARROW,
        layer_db=hopper_layer_db,
    )


TARGETS = (
    _tenstorrent("wormhole_n150", TenstorrentBackend("wormhole")),
    _tenstorrent("blackhole_p150", TenstorrentBackend("blackhole")),
    _hopper("tensorrt"),
    _hopper("gemm"),
)
"""A target joins the suite by an entry here."""
