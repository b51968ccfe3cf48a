"""A small study's folder as a search leaves it, and what reads its report as a suspicious browser would."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from backends.devices import load_devices
from backends.money import compare
from backends.serving import serve
from precision.candidate import Candidate
from precision.gates import Gate, Verdict
from precision.policy import Policy, Scheme
from precision.site import Site
from precision.study import Study
from precision_search.report import write_report
from precision_search.report.markup import VOID

EVIL = "<script>alert('x')</script>&\"quoted\""
RATE = 22050
SCHEMES = (
    Scheme("bf16", "bf16", "bf16", fidelity="hifi4"),
    Scheme("hifi2_bfp8", "bfp8_b", "bf16", fidelity="hifi2"),
    Scheme("lofi_bfp8", "bfp8_b", "bf16", fidelity="lofi", levers=("fidelity_rounding",)),
    Scheme("lofi_bfp4", "bfp4_b", "bf16", fidelity="lofi"),
)
SITES = tuple(
    Site(f"vocoder.stages.{stage}.convs.{conv}", "conv1d", (64, 64, 7), 448, 64, 5512.0 * (stage + 1), kernel=7)
    for stage in range(4)
    for conv in range(3)
)
METRICS = ("lsd_db", "group_delay_rad")
GATES = (
    Gate("lsd_db", max=2.5),
    Gate("group_delay_rad", max=0.16),
    Gate("pesq_wb", min=4.4),
    Gate("pesq_wb", "worst", min=4.2),
    Gate("length_samples", max=0.0),
)
SECTIONS = (
    "verdict",
    "gates",
    "damage",
    "prediction",
    "front",
    "cost",
    "listening",
    "abx",
    "breaks",
    "arithmetic",
    "policy",
    "provenance",
)


def damage_of(site: int, scheme: int, metric: str) -> float:
    scale = {"lsd_db": 0.2, "group_delay_rad": 0.012}[metric]
    return scale * scheme**2 * (0.3 + 0.1 * site)


def candidate_of(rng: np.random.Generator, level: int, split: str) -> Candidate:
    policy = Policy.of(
        {site.name: SCHEMES[(index + level) % 3 if index else level % 4] for index, site in enumerate(SITES)}
    )
    predicted = {metric: 0.6 * (1 + level) * {"lsd_db": 1.0, "group_delay_rad": 0.06}[metric] for metric in METRICS}
    measured = {metric: value * rng.uniform(0.97, 1.03) for metric, value in predicted.items()}
    found = {**measured, "pesq_wb": 4.55 - 0.05 * level, "length_samples": 0.0}
    return Candidate.of(
        policy,
        split,  # type: ignore[arg-type]
        predicted=predicted,
        scores=dict.fromkeys(("anna", "bruno"), found),
        gates=[Verdict(gate, found[gate.metric]) for gate in GATES],
        seconds_cost=2e-3 / (1 + level),
        elapsed_seconds=4.0,
    )


def span(low: float, middle: float, high: float) -> dict[str, float]:
    return {"low": low, "middle": middle, "high": high}


def money(evil: str = "") -> dict[str, Any]:
    """The blocks of a summary's cost that say where its ratio comes from."""
    steps = (
        (f"NVIDIA L40S, bf16, one stream a launch{evil}", "baseline", "l40s", 0.40),
        ("streams share launches", "batching", "l40s", 0.10),
        ("Tenstorrent Blackhole p150a, bf16", "card", "p150a", 0.12),
        ("formats of the policy, all in hifi4", "format", "p150a", 0.11),
        ("math fidelity of the policy", "fidelity", "p150a", 0.04),
    )
    swings = (
        (f"l40s: price by the hour{evil}", "USD/h", (0.79, 1.2, 3.5), (0.8, 0.2)),
        ("p150a: share of the peak that products reach", "", (0.3, 0.6, 0.8), (1.2, 0.3)),
        ("PUE", "", (1.1, 1.2, 1.58), (0.39, 0.41)),
    )
    return {
        "evidence": {
            "candidate": {"measured": 0.0, "calibrated": 0.25, "roofline": 0.75},
            "baseline": {"measured": 0.6, "calibrated": 0.4, "roofline": 0.0},
        },
        "waterfall": [
            {
                "step": told,
                "change": change,
                "device": device,
                "scheme": "bf16",
                "batch": 64,
                "streams": 1000 + number,
                "usd_per_stream": span(0.7 * usd, usd, 1.9 * usd),
                "ratio": usd / 0.40,
            }
            for number, (told, change, device, usd) in enumerate(steps)
        ],
        "fleet": {
            "streams": 550,
            "candidate": {
                "device": "p150a",
                "cards": span(20, 27, 40),
                "usd": span(27e3, 37773, 40e3),
                "power_kw": 9.72,
                "usd_per_hour": span(1.5, 2.0, 2.5),
            },
            "baseline": {
                "device": "l40s",
                "cards": span(11, 11, 11),
                "usd": span(82e3, 91300, 1e5),
                "power_kw": 4.62,
                "usd_per_hour": span(2.5, 3.0, 3.5),
            },
            "ratio": span(0.27, 0.414, 0.49),
            "ratio_per_hour": span(0.43, 0.667, 1.0),
        },
        "ratio_by_roofline": span(0.3, 0.46, 0.6),
        "break_even": [
            {"what": "p150a: price of a card", "value": 3400.0, "unit": "USD", "told": f"at 3,400 USD the same{evil}"},
            {"what": "p150a: overhead of a launch", "value": None, "unit": "us", "told": "it costs less throughout"},
        ],
        "sensitivity": [
            {
                "assumption": name,
                "unit": unit,
                "low": low,
                "middle": middle,
                "high": high,
                "ratio_low": ratios[0],
                "ratio_middle": 0.4,
                "ratio_high": ratios[1],
                "source": f"somebody's page{evil}",
            }
            for name, unit, (low, middle, high), ratios in swings
        ],
        "deadlines": [
            {
                "chunk_ms": chunk,
                "candidate": {"streams": 3 * chunk, "batch": chunk, "first_sound_ms": chunk + 2.5}
                | {"worst_first_sound_ms": 1.7 * chunk},
                "baseline": {"streams": 2 * chunk, "batch": chunk, "first_sound_ms": chunk + 3.5},
                "ratio": span(0.2, 0.4, 0.9),
            }
            for chunk in (80, 500)
        ],
        "usd_per_million_characters": {"candidate": span(0.01, 0.02, 0.03), "baseline": span(0.05, 0.06, 0.07)},
        "prices": [{"device": "p150a", "figure": "price_usd", "value": 1234.0, "date": "2026-11", "source": "a quote"}],
    }


def write_study(
    folder: Path, *, evil: str = "", seconds: float = 1.5, clips: tuple[str, ...] = ("anna", "bruno")
) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with Study.create(folder, {"recipe_digest": "0123456789abcdef", "clips_digest": "feed", "code": "0.1.0"}) as study:
        for level in range(8):
            study.add_candidate(candidate_of(rng, level, "search"))
        final = candidate_of(rng, 2, "held_back")
        study.add_candidate(final)
    refused = f"TT-NN has no such convolution {evil}"
    sites = [
        {
            "name": site.name,
            "op": site.op,
            "macs_per_second": site.macs_per_second,
            "weight_elements": site.weight_elements,
            "options": [
                {
                    "scheme": scheme.name,
                    "refused": refused if (number, index) == (3, 0) else None,
                    "damage": {} if (number, index) == (3, 0) else {m: damage_of(index, number, m) for m in METRICS},
                    "seconds": 1e-4 / (1 + number),
                    "bytes": 1000,
                }
                for number, scheme in enumerate(SCHEMES)
            ],
        }
        for index, site in enumerate(SITES)
    ]
    (folder / "damage.json").write_text(
        json.dumps({"metrics": METRICS, "sites": sites, "chosen": dict(final.policy)}), encoding="utf-8"
    )
    (folder / "policy.yaml").write_text("".join(f"{k}: {v}\n" for k, v in final.policy.items()), encoding="utf-8")
    devices = load_devices()
    ours = serve(devices["p150a"], SITES, Policy.uniform([s.name for s in SITES], SCHEMES[2]), label="found")
    full = Scheme("bf16", "bf16", "bf16")
    theirs = serve(devices["l40s"], SITES, Policy.uniform([s.name for s in SITES], full), label="bf16")
    summary = {
        "recipe": f"tts_blackhole{evil}",
        "recipe_digest": "0123456789abcdef",
        "model": f"embedded{evil}",
        "device": "p150a",
        "backend": "tenstorrent",
        "verdict": "kept",
        "lofi_mac_share": 0.973,
        "bfp8_weight_share": 0.91,
        "fp8_mac_share": 0.0,
        "gates": [
            {
                "metric": verdict.gate.metric,
                "over": verdict.gate.over,
                "value": verdict.value,
                "threshold": verdict.gate.threshold,
                "kept": verdict.kept,
                "margin": verdict.margin,
                "beside": {"baseline": verdict.value * 0.9, "bf16": verdict.value * 0.95},
            }
            for verdict in final.gates
        ],
        "unjudged": [{"metric": "pesq_change", "over": "lower_bound", "reason": f"needs the natural recording {evil}"}],
        "evaluations": 9,
        "seconds": 412.0,
        "sites": len(SITES),
        "covered_mac_share": 0.9991,
        "cost": {**compare(ours, theirs).to_dict(), **money(evil)},
        "policy_digest": final.digest,
        "versions": {"precision-search": "0.1.0", "torch": "2.13"},
        "seed": 0,
        "schemes": {scheme.name: scheme.to_dict() for scheme in SCHEMES},
        "left_high": [{"site": SITES[-1].name, "scheme": "bf16", "why": f"breaks lsd_db {evil}"}],
        "protected": {SITES[0].name: "makes the phase"},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    time = np.arange(int(seconds * RATE)) / RATE
    for side, noise in (("reference", 0.0), ("candidate", 0.01)):
        (folder / "samples" / side).mkdir(parents=True)
        for clip in clips:
            voice = 0.3 * np.sin(2 * np.pi * 220 * time * (1 + 0.2 * time)) + noise * rng.standard_normal(len(time))
            soundfile.write(folder / "samples" / side / f"{clip}.wav", voice, RATE, subtype="FLOAT")
    return folder


@dataclass
class Reader(HTMLParser):
    """Walks a page; every tag must be closed in turn."""

    open: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(text)

    @classmethod
    def of(cls, page: str) -> "Reader":
        reader = cls()
        reader.feed(page)
        reader.close()
        assert not reader.open
        return reader

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def changed(folder: Path, to: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A copy of a study in which one JSON file was changed."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.wav", "report.html"))
    data = json.loads((to / name).read_text(encoding="utf-8"))
    change(data)
    (to / name).write_text(json.dumps(data), encoding="utf-8")
    return to


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def text_of(folder: Path) -> str:
    """What a reader of the report sees or hears of it."""
    return Reader.of(page_of(folder)).text
