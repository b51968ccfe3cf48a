"""TensorRT: a lowered model as an engine on a card: built once, run, timed, refitted, and held against its policy.

What imports TensorRT is `exported/engine.py`, which an export holds as it is, so that an export and the toolkit build
and run engines by the same lines; it imports it when the first engine is asked for. Names and signatures were held
against TensorRT 11.4's own Python bindings (tests/backends/hopper/test_tensorrt_bindings.py); no engine has been built
by them where there was no card.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from backends.hopper.export import scales_of, write_model
from backends.hopper.exported import builder, engine, facts, gpu, measured, refitting
from backends.hopper.exported.builder import Progress, Settings
from backends.hopper.exported.departures import Mismatch
from backends.hopper.manifest import Limits, sites_of
from backends.hopper.numerics import activation_scale
from backends.hopper.onnx_runtime import OrtSession
from backends.hopper.realized import realized_mismatches, realized_report, realized_schemes
from calibrate.calibration import Calibration, Operand
from precision.policy import Scheme

if TYPE_CHECKING:
    from backends.hopper.lower import Lowered

EXTRA = "pip install 'precision-search[tensorrt]'"
HEARD = Settings()
"""What a search heard is what runs: no TF32, and nothing refittable."""


class TensorRtError(RuntimeError):
    """TensorRT, a card or an engine is not there or did not do; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an engine takes, on the card alone."""

    run_us: float
    """Median of whole runs, by CUDA events."""
    runs_us: tuple[float, ...]
    layers_us: Mapping[str, float]
    """Median of every layer by TensorRT's profiler, which keeps layers from overlapping: they add up to more."""


class TensorRtEngine:
    """An engine of a lowered model; states stay on the card from run to run."""

    def __init__(self, lowered: "Lowered", plan: bytes, settings: Settings = HEARD, device: int = 0) -> None:
        """Load it; `build` is the way to one.

        Raises:
            TensorRtError: there is no TensorRT or card, or the engine is another TensorRT's or another card's.
        """
        self.lowered, self.settings = lowered, settings
        host, device_model = lowered.parted
        self._host = None if host is None else OrtSession(host)
        self._reads = {value.name for value in device_model.graph.input}
        states = {name: lowered.outputs[name] for name in lowered.graph.states}
        with _told():
            self._engine = engine.Engine(plan, states, device)

    def reset(self) -> None:
        """Begin a new utterance: states are zero."""
        self._engine.reset()

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the graph's parts, on the card, of inputs wherever they are.

        Raises:
            TensorRtError: inputs are missing, or outside of the sizes it was built for.
        """
        with _told():
            made = self._engine.step(self._given(inputs))
        return {part: made[self.lowered.outputs[part]] for part in self.lowered.graph.parts}

    def _given(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs, and what the host makes of them where the engine cannot."""
        if self._host is None:
            return dict(inputs)
        made = self._host.run({name: inputs[name].cpu().numpy() for name in self._host.inputs})
        given = {**inputs, **{name: torch.from_numpy(values) for name, values in made.items()}}
        return {name: values for name, values in given.items() if name in self._reads}  # it refuses others

    def time(self, inputs: Mapping[str, Tensor], runs: int = 100) -> Timing:
        """Time whole runs of the engine, without what the host does before, and every layer; errors as of `run`."""
        with _told():
            given = self._given(inputs)
            times = measured.times_ms(self._engine, given, runs)
            layers = measured.layer_times_ms(self._engine, given, runs)
        return Timing(
            1e3 * median(times),
            tuple(1e3 * time for time in times),
            {name: 1e3 * time for name, time in layers.items()},
        )

    def account(self) -> dict[str, Any]:
        """JSON of TensorRT's engine inspector."""
        return self._engine.account()

    def realized(self) -> dict[str, Scheme]:
        """How each site computes by TensorRT's account; see `realized.realized_schemes`."""
        return realized_schemes(self.account(), self.lowered)

    def mismatches(self) -> tuple[Mismatch, ...]:
        """Sites that did not get what the policy says, and why."""
        return realized_mismatches(self.account(), self.lowered)

    def report(self) -> str:
        """The same as text, with a row for every site."""
        return realized_report(self.account(), self.lowered)

    def refit(self, calibration: Calibration) -> dict[str, str]:
        """Take the static scales of another calibration, without a build.

        Returns:
            Initializer -> why it could not be changed; all others are. Empty where all is done.

        Raises:
            TensorRtError: the engine was built without `Settings.refit`, or TensorRT refuses.
            UncalibratedSiteError: a site was not measured.
        """
        held = {tensor.name: tensor for tensor in self.lowered.model.graph.initializer}

        def value(name: str) -> NDArray[Any] | None:
            return numpy_helper.to_array(held[name]) if name in held else None

        with _told():
            return refitting.refit(self._engine, engine.journal(), new_scales(self.lowered, calibration), value)


def build(
    lowered: "Lowered",
    limits: Mapping[str, Limits] | None = None,
    settings: Settings = HEARD,
    *,
    cache: Path | None = None,
    device: int = 0,
    progress: Progress | None = None,
) -> TensorRtEngine:
    """Build an engine for a card of this machine, or take it from the cache.

    Args:
        lowered: of the route `tensorrt`.
        limits: of every axis of the model that has a name in place of a size.
        settings: of the build.
        cache: folder of engines and of TensorRT's timings, both by TensorRT's version and the card; None keeps none.
        device: number of the card.
        progress: told of every step of the build. Ctrl-C ends it and leaves nothing half written.

    Raises:
        TensorRtError: no TensorRT (the extra is named), no driver, no card, a card without FP8 where the policy has it,
            nodes that TensorRT does not parse (by their names, which have the sites'), or a build that fails.
        LoweringError: part of the model can run neither there nor before it on the CPU.
        ValueError: it is of another route, or an axis has no limits.
    """
    if lowered.route != "tensorrt":
        raise ValueError(f"the model was lowered for route {lowered.route!r}; lower it with route='tensorrt'")
    _, device_model = lowered.parted
    axes = {name: {"min": held.least, "opt": held.usual, "max": held.most} for name, held in (limits or {}).items()}
    profile = facts.profile(facts.inputs(device_model), axes)
    with _told(), tempfile.TemporaryDirectory() as scratch:
        trt = engine.library()
        card = gpu.gpu(device)
        gpu.use(device)
        if any("fp8" in str(held[key]) for held in sites_of(lowered).values() for key in ("activation", "weight")):
            card.check_fp8()
        write_model(device_model, Path(scratch))
        model = Path(scratch, "model.onnx")
        marked = tuple(scale_names(lowered)) if settings.refit else ()
        key = builder.key(facts.digest(model), trt.__version__, card.slug, settings, profile, marked)
        kept = None if cache is None else cache / f"{key}.plan"
        if kept is not None and kept.is_file():
            return TensorRtEngine(lowered, kept.read_bytes(), settings, device)
        timings = None if cache is None else cache / f"timings-{trt.__version__}-{card.slug}.cache"
        plan = builder.build(
            trt, engine.journal(), model, profile, settings, timings=timings, marked=marked, progress=progress
        )
        if kept is not None:
            builder.write_whole(kept, plan)
        return TensorRtEngine(lowered, plan, settings, device)


def scale_names(lowered: "Lowered") -> dict[str, tuple[str, Operand]]:
    """Initializers that hold static scales of activations -> site, and which operand of it.

    TensorRT's parser gives weights of scales the names of their initializers (onnx-tensorrt, QuantDequantLinearHelper).
    """
    sides: dict[str, Operand] = {"input": "input", "left": "left", "right": "right"}
    return {
        held["initializer"]: (site, sides[operand])
        for site, operands in scales_of(lowered, None)["activations"].items()
        for operand, held in operands.items()
        if held["initializer"] is not None
    }


def new_scales(lowered: "Lowered", calibration: Calibration) -> dict[str, NDArray[np.float32]]:
    """Initializer -> the scale that a calibration gives it, float32 without axes.

    Raises:
        UncalibratedSiteError: a site was not measured.
    """
    schemes = dict(lowered.policy.schemes)
    return {
        name: activation_scale(site, operand, schemes[site], calibration).numpy()
        for name, (site, operand) in scale_names(lowered).items()
    }


@contextmanager
def _told() -> Iterator[None]:
    """Make whatever an export's files raise a TensorRtError, with this toolkit's way to install."""
    try:
        yield
    except engine.NotInstalledError as error:
        raise TensorRtError(f"{EXTRA}, on Linux with an NVIDIA driver: {error.__cause__}") from error
    except (engine.EngineError, builder.BuildFailedError, refitting.RefitError, gpu.NoGpuError) as error:
        raise TensorRtError(str(error)) from error
