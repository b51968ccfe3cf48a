"""Written for Hopper: an export's folder of ONNX, or ModelOpt's configuration, and what is said of it."""

import argparse
import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from backends.hopper.built import HopperBuilt
from backends.hopper.emulated import ON_CPU, Doubt, Emulated
from backends.hopper.export import write_export
from backends.hopper.lower import LoweringError
from backends.hopper.manifest import Told
from backends.hopper.modelopt import write_quant_cfg
from backends.hopper.readme import Facts
from backends.hopper.support import FP8
from backends.hopper.tolerance import bounded
from backends.tolerance import snr_db
from precision.shares import shares
from precision_search.commands import Answer, CommandError
from precision_search.lowering import choose_hopper, refuse_refused
from precision_search.models import Model, make
from precision_search.new_folder import check_free, new_folder
from precision_search.progress import Progress
from precision_search.results import policy_text
from precision_search.selection import asked_of, chunk_ms_of
from precision_search.slow_fp8 import slower_in_fp8

PACKAGES = ("precision-search", "torch", "onnx", "onnxscript", "numpy")
QUANT_CFG = "quant_cfg.json"


def export_onnx(parsed: argparse.Namespace, progress: Progress) -> Answer:
    """Write the folder that was asked for.

    Raises:
        CommandError, and what `choose_hopper` raises: nothing is written.
    """
    chunk_ms = chunk_ms_of(parsed)
    check_free(parsed.out)
    if parsed.to == "modelopt":
        return _export_quant_cfg(parsed)
    chosen = choose_hopper(asked_of(parsed))
    refuse_refused(chosen)
    made = make(chosen, any_shape=not parsed.fixed, chunk_ms=chunk_ms, ranges=parsed.ranges, progress=progress)
    with new_folder(parsed.out) as folder:
        data = write(made, folder, progress)
    data = {"folder": str(parsed.out), **data}
    return Answer(data, _text(data))


def write(made: Model, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write a whole export into an empty folder; give what is to be said of it.

    Raises:
        CommandError: what the target cannot have cannot be parted off, or an output tells nothing.
    """
    chosen, lowered = made.chosen, made.lowered
    sites = sum(placed.calls for placed in lowered.placed.values()) * len(made.runs)

    def compute(doubt: Doubt | None, seed: int) -> dict[str, Any]:
        how = "as emulated" if doubt is None else f"as a {'CPU' if doubt == ON_CPU else 'card'} may, {seed + 1}"
        progress.begin(f"computing the sample {how}, calls of sites", sites)
        emulated = Emulated(made.graph, lowered.policy, made.measured, doubt, seed, progress.step)
        return made.parts_by(emulated.run)

    try:
        expected, bounds = bounded(compute)
    except ValueError as error:
        raise CommandError(f"clip {chosen.clip.name}: {error}") from error
    seen = _on_cpu(made, expected, progress)
    setting = chosen.setting
    measured = slower_in_fp8(setting.recipe, setting.device, setting.sites)
    # Of a stream the model has some sites alone.
    schemes = dict(lowered.policy.schemes)
    slow = {site: why for site, why in measured.items() if site in schemes and schemes[site].activation in FP8}
    progress.begin("writing the folder")
    try:
        write_export(
            lowered,
            folder,
            facts=_facts(made, seen),
            policy_text=policy_text(chosen.setting, chosen.policy),
            calibration=made.measured.calibration,
            inputs={name: values.numpy() for name, values in made.given.items()},
            expected=expected,
            bounds=bounds,
            told=Told(limits=made.limits, notes=slow, noise=made.noise),
        )
    except LoweringError as error:
        raise CommandError(f"{chosen.setting.voice.name}: {error}") from error
    return {
        "target": chosen.target,
        "route": chosen.route,
        "policy_digest": chosen.policy.digest,
        "clip_told": chosen.clip_told,
        "sites": len(lowered.placed),
        "fp8_sites": sum(scheme.activation in FP8 for scheme in lowered.policy.values()),
        "quantize": sum(placed.quantize for placed in lowered.placed.values()),
        "dequantize": sum(placed.dequantize for placed in lowered.placed.values()),
        "model_bytes": lowered.model.ByteSize(),
        "lengths": {name: [held.least, held.usual, held.most] for name, held in made.limits.items()},
        "fixed": made.fixed,
        "slower_in_fp8": slow,
        "tolerances": {part: found.to_dict() for part, found in bounds.items()},
        "cpu_snr_db": None if seen is None else {part: snr if isfinite(snr) else None for part, snr in seen.items()},
    }


def _facts(made: Model, seen: Mapping[str, float] | None) -> Facts:
    chosen = made.chosen
    setting, policy = chosen.setting, chosen.policy
    part = shares(
        setting.sites,
        policy,
        macs_per_second=setting.discovery.total_macs_per_second,
        parameters=setting.parameters,
    )
    return Facts(
        model=setting.voice.name,
        policy=chosen.policy_source,
        policy_digest=policy.digest,
        scheme_shares=chosen.mac_shares({site: scheme.name for site, scheme in made.lowered.policy.schemes}),
        fp8_mac_share=part.fp8_macs,
        sites=len(policy),
        clip=chosen.clip.name,
        clip_seconds=chosen.clip.seconds,
        versions={name: version(name) for name in PACKAGES},
        sample_rate_hz=setting.voice.sample_rate_hz,
        stream=None if made.stream is None else dict(made.stream.facts),
        seen_on_cpu=seen,
    )


def _on_cpu(made: Model, expected: Mapping[str, Any], progress: Progress) -> dict[str, float] | None:
    """SNR in dB of the sample by ONNX Runtime on this CPU, by part; None where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    progress.begin("running the sample by ONNX Runtime")
    computed = HopperBuilt(made.lowered).compute(made.runs)
    found = made.parts_by(lambda _: next(computed))
    return {part: snr_db(values, found[part]) for part, values in expected.items()}


def _export_quant_cfg(parsed: argparse.Namespace) -> Answer:
    """ModelOpt's configuration alone: what it quantizes is the torch model itself."""
    chosen = choose_hopper(asked_of(parsed))
    with new_folder(parsed.out) as folder:
        try:
            write_quant_cfg(folder / QUANT_CFG, chosen.policy, chosen.setting.sites)
        except ValueError as error:
            raise CommandError(f"{chosen.policy_source}: {error}") from error
        (folder / "policy.yaml").write_text(policy_text(chosen.setting, chosen.policy), encoding="utf-8")
    fp8 = [site for site, scheme in chosen.policy.schemes if scheme.weight in FP8]
    data = {"folder": str(parsed.out), "file": QUANT_CFG, "policy_digest": chosen.policy.digest, "fp8_sites": len(fp8)}
    text = [
        f"{parsed.out}: {QUANT_CFG} for mtq.quantize, policy {chosen.policy.digest}: {len(fp8)} of"
        f" {len(chosen.policy)} sites in FP8",
        "  sites in bf16, fp16 and fp32 are not in it: they compute in the type that the module has",
        f"  next: cfg = json.load(open('{parsed.out / QUANT_CFG}')); mtq.quantize(model, cfg, forward_loop)",
    ]
    return Answer(data, "\n".join(text))


def _text(data: dict[str, Any]) -> str:
    lines = [
        f"{data['folder']}: {data['sites']} sites for {data['target']}, {data['fp8_sites']} of them reading FP8, policy"
        f" {data['policy_digest']}",
        f"  model.onnx: {data['model_bytes']} bytes, {data['quantize']} QuantizeLinear and {data['dequantize']}"
        " DequantizeLinear, each at a site of the policy",
        f"  the sample is {data['clip_told']}",
    ]
    for name, (least, usual, most) in data["lengths"].items():
        lines.append(f"  {name}: {least} to {most}, {usual} in the sample")
    if data["fixed"] is not None:
        lines.append("  shapes are those of the clip: " + data["fixed"].replace("\n", "\n    "))
    seen = data["cpu_snr_db"]
    for part, found in data["tolerances"].items():
        lines.append(
            f"  {part}: of a card, an SNR of {found['card']['snr_db']:.1f} dB or more against the expected output; of a"
            f" CPU {found['cpu']['snr_db']:.1f} dB" + ("" if seen is None else f", {_told(seen[part])} here")
        )
    if data["slower_in_fp8"]:
        lines.append(f"  {len(data['slower_in_fp8'])} sites were measured slower in FP8 than in bf16, the first:")
        site, why = next(iter(data["slower_in_fp8"].items()))
        lines.append(f"    {site}: {why}; program.json has all")
    lines.append(f"  next: cd {data['folder']} && python run.py --check")
    return "\n".join(lines)


def _told(snr: float | None) -> str:
    return "no difference" if snr is None else f"{snr:.1f} dB"
