"""NVIDIA ModelOpt as a partner: a policy as its quant_cfg, and what it calibrated as our scales.

The only import of modelopt. Its ONNX exporter is not used. It needs no CUDA and stores weights in FP8; but it quantizes
the weight of every Conv, whatever the config says, refuses scales per channel of linear layers and drops those of
convolutions, has no bf16 beside FP8, and fp16 only for the whole graph (seen with modelopt 0.47.0:
`get_onnx_bytes_and_metadata`, `FP8QuantExporter`).

Its rounding differs from ours by the scale: it multiplies by 448 / amax where we divide by amax / 448, as
QuantizeLinear does. Codes are the same where that is a power of two; elsewhere a value that lies between two codes to
within rounding may go to the other one (3 of 13 million normal values did). It takes an amax below 2**-24 for zero.
"""

import glob
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backends.base import BuildError
from backends.hopper.support import FP8, WIDE
from calibrate.calibration import Calibration, Method
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.checkpoint import load_state_dict

_INPUT = ".input_quantizer"
_AMAX = f"{_INPUT}._amax"
_E4M3 = (4, 3)


def quant_cfg(policy: Policy, sites: Sequence[Site]) -> dict[str, Any]:
    """Say a policy in ModelOpt's words: FP8 at exactly its FP8 sites, by module path; all else is switched off.

    What a wide site computes in, ModelOpt does not say: it is the type of the module's weights. Quantizers are named by
    whole paths, so the config fits the module in which the sites were found and not one that wraps it; `check` tells.

    Args:
        policy: FP8 is `fp8_e4m3`; weights have a scale a channel or one, activations a calibrated scale or one of each
            tensor, as each scheme says. A weight in FP8 beside a wide activation is quantized alone.
        sites: of the model; there may be more than the policy has.

    Returns:
        A dict of plain lists, strings and numbers that `mtq.quantize(module, config, forward_loop)` takes.

    Raises:
        BuildError: naming every site whose scheme ModelOpt cannot be told, with the reason.
    """
    known = {site.name: site for site in sites}
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    refused = []
    for name, scheme in policy.schemes:
        reason = _refuses(known.get(name), scheme)
        if reason is not None:
            refused.append(f"site {name!r}: {reason}")
        else:
            entries += _entries(known[name], scheme)
    if refused:
        raise BuildError("\n".join(["ModelOpt cannot be told this policy:", *refused]))
    return {"quant_cfg": entries, "algorithm": "max"}


def write_quant_cfg(path: Path | str, policy: Policy, sites: Sequence[Site]) -> None:
    """Write `quant_cfg` as JSON.

    To be used as it is::

        config = json.loads(Path("quant_cfg.json").read_text())
        module = mtq.quantize(module, config, forward_loop)

    Raises:
        BuildError: as `quant_cfg` does.
    """
    Path(path).write_text(json.dumps(quant_cfg(policy, sites), indent=1) + "\n")


def check(model: nn.Module, policy: Policy, sites: Sequence[Site]) -> None:
    """Compare the quantizers of a module that ModelOpt quantized with a policy.

    Raises:
        BuildError: naming every quantizer that is on, off or set otherwise than the policy says. Where one name fits,
            ModelOpt passes over those that do not (a layer that it has no quantizer for) without a word.
        ImportError: ModelOpt is not installed.
    """
    wanted = {entry["quantizer_name"]: entry["cfg"] for entry in quant_cfg(policy, sites)["quant_cfg"][1:]}
    found = {glob.escape(name): _settings(quantizer) for name, quantizer in _quantizers(model) if quantizer.is_enabled}
    wrong = [f"{name}: not there, or off" for name in wanted if name not in found]
    wrong += [f"{name}: on, and the policy has no FP8 there" for name in found if name not in wanted]
    wrong += [
        f"{name}: must be {wanted[name]}, is {settings}"
        for name, settings in found.items()
        if name in wanted and settings != wanted[name]
    ]
    if wrong:
        raise BuildError(
            "\n".join(["the module is not quantized as the policy says; quantize the sites' own module:", *wrong])
        )


def calibration_of(model: nn.Module, method: Method = "amax") -> Calibration:
    """Read the ranges of activations that ModelOpt calibrated, by site.

    Args:
        model: quantized by `mtq.quantize`, with its forward loop; sites are named by its module paths.
        method: how they were calibrated; ModelOpt's `max` is amax.

    Raises:
        ValueError: naming every input quantizer whose range is of channels or blocks, not finite, or of inputs that
            were smoothed first; or there is no calibrated quantizer at all.
        ImportError: ModelOpt is not installed.
    """
    ranges = {
        name.removesuffix(_INPUT): quantizer.amax
        for name, quantizer in _quantizers(model)
        if name.endswith(_INPUT) and quantizer.is_enabled and quantizer.amax is not None
    }
    smoothed = {
        name.removesuffix(_INPUT)
        for name, quantizer in _quantizers(model)
        if name.endswith(_INPUT) and quantizer.is_enabled and quantizer.pre_quant_scale is not None
    }
    return _calibration(ranges, smoothed, method, "the module")


def calibration_from(path: Path | str, method: Method = "amax") -> Calibration:
    """Read the same from a file: `torch.save(model.state_dict())`, `mto.save(model)` or safetensors.

    Nothing in the file is executed, and ModelOpt is not needed.

    Raises:
        CheckpointError: the file cannot be read so.
        ValueError: as `calibration_of` does.
    """
    state = load_state_dict(path)
    ranges = {name.removesuffix(_AMAX): amax for name, amax in state.items() if name.endswith(_AMAX)}
    smoothed = {name for name in ranges if f"{name}{_INPUT}._pre_quant_scale" in state}
    return _calibration(ranges, smoothed, method, str(path))


def _refuses(site: Site | None, scheme: Scheme) -> str | None:
    if site is None:
        return "the model has no such site; give the sites that the policy was made for"
    formats = (scheme.weight, scheme.activation) if site.weight_shape else (scheme.activation,)
    for fmt in formats:
        if fmt not in FP8 and fmt not in WIDE:
            return f"format {fmt} is not said here; use fp8_e4m3 or a wide format"
    if scheme.adapted is not None:
        return "its weights were trained for the policy, and a config carries none; export the study's weights instead"
    if not set(formats) & set(FP8):
        return None
    if "fp8_e5m2" in formats:
        return "ModelOpt takes E5M2 only in blocks with dynamic scales; use fp8_e4m3"
    if not site.weight_shape:
        return "ModelOpt quantizes the inputs of layers, and this is a product of two activations; use a wide format"
    if "#" in site.name:
        return "ModelOpt quantizes whole layers, and this weight is a part of one or used otherwise; use a wide format"
    if scheme.weight in FP8 and _axis(site, scheme) is not None and site.op == "conv_transpose1d" and site.groups > 1:
        return "ModelOpt has no axis for the channels of a grouped transposed convolution; use weight_scale tensor"
    return None


def _entries(site: Site, scheme: Scheme) -> Iterator[dict[str, Any]]:
    path = glob.escape(site.name)
    if scheme.weight in FP8 and site.weight_shape:
        yield {"quantizer_name": f"{path}.weight_quantizer", "cfg": _cfg(_axis(site, scheme), "static")}
    if scheme.activation in FP8:
        yield {"quantizer_name": f"{path}{_INPUT}", "cfg": _cfg(None, scheme.activation_scale)}


def _cfg(axis: int | None, kind: str) -> dict[str, Any]:
    return {"num_bits": list(_E4M3), "axis": axis, "type": kind}


def _axis(site: Site, scheme: Scheme) -> int | None:
    """Axis of the output channels, where each has its scale."""
    return None if scheme.weight_scale == "tensor" else int(site.op == "conv_transpose1d")


def _settings(quantizer: Any) -> dict[str, Any]:
    kind = "dynamic" if quantizer._dynamic else "static"
    bits = list(quantizer.num_bits) if isinstance(quantizer.num_bits, tuple) else quantizer.num_bits
    return {"num_bits": bits, "axis": quantizer.axis, "type": kind}


def _calibration(ranges: dict[str, Tensor], smoothed: set[str], method: Method, where: str) -> Calibration:
    if not ranges:
        raise ValueError(f"{where} has no calibrated input quantizer; quantize with quant_cfg and a forward loop first")
    wrong = [
        f"site {name!r}: {reason}"
        for name, amax in ranges.items()
        if (reason := _unusable(amax, name in smoothed)) is not None
    ]
    if wrong:
        raise ValueError("\n".join([f"ranges of {where} cannot be used:", *wrong]))
    return Calibration.of(method, {name: {"input": float(amax)} for name, amax in ranges.items()})


def _unusable(amax: Tensor, smoothed: bool) -> str | None:
    if amax.numel() != 1:
        return f"its input has {amax.numel()} ranges; calibrate with one a tensor (axis None)"
    if not (math.isfinite(float(amax)) and float(amax) >= 0):
        return f"its range is {float(amax)}; calibrate on clips that the model survives"
    if smoothed:
        return "its input was scaled by channel first (AWQ, SmoothQuant); calibrate with algorithm max"
    return None


def _quantizers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    kind = _tensor_quantizer()
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kind))


def _tensor_quantizer() -> type[nn.Module]:
    with warnings.catch_warnings():
        # modelopt 0.47.0 is compiled by torch.jit.script as it is imported, which torch 2.13 advises against.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", DeprecationWarning)
        try:
            from modelopt.torch.quantization.nn import TensorQuantizer
        except ImportError as error:
            raise ImportError(
                f"ModelOpt is needed to look at its quantizers, and cannot be imported ({error});"
                " pip install 'precision-search[hopper]'"
            ) from error
    kind: type[nn.Module] = TensorQuantizer
    return kind
