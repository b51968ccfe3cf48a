"""ModelOpt's auto_quantize on the same model, with the same formats, and its solutions as schemes of layers.

Its scores are gradients (Fisher) of a loss, its budget is the mean bits of a weight, its solver a linear program. The
formats are the target's own arithmetic, handed to it as a quantization backend: weights and inputs are rounded bit for
bit as in the search, results are not. It knows layers with weights alone.
"""

import io
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backends.tenstorrent.numerics import TensixArithmetic, read_input
from calibrate.moments import Moments
from precision.blocks import stored_bits
from precision.policy import Scheme
from precision.site import Op
from voice.model import AdaptableVoice, Clip
from voice.site_call import ConvOptions, SiteCall

BACKEND = "precision_search"
SCORE_STEPS = 8
"""Backward passes, each to another target drawn."""
FFTS = (512, 1024, 2048)
FLOOR = 1e-4
"""Of the strongest bin; under it a bin does not count: 80 dB, as in the gates."""
KINDS: Mapping[str, Op] = {"nn.Linear": "linear", "nn.Conv1d": "conv1d", "nn.ConvTranspose1d": "conv_transpose1d"}
"""Layers that are handed over."""
Round = Callable[[SiteCall, Scheme], Tensor]


@dataclass(frozen=True)
class Rounding:
    """What the target's multiplier reads of the operands of a layer."""

    weight: Round
    input: Round


def tensix_rounding(moments: Mapping[str, Moments] | None = None) -> Rounding:
    """Of Tenstorrent's cards, levers included where there are moments."""
    arithmetic = TensixArithmetic()

    def weight(call: SiteCall, scheme: Scheme) -> Tensor:
        stored = arithmetic.prepare(call, scheme, (moments or {}).get(call.site)).weight
        assert stored is not None
        return stored

    return Rounding(weight, read_input)


@dataclass(frozen=True)
class Solved:
    """What auto_quantize found."""

    solutions: tuple[Mapping[str, Scheme | None], ...]
    """Unit -> scheme of each solution, None where it is not quantized; from few bits to many, each once."""
    seconds: float
    """To score and to solve, for all budgets together."""


def auto_quantize(
    voice: AdaptableVoice,
    clips: Sequence[Clip],
    units: Mapping[str, Sequence[str]],
    formats: Mapping[str, Sequence[Scheme]],
    rounding: Rounding,
    *,
    bits: Sequence[float],
    bits_of: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Solved:
    """Score once, then solve for each budget of bits.

    The loss is a Gaussian likelihood of log spectra, with targets drawn around the model's own: that makes the squared
    gradient a Fisher score, for which the method is derived. (Towards its own render a model has no gradient.)

    Args:
        voice: is copied.
        clips: passes go over them in turn.
        units: name -> paths of the layers that must agree on a format.
        formats: of each unit, beside leaving it as it is.
        rounding: of the formats.
        bits: budgets, mean bits of a weight of those layers.
        bits_of: what a weight of each scheme counts, by its name; as many as are stored where it is not given.
        seed: of the targets.
    """
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.algorithms import AutoQuantizeGradientSearcher as Searcher
    from modelopt.torch.quantization.algorithms import _resolve_best_recipe

    begun = time.perf_counter()
    voice = deepcopy(voice)
    voice.module.requires_grad_(True)
    unit_of = {path: unit for unit, paths in units.items() for path in paths}
    layers = [path for path, layer in voice.module.named_modules() if isinstance(layer, nn.Linear | nn.Conv1d)]
    layers += [path for path, layer in voice.module.named_modules() if isinstance(layer, nn.ConvTranspose1d)]
    kinds: dict[tuple[Scheme, ...], list[str]] = {}
    for path in layers:
        if path in unit_of:
            kinds.setdefault(tuple(formats[unit_of[path]]), []).append(path)
    schemes = {scheme.name: scheme for allowed in kinds for scheme in allowed}
    rules = Searcher.quant_grouping_rules
    Searcher.quant_grouping_rules = [lambda _, name: unit_of.get(name)]
    try:
        names = {voice.module.get_submodule(path).weight.data_ptr(): path for path in unit_of}
        with _backend(rounding, schemes, names):
            _, state = mtq.auto_quantize(
                voice.module,
                constraints={"effective_bits": max(bits)},
                quantization_formats=[_format(scheme, bits_of) for allowed in kinds for scheme in allowed][:1],
                data_loader=_targets(voice, clips, seed),
                forward_step=lambda _, batch: voice.sound(batch[0]),
                loss_func=_loss,
                num_calib_steps=1,
                num_score_steps=SCORE_STEPS,
                disabled_layers=[path for path in layers if path not in unit_of],
                module_search_spaces=[
                    {
                        "module_name_patterns": paths,
                        "quantization_formats": [_format(scheme, bits_of) for scheme in allowed],
                    }
                    for allowed, paths in kinds.items()
                ],
            )
            found: dict[tuple[tuple[str, str], ...], None] = {}
            # Its mean is over all layers, those that it leaves as they are included.
            weights = {path: voice.module.get_submodule(path).weight.numel() for path in layers}
            share = sum(weights[path] for path in unit_of) / sum(weights.values())
            for budget in sorted(bits):
                best = _resolve_best_recipe(state, {"effective_bits": 16 - share * (16 - budget)})
                named = {path.removesuffix(".quant_recipe"): _scheme_of(recipe) for path, recipe in best.items()}
                solution = {unit_of[path]: scheme for path, scheme in named.items() if path in unit_of}
                found[tuple(sorted(solution.items()))] = None
    finally:
        Searcher.quant_grouping_rules = rules
    solutions = tuple({unit: schemes.get(name) for unit, name in solution} for solution in found)
    return Solved(solutions, time.perf_counter() - begun)


def _targets(voice: AdaptableVoice, clips: Sequence[Clip], seed: int) -> list[tuple[Clip, list[Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for clip in itertools.islice(itertools.cycle(clips), SCORE_STEPS):
        with torch.no_grad():
            spectra = _log_magnitudes(voice.sound(clip))
        drawn.append((clip, [values + torch.randn(values.shape, generator=generator) for values in spectra]))
    return drawn


def _loss(waveform: Tensor, batch: tuple[Clip, list[Tensor]]) -> Tensor:
    pairs = zip(_log_magnitudes(waveform), batch[1], strict=True)
    return torch.stack([(now - wanted).square().sum() for now, wanted in pairs]).sum()


def _log_magnitudes(waveform: Tensor) -> list[Tensor]:
    """Of several resolutions, nepers."""
    found = []
    for n_fft in FFTS:
        window = torch.hann_window(n_fft)
        power = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True).abs().square()
        found.append(0.5 * torch.log(power + power.detach().max() * FLOOR**2))
    return found


def _format(scheme: Scheme, bits_of: Mapping[str, float] | None) -> dict[str, Any]:
    """A scheme as a quantization format of ModelOpt."""
    parts = [
        {
            "quantizer_name": f"*{operand}_quantizer",
            "parent_class": kind,
            "cfg": {
                "num_bits": 8,
                "axis": None,
                "backend": BACKEND,
                "backend_extra_args": {"scheme": scheme.name, "operand": operand, "kind": kind},
            },
        }
        for kind in KINDS
        for operand in ("weight", "input")
    ]
    return {
        "quant_cfg": [{"quantizer_name": "*", "enable": False}, *parts],
        "algorithm": "max",
        "effective_bits": stored_bits(scheme.weight) if bits_of is None else bits_of[scheme.name],
    }


def _scheme_of(recipe: Any) -> str:
    """Name of the scheme of a recipe; empty where it quantizes nothing."""
    found = [entry["cfg"].backend_extra_args["scheme"] for entry in recipe.config.quant_cfg if entry.get("cfg")]
    return found[0] if found else ""


@contextmanager
def _backend(rounding: Rounding, schemes: Mapping[str, Scheme], names: Mapping[int, str]) -> Iterator[None]:
    """Within, ModelOpt's quantizers round as the target does; `names` are of layers by the address of their weight."""
    from modelopt.torch.quantization.nn.modules import tensor_quantizer

    def rounded(values: Tensor, quantizer: Any) -> Tensor:
        extra = quantizer.backend_extra_args
        op = KINDS[extra["kind"]]
        options = None if op == "linear" else ConvOptions((1,), (0,), (1,))
        call = SiteCall(
            names.get(values.data_ptr(), extra["kind"]), op, values, values, None, options, is_product=False, index=0
        )
        with torch.no_grad():
            found = (rounding.weight if extra["operand"] == "weight" else rounding.input)(
                call, schemes[extra["scheme"]]
            )
        return values + (found - values).detach()  # straight through, as its own quantizers are

    tensor_quantizer.register_quant_backend(BACKEND, rounded)
    try:
        silence = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):
            warnings.simplefilter("ignore")  # it warns of every custom format, and tells its progress
            yield
    finally:
        tensor_quantizer.unregister_quant_backend(BACKEND)
