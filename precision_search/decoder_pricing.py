"""Decoder pricing: first sound, frame time and streams of a decoder, beside what others report of one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from backends import decoder_pass, decoding, speculation
from backends.decoder_pass import FRAME_SECONDS, DecoderCost
from backends.decoder_workload import DecoderWorkload
from backends.decoding import FirstSound, Load, first_sound, served, streams_of
from backends.devices import Case, Device
from backends.gemm_tables import SOURCE, GemmTable
from backends.money import compare
from backends.serving import MEMORY_SHARE
from backends.speculation import Speculation, draft_config
from precision.policy import Policy, Scheme
from precision_search.cards import cards_of
from precision_search.commands import CommandError
from precision_search.costing import accounting_of, money_blocks
from precision_search.decoder_table import decoder_lines
from precision_search.money_table import money_lines
from precision_search.setting import Setting
from voice.decoder import SpeechDecoder
from voice.decoder_sites import on_paper, step_discovery

CASES: tuple[Case, ...] = get_args(Case)
Triple = dict[str, float]
"""A figure by case: low, middle and high."""
Costs = Mapping[Case, DecoderCost]


@dataclass(frozen=True, slots=True)
class Reported:
    """What the authors of a model say of it."""

    source: str
    parts_ms: Mapping[str, float]
    """Of the first sound, in order."""
    streams: int
    batch: int
    """Streams of one pass."""

    @property
    def first_ms(self) -> float:
        """All of its parts."""
        return sum(self.parts_ms.values())


REPORTED: Mapping[str, Reported] = {
    "blvoice_7b": Reported(
        "BL-Voice-1 by its authors' account: H100, TensorRT-LLM, FP8, batch 32",
        {"first token": 62.0, "reasoning": 41.0, "first frame": 34.0},
        streams=312,
        batch=32,
    )
}


def price(
    setting: Setting, module: SpeechDecoder, baseline: Policy, cheapest: Policy
) -> tuple[dict[str, Any], list[str]]:
    """Data and lines of a decoder, the first of them the heading.

    Raises:
        CommandError: the recipe's draft is none.
    """
    recipe = setting.recipe
    against = cards_of(recipe)[recipe.cost.against.device]
    uniform = Policy.uniform([site.name for site in setting.sites], recipe.cost_scheme)
    sites = step_discovery(on_paper(module.config)).sites

    def costs_of(device: Device, policy: Policy) -> Costs:
        schemes = dict(policy.schemes)
        return {case: DecoderCost(device, module.config, sites, schemes, setting.parameters, case) for case in CASES}

    columns = {
        "baseline": (f"{recipe.baseline.name} everywhere", costs_of(setting.device, baseline)),
        "cheapest": ("cheapest allowed", costs_of(setting.device, cheapest)),
        "against": (f"{recipe.cost_scheme.name} everywhere", costs_of(against, uniform)),
    }
    load = Load(recipe.decoding.context_rows, recipe.cost.utilization)
    theirs = served(columns["against"][1], recipe.cost_scheme.name, load)
    priced, money = {}, {}
    workload = DecoderWorkload(module.config, sites, setting.parameters, load)
    for key, (title, costs) in columns.items():
        found = compare(served(costs, title, load), theirs, accounting_of(recipe))
        priced[key] = _column(setting, title, costs, load) | {
            "usd_per_stream": found.candidate.usd_per_stream.to_dict(),
            "usd_per_1000_hours": found.candidate.usd_per_1000_hours.to_dict(),
            "ratio": found.ratio.to_dict(),
        }
        if key == "cheapest":
            money = found.results() | money_blocks(setting, cheapest, found, workload)
    costs, config = columns["cheapest"][1], module.config
    middle = costs["middle"]
    reported = REPORTED.get(setting.voice.name)
    data = {
        "kind": "decoder",
        "title": f"{recipe.name}: {setting.voice.name} on {setting.device.title}",
        "parameters": setting.parameters,
        "on_paper": next(module.parameters()).is_meta,
        "weight_macs_a_row": middle.weight_macs,
        "attention_macs_a_context_row": 2 * config.layers * config.heads * config.head_size,
        "covered_mac_share": setting.discovery.covered_share,
        "layout": {"heads": config.heads, "kv_heads": config.kv_heads, "max_rows": config.max_rows}
        | {"layers": config.layers, "width": config.width, "delay": config.delay, "sites": len(setting.sites)},
        "load": {"context_rows": load.context, "prompt_rows": recipe.decoding.prompt_rows}
        | {"utilization": load.utilization, "streams": recipe.cost.streams, "frame_ms": 1e3 * FRAME_SECONDS},
        "columns": priced,
        "money": money,
        "reported": None if reported is None else _beside(setting, costs, load, reported),
        "changes": [] if reported is None else list(_changes(costs, load, reported, recipe.baseline)),
        "speculation": _speculation(setting, module, costs, load),
        "assumptions": [*decoding.ASSUMPTIONS, *decoder_pass.ASSUMPTIONS, *speculation.ASSUMPTIONS],
        "sources": _sources(setting.device, against),
    }
    return data, [*decoder_lines(data), "", *money_lines(money)]


def _by_case(costs: Costs, figure: Callable[[DecoderCost], float]) -> Triple:
    return {case: figure(cost) for case, cost in costs.items()}


def _column(setting: Setting, title: str, costs: Costs, load: Load) -> dict[str, Any]:
    batch, middle = setting.recipe.cost.streams, costs["middle"]
    fixed = replace(load, batch=batch)
    first = {
        str(count): {case: _parts_ms(_first(setting, cost, count, load)) for case, cost in costs.items()}
        for count in dict.fromkeys((1, batch))
    }
    passes = {
        str(count): _by_case(costs, lambda cost, count=count: 1e3 * cost.pass_cost(count, load.context).seconds)  # type: ignore[misc]
        for count in dict.fromkeys((1, batch))
    }
    found = {case: streams_of(cost, load) for case, cost in costs.items()}
    return {
        "title": title,
        "device": middle.device.name,
        "weight_gb": middle.weight_bytes / 1e9,
        "row_kib": middle.row_bytes / 1024,
        "stream_mb": found["middle"].stream_bytes / 1e6,
        "pass_ms": passes,
        "pass_parts_ms": _pass_parts(middle, batch, load.context),
        "first_sound_ms": first,
        "streams": {case: one.streams for case, one in found.items()},
        "limited_by": found["middle"].limited_by,
        "frame_ms": {case: 1e3 * one.pass_cost.seconds for case, one in found.items()},
        "busy": {case: one.utilization for case, one in found.items()},
        "streams_in_batches": _by_case(costs, lambda cost: streams_of(cost, fixed).streams),
    }


def _first(setting: Setting, cost: DecoderCost, streams: int, load: Load) -> FirstSound:
    return first_sound(cost, setting.recipe.decoding.prompt_rows, streams, load.context)


def _parts_ms(found: FirstSound) -> dict[str, float]:
    parts = {"frame": found.frame, "prefill": found.prefill, "passes": found.passes, "codec": found.codec}
    return {name: 1e3 * value for name, value in (parts | {"all": found.seconds}).items()}


def _pass_parts(cost: DecoderCost, streams: int, context: int) -> dict[str, float]:
    took = cost.pass_cost(streams, context)
    return {name: 1e3 * getattr(took, name) for name in ("layers", "attention", "heads", "between", "codec")}


def _changes(costs: Costs, load: Load, reported: Reported, wide: Scheme) -> Iterator[dict[str, Any]]:
    """Streams with one assumption after another replaced, the others as they were."""
    config = costs["middle"].config
    tokens = 1 + config.codec.codebooks

    def in_wide(only_cache: bool) -> Costs:
        return {
            case: replace(
                cost,
                policy={
                    site.name: wide if not (only_cache and site.weight_elements) else cost.policy[site.name]
                    for site in cost.sites
                },
            )
            for case, cost in costs.items()
        }

    batched = replace(load, batch=reported.batch)
    changed: list[tuple[str, Costs, Load]] = [
        (f"as priced: one pass of as many as fit, {load.context} rows each", costs, load),
        (f"passes of {reported.batch}, as they report", costs, batched),
        (f"passes of {reported.batch}, the card always busy", costs, replace(batched, utilization=1.0)),
        (f"every stream reserves {config.max_rows} rows of memory", costs, replace(load, held=config.max_rows)),
        (f"keys and values in {wide.name}", in_wide(True), load),
        (f"{wide.name} everywhere", in_wide(False), load),
        (f"the {tokens} tokens of a frame in a line, a pass and a row each", costs, replace(load, passes_a_row=tokens)),
    ]
    for what, priced, asked in changed:
        found = {case: streams_of(cost, asked) for case, cost in priced.items()}
        streams = {case: one.streams for case, one in found.items()}
        yield {"what": what, "streams": streams, "limited_by": found["middle"].limited_by}


def _beside(setting: Setting, costs: Costs, load: Load, reported: Reported) -> dict[str, Any]:
    """What the reported figures would be in the model of this, each solved for alone."""
    count, batch = reported.streams, reported.batch
    passes = -(-count // batch)
    middle = costs["middle"]
    fixed = middle.weight_bytes + middle.live_bytes(batch)
    room = MEMORY_SHARE * middle.device.memory_gb.value * 1e9 - fixed
    held = (room / count - decoding.state_bytes(middle.config)) / middle.row_bytes
    step_ms = _by_case(costs, lambda cost: 1e3 * cost.pass_cost(batch, load.context).seconds)
    return {
        "source": reported.source,
        "first_ms": reported.first_ms,
        "parts_ms": dict(reported.parts_ms),
        "streams": count,
        "batch": batch,
        "passes_a_frame": passes,
        "busy_in_batches": {case: passes * took / (1e3 * FRAME_SECONDS) for case, took in step_ms.items()},
        "pass_ms": step_ms,
        "streams_in_batches": _by_case(costs, lambda cost: streams_of(cost, replace(load, batch=batch)).streams),
        "rows_in_memory": held,
        "one_pass_ms": _by_case(costs, lambda cost: 1e3 * cost.pass_cost(count, load.context).seconds),
        "first_ms_in_one_pass": _by_case(costs, lambda cost: 1e3 * _first(setting, cost, count, load).seconds),
        "parts_in_passes": {
            name: {case: value / step_ms[case] for case in CASES} for name, value in reported.parts_ms.items()
        },
        "prompt_rows_of_first_token": {
            case: _prompt_of(cost, 1e-3 * reported.parts_ms["first token"]) for case, cost in costs.items()
        },
    }


def _prompt_of(cost: DecoderCost, seconds: float) -> int:
    """Rows of a prompt that are read in so many seconds."""
    low, high = 0, 1 << 16
    while high - low > 1:
        rows = (low + high) // 2
        fits = cost.pass_cost(1, rows, rows=rows, answers=1).transformer <= seconds
        low, high = (rows, high) if fits else (low, rows)
    return low


def _speculation(setting: Setting, module: SpeechDecoder, costs: Costs, load: Load) -> dict[str, Any] | None:
    draft = setting.recipe.decoding.draft
    if draft is None:
        return None
    try:
        config = draft_config(module.config, draft.layers, draft.width)
    except ValueError as error:
        raise CommandError(f"decoding.draft: {error}") from error
    small = on_paper(config)
    sites, parameters = step_discovery(small).sites, sum(weight.numel() for weight in small.parameters())
    counts = dict.fromkeys((1, setting.recipe.cost.streams, max(1, streams_of(costs["middle"], load).streams)))
    rows = []
    for count in counts:
        row: dict[str, Any] = {"streams": count, "without_ms": {}, "with_ms": {}, "needed_acceptance": {}}
        for case, cost in costs.items():
            drafts = DecoderCost(cost.device, config, sites, cost.policy, parameters, case)
            speculating = Speculation(drafts, draft.acceptance, draft.drafted)
            row["without_ms"][case] = 1e3 * cost.pass_cost(count, load.context).transformer
            row["with_ms"][case] = 1e3 * speculating.row_seconds(cost, count, load.context)
            row["needed_acceptance"][case] = speculating.needed_acceptance(cost, count, load.context)
        rows.append(row)
    return {
        "layers": draft.layers,
        "width": draft.width,
        "parameters": parameters,
        "drafted": draft.drafted,
        "acceptance": draft.acceptance,
        "token_acceptance": speculating.token_acceptance,
        "expected_rows": speculating.expected_rows,
        "rows": rows,
    }


def _sources(*cards: Device) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for card in dict.fromkeys(cards):
        found += [{"device": card.name, "figure": name, **figure.to_dict()} for name, figure in card.figures().items()]
        table = GemmTable.of(card.name)
        if table is not None:
            found.append({"device": card.name, "figure": "products of weights", "source": SOURCE})
    return found
