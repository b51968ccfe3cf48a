"""Planned: what the library makes of a policy's program, held against the policy."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backends.tenstorrent.engine import EngineError, pack, plan
from backends.tenstorrent.export import write_program
from backends.tenstorrent.host_traffic import round_trips
from backends.tenstorrent.packed import PackingError
from backends.tenstorrent.planning import PRODUCTS, Plan, PlannedOp, mismatches
from backends.tenstorrent.program import Program
from precision_search.commands import Answer, CommandError
from precision_search.lowering import choose, refuse_refused
from precision_search.plan_table import plan_table
from precision_search.programs import Made, make
from precision_search.progress import Progress
from precision_search.selection import asked_of, chunk_ms_of, require_ttnn
from precision_search.written import manifest_facts


def plan_study(parsed: argparse.Namespace, progress: Progress) -> Answer:
    """Plan what was asked for.

    Raises:
        CommandError, and what `choose` raises: bad input, a policy that the card refuses among it.
    """
    require_ttnn()
    chunk_ms = chunk_ms_of(parsed)
    chosen = choose(asked_of(parsed))
    refuse_refused(chosen)
    made = make(chosen, host=not parsed.no_host, chunk_ms=chunk_ms, progress=progress)
    data = plan_data(made, plan_program(made, progress))
    return Answer(data, plan_table(data, sites_only=parsed.sites_only))


def plan_program(made: Made, progress: Progress) -> Plan:
    """Have ttnn plan a program, by way of a folder that is gone afterwards.

    Raises:
        CommandError: ttnn has no call for a step, packs other bits than our packer, or a card is there.
    """
    try:
        with TemporaryDirectory(prefix="precision-search-plan-") as name:
            folder = Path(name)
            progress.begin("packing weights by ttnn")
            write_program(made.program, folder, pack, manifest_facts(made))
            progress.begin(f"planning {len(made.program.steps)} operations on a mock {made.program.card}")
            return plan(folder)
    except (ValueError, PackingError, EngineError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error}; a plan writes the program into a temporary folder first (TMPDIR)") from error


def plan_data(made: Made, planned: Plan) -> dict[str, Any]:
    """All that is known of a planned program, as JSON can hold it."""
    chosen, program = made.chosen, made.program
    policy = made.policy
    refusals = [
        {
            "index": step.index,
            "op": step.op,
            "site": step.site,
            "source": step.source,
            "message": " ".join(step.refused.split()),
        }
        for step in planned.refusals
        if step.refused is not None
    ]
    refused = {found["index"] for found in refusals}
    apart = [line for line in mismatches(planned, policy) if not any(f"(step {at}," in line for at in refused)]
    return {
        "model": chosen.setting.voice.name,
        "card": chosen.card.name,
        "card_title": chosen.setting.device.title,
        "policy": chosen.policy_source,
        "policy_digest": chosen.policy.digest,
        "clip": chosen.clip.name,
        "clip_seconds": chosen.clip.seconds,
        "clip_told": chosen.clip_told,
        "chunk_ms": None if made.stream is None else made.stream.facts["chunk_ms"],
        "sites": len(policy),
        "verdict": "broken" if refusals or apart else "kept",
        "steps": [_row(step, program) for step in planned.steps],
        "totals": _totals(made, planned),
        "host": [asdict(trip) for trip in round_trips(program)],
        "left_on_host": list(program.left_on_host),
        "refusals": refusals,
        "mismatches": apart,
    }


def _row(step: PlannedOp, program: Program) -> dict[str, Any]:
    """What a line of the table shows of a step."""
    taken = [held.dtype for held in step.inputs if held.place == "card"] or [held.dtype for held in step.inputs]
    product = step.op in PRODUCTS and step.site is not None
    weighted = product and step.op != "matmul" and len(step.operands) > 1
    return {
        "index": step.index,
        "op": step.op,
        "call": step.call,
        "site": step.site if product else None,
        "source": step.source,
        "in": taken[:1] if weighted else taken,
        "out": None if step.output is None else step.output.dtype,
        "shape": None if step.output is None else list(step.output.shape),
        "weight": step.operands[1] if weighted else None,
        "fidelity": None if step.compute is None else step.compute.fidelity,
        "accumulate": None if step.compute is None else "fp32" if step.compute.fp32_accumulation else "bf16",
        "device_ops": list(step.device_ops),
        "l1_bytes_per_core": step.l1_bytes_per_core,
        "dram_bytes": step.dram_bytes,
        "refused": step.refused is not None,
    }


def _totals(made: Made, planned: Plan) -> dict[str, Any]:
    chosen, steps = made.chosen, planned.steps
    named = {site: scheme.fidelity or "-" for site, scheme in made.policy.schemes}
    fullest = max(steps, key=lambda step: step.l1_bytes_per_core)
    return {
        "operations": len(steps),
        "device_operations": sum(len(step.device_ops) for step in steps),
        "typecasts": _count(steps, "typecast"),
        "host_round_trips": sum(trip.stops_the_card for trip in round_trips(made.program)),
        "mac_share_by_fidelity": chosen.mac_shares(named),
        "l1_bytes_per_core": planned.l1_bytes_per_core,
        "l1_peak_bytes_per_core": fullest.l1_bytes_per_core,
        "l1_peak_at": fullest.index,
        "dram_peak_bytes": max(step.dram_bytes for step in steps),
        "weight_bytes": planned.weights_dram_bytes,
        "grid": list(planned.grid),
    }


def _count(steps: Sequence[PlannedOp], op: str) -> int:
    return sum(step.op == op for step in steps)
