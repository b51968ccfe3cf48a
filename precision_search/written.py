"""Written: an export's folder, from what was chosen to the last file, and what is said of it."""

import argparse
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backends.tenstorrent.engine import EngineError, pack
from backends.tenstorrent.export import write_manifest, write_program, write_sample, write_words
from backends.tenstorrent.host_traffic import round_trips
from backends.tenstorrent.manifest import results_of
from backends.tenstorrent.packed import PackingError
from backends.tenstorrent.readme import Facts
from backends.tenstorrent.simulate import Simulator
from backends.tenstorrent.tolerance import Tolerance, doubted
from backends.tenstorrent.tt_transformers import PrecisionCfgError, has_decoder, precision_cfg, remarks
from precision.shares import shares
from precision_search.commands import Answer, CommandError
from precision_search.lowering import CardChoice, choose, refuse_refused
from precision_search.new_folder import check_free, new_folder
from precision_search.plan_table import host_lines
from precision_search.programs import Made, make
from precision_search.progress import Progress
from precision_search.results import policy_text
from precision_search.selection import asked_of, chunk_ms_of, require_ttnn

PACKAGES = ("precision-search", "ttnn", "torch", "numpy")
PRECISION_CFG = "precision_cfg.json"


def export_study(parsed: argparse.Namespace, progress: Progress) -> Answer:
    """Write the folder that was asked for.

    Raises:
        CommandError, and what `choose` raises: nothing is written.
    """
    require_ttnn()
    chunk_ms = chunk_ms_of(parsed)
    check_free(parsed.out)
    chosen = choose(asked_of(parsed))
    refuse_refused(chosen)
    made = make(chosen, host=not parsed.no_host, chunk_ms=chunk_ms, progress=progress)
    with new_folder(parsed.out) as folder:
        data = write(made, folder, progress)
    data = {"folder": str(parsed.out), **data}
    return Answer(data, _text(data))


def write(made: Made, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write a whole export into an empty folder; give what is to be said of it.

    Raises:
        CommandError: ttnn has no call for a step, packs other bits than our packer, or an output tells nothing.
    """
    chosen, program = made.chosen, made.program
    facts = manifest_facts(made)
    progress.begin("packing weights by ttnn")
    try:
        compared = write_program(program, folder, pack, facts)
    except (ValueError, PackingError, EngineError) as error:
        raise CommandError(str(error)) from error
    steps = sum(len(results_of(step)) for step in program.steps) * len(made.runs)
    progress.begin("computing the expected output in exact arithmetic, operations", steps)
    expected = made.parts_by(Simulator(program, watch=lambda value, _: progress.step(value.name)).run)
    progress.begin("computing it with an erring vector unit, operations", steps)
    other = made.parts_by(doubted(program, progress.step).run)
    try:
        tolerances = {part: Tolerance.between(expected[part], other[part]) for part in program.outputs}
    except ValueError as error:
        raise CommandError(f"clip {chosen.clip.name}: {error}") from error
    write_manifest(program, folder, tolerances, facts)
    write_sample(folder, made.sample, expected)
    write_words(program, folder, _facts(made, tolerances, compared), policy_text(chosen.setting, chosen.policy))
    return {
        "card": program.card,
        "policy_digest": chosen.policy.digest,
        "clip_told": chosen.clip_told,
        "operations": len(program.steps),
        "weight_bytes": compared,
        "tolerances": {part: found.to_dict() for part, found in tolerances.items()},
        "host": [asdict(trip) for trip in round_trips(program)],
        "left_on_host": list(program.left_on_host),
        "precision_cfg": _write_precision_cfg(chosen, folder),
    }


def manifest_facts(made: Made) -> dict[str, Any]:
    """What the manifest says beside the program."""
    chosen = made.chosen
    facts: dict[str, Any] = {
        "model": chosen.setting.voice.name,
        "policy_digest": chosen.policy.digest,
        "clip": chosen.clip.name,
        "sample_rate_hz": chosen.setting.voice.sample_rate_hz,
    }
    if made.stream is not None:
        facts["stream"] = dict(made.stream.facts)
    return facts


def _facts(made: Made, tolerances: dict[str, Tolerance], compared: int) -> Facts:
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
        card_title=setting.device.title,
        policy=chosen.policy_source,
        policy_digest=policy.digest,
        scheme_shares=chosen.mac_shares({site: scheme.name for site, scheme in made.policy.schemes}),
        lofi_mac_share=part.lofi_macs,
        bfp8_weight_share=part.bfp8_weights,
        sites=len(policy),
        clip=chosen.clip.name,
        clip_seconds=chosen.clip.seconds,
        tolerances=tolerances,
        weight_bytes=compared,
        versions={name: version(name) for name in PACKAGES},
        program_sites=len(made.policy),
        stream=manifest_facts(made).get("stream"),
    )


def _write_precision_cfg(chosen: CardChoice, folder: Path) -> dict[str, Any] | None:
    """The JSON of tt_transformers beside, for a model with such layers; what it cannot say is told, not written."""
    if not has_decoder(chosen.policy):
        return None
    try:
        text = json.dumps(precision_cfg(chosen.policy), indent=1)
    except PrecisionCfgError as error:
        return {"file": None, "why": str(error)}
    (folder / PRECISION_CFG).write_text(text + "\n", encoding="utf-8")
    return {"file": PRECISION_CFG, "remarks": list(remarks(chosen.policy))}


def _text(data: dict[str, Any]) -> str:
    lines = [
        f"{data['folder']}: {data['operations']} operations for {data['card']}, policy {data['policy_digest']}",
        f"  the sample is {data['clip_told']}",
        f"  {data['weight_bytes']} bytes of weights packed by ttnn, each held against our own packer's: the same",
    ]
    for part, found in data["tolerances"].items():
        lines.append(
            f"  {part}: of a card, an SNR of {found['snr_db']:.1f} dB or more against the expected output, and no value"
            f" off by more than {found['max_abs']:.3g}"
        )
    lines += host_lines(data)
    cfg = data["precision_cfg"]
    if cfg is not None:
        lines += [f"  {PRECISION_CFG} for tt_transformers: " + ("written" if cfg["file"] else cfg["why"])]
        lines += [f"    {remark}" for remark in cfg.get("remarks", ())]
    lines.append(f"  next: cd {data['folder']} && python run.py --plan")
    return "\n".join(lines)
