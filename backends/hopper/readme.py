"""Readme: what an exported folder says of itself, from what is known of it."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.hopper.readme_card import ONNX, ONNXRUNTIME, TENSORRT, card_sections
from backends.hopper.tolerance import Bounds, CardTolerance, CpuTolerance


@dataclass(frozen=True, slots=True)
class Facts:
    """What an export is of."""

    model: str
    policy: str
    """Where it is from."""
    policy_digest: str
    scheme_shares: Mapping[str, float]
    """Scheme -> share of the MACs of all sites."""
    fp8_mac_share: float
    sites: int
    """Of the whole model."""
    clip: str
    clip_seconds: float
    versions: Mapping[str, str]
    sample_rate_hz: int | None = None
    stream: Mapping[str, Any] | None = None
    """Of a model that runs chunk by chunk, as `voice.streaming.Utterance.facts` has it."""

    seen_on_cpu: Mapping[str, float] | None = None
    """SNR in dB, by part, of the sample as ONNX Runtime's CPU computed it when it was exported; None: it did not."""

    def manifest(self) -> dict[str, Any]:
        """What program.json has of it."""
        facts: dict[str, Any] = {
            "toolkit": dict(self.versions),
            "model": self.model,
            "policy_digest": self.policy_digest,
            "clip": self.clip,
            "sample_rate_hz": self.sample_rate_hz,
        }
        return facts if self.stream is None else {**facts, "stream": dict(self.stream)}


def readme(manifest: Mapping[str, Any], facts: Facts, bounds: Mapping[str, Bounds]) -> str:
    """The folder's README.md, of its program.json."""
    sections = (
        _head(manifest, facts),
        _checking(manifest),
        *card_sections(manifest),
        _chunks(facts),
        _policy(manifest, facts),
        _sample(facts, bounds),
        _shown(manifest, facts),
        _files(manifest),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def requirements() -> dict[str, str]:
    """Files of requirements by name: what a CPU needs, and what an engine needs beside."""
    return {
        "requirements.txt": f"numpy>=1.26,<3\nonnx=={ONNX}\nonnxruntime-gpu=={ONNXRUNTIME}  # its CPU provider is"
        " enough for --runtime cpu\n",
        "requirements-tensorrt.txt": f"-r requirements.txt\ntensorrt=={TENSORRT}.*  # with CUDA 13; for CUDA 12"
        f" tensorrt-cu12=={TENSORRT}.*\ntorch>=2.6  # memory and copies on the card\n",
    }


def _head(manifest: Mapping[str, Any], facts: Facts) -> list[str]:
    sites, states = manifest["sites"], manifest["states"]
    counts = Counter(held["activation"] for held in sites.values()).most_common()
    reads = ", ".join(f"{count} {'read ' * (index == 0)}{name}" for index, (name, count) in enumerate(counts))
    inputs = ", ".join(_value(spec) for spec in manifest["inputs"])
    part = "" if len(sites) == facts.sites else _part(len(sites), facts.sites)
    lines = [
        f"# {facts.model} on NVIDIA Hopper, " + ("through TensorRT" if _tensorrt(manifest) else "by plain GEMMs"),
        "",
        f"One strongly typed ONNX model (opset {manifest['onnx']['opset']}) of the policy `{facts.policy_digest}`: of"
        f" {len(sites)} sites {reads}. Precision is in the graph and nowhere else: Q/DQ pairs around FP8 products,"
        f" Casts around 16-bit ones, float32 in between.{part}",
        "",
        f"* inputs: {inputs}",
        f"* outputs: {', '.join(_value(spec) for spec in manifest['outputs'].values())}",
    ]
    lines += (
        [f"* states: {len(states)}, kept from run to run, zeros at first; `NAME` in, `NAME_next` out"] if states else []
    )
    lines += [
        f"* `{axis}` may be {limits['min']} to {limits['max']}; an engine is tuned for {limits['opt']}"
        for axis, limits in manifest["axes"].items()
    ]
    lines += [f"* `{name}` is {value}, once for all" for name, value in manifest["fixed"].items()]
    noise = [spec for spec in manifest["inputs"] if "noise" in spec]
    return lines + [
        f"* `{spec['name']}` is noise, {spec['noise']}; `run.py` draws it by `--seed` where it is not given"
        for spec in noise
    ]


def _value(spec: Mapping[str, Any]) -> str:
    return f"`{spec['name']}` [{', '.join(map(str, spec['shape']))}] {spec['dtype']}"


def _part(there: int, all_of_them: int) -> str:
    return (
        f" It has {there} of the model's {all_of_them} sites: those of the part that runs chunk by chunk. What comes"
        " before runs once an utterance and is not in this folder; what it gives are the inputs here."
    )


def _tensorrt(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["route"] == "tensorrt")


def _checking(manifest: Mapping[str, Any]) -> list[str]:
    return [
        "## Checking it on a CPU",
        "",
        "```sh",
        "pip install -r requirements.txt",
        "python run.py --list        # what each site computes in; nothing is run",
        "python run.py --check       # the sample, held against what is expected of it",
        "python run.py --input sample/input.npz --output output.npz",
        "```",
        "",
        "ONNX Runtime's CPU has no kernels for most 16-bit operations. So `widening.py` computes 16-bit sites in"
        " float32 on operands rounded to 16 bits and rounds once behind, which is what a tensor core with fp32 sums"
        " does. It shows that the graph says what the policy says; of a card it shows nothing.",
    ]


def _chunks(facts: Facts) -> list[str]:
    stream = facts.stream
    if stream is None:
        return []
    late, samples = stream["latency_samples"], stream["chunk_samples"]
    if not stream["inputs"]:
        return [
            "## Runs",
            "",
            f"A run is a step of {stream['chunk_ms']:.1f} ms: it reads the row before and gives the next row's logits,"
            f" and {samples} samples. `sample/input.npz` has the rows of a clip, forced, along a first axis; in its"
            f" sound the first {late} samples (runs: {late // samples}) come of what stands before the speech, and"
            " `run.py` leaves them out of a .wav.",
        ]
    masks = ", ".join(f"`{name}`" for name in stream["masks"]) or "none"
    return [
        "## Chunks",
        "",
        f"A run takes {stream['chunk_frames']} frames and gives {samples} samples ({stream['chunk_ms']:.1f} ms), late"
        f" by {late}: sample i of chunk n is sample {samples} n - {late} + i of the utterance; those before 0 and"
        " after its end mean nothing. The last frames are filled up with zeros, and chunks of zeros bring out what is"
        f" late. Masks are 1 where a value belongs to the utterance and 0 before its begin and after its end: {masks}.",
        "`run.py` does all of that for an utterance of any length (`chunks.py`), and gives its sound without what means"
        " nothing. `sample/input.npz` is such an utterance.",
    ]


def _policy(manifest: Mapping[str, Any], facts: Facts) -> list[str]:
    notes = {site: held["note"] for site, held in manifest["sites"].items() if held["note"]}
    return [
        "## Policy",
        "",
        f"From {facts.policy}: {facts.sites} sites, FP8 in {facts.fp8_mac_share:.1%} of the MACs. `policy.yaml` has"
        " every site, and `python run.py --list` what the graph holds it to.",
        "",
        "| scheme | share of the sites' MACs |",
        "|---|---|",
        *(f"| {name} | {share:.1%} |" for name, share in facts.scheme_shares.items()),
        *([""] if notes else []),
        *(f"* `{site}`: {note}" for site, note in notes.items()),
    ]


def _sample(facts: Facts, bounds: Mapping[str, Bounds]) -> list[str]:
    rows = [
        f"| {name} | {where} | {found.snr_db:.1f} | {found.max_abs:.3g} | {found.seen_snr_db:.1f} |"
        for name, both in bounds.items()
        for where, found in (("CPU", both.cpu), ("card", both.card))
    ]
    return [
        "## The sample",
        "",
        f"`sample/input.npz` is clip `{facts.clip}` ({facts.clip_seconds:.2f} s), and `sample/expected.npz` what the"
        " emulation of Hopper's arithmetic makes of it. `python run.py --check` holds a CPU's output against it, with"
        " `--runtime tensorrt` a card's.",
        "",
        "| output | of a | SNR at least, dB | largest difference at most | SNR of the furthest computation, dB |",
        "|---|---|---|---|---|",
        *rows,
        "",
        CpuTolerance.DERIVATION,
        "",
        CardTolerance.DERIVATION,
    ]


def _shown(manifest: Mapping[str, Any], facts: Facts) -> list[str]:
    q, dq = (sum(held[kind] for held in manifest["sites"].values()) for kind in ("quantize", "dequantize"))
    return [
        "## What was seen, and what was not",
        "",
        f"* Seen: the graph has {q} QuantizeLinear and {dq} DequantizeLinear, at the sites of the policy that are FP8"
        " and at no other; formats in `program.json` were read back from it.",
        "* Seen: the expected output, emulated on a CPU: scales, codes and roundings as torch and OCP define them,"
        " sums in fp32.",
        *(
            []
            if facts.seen_on_cpu is None
            else [f"* Seen: the sample by ONNX Runtime on a CPU, {_seen(facts.seen_on_cpu)}."]
        ),
        "* Not seen: nothing of this folder has run on a card. How a tensor core adds is a model from published"
        " measurements; what TensorRT fuses, which sites it gives FP8 kernels, and every time, only a card shows:"
        " `build.py` says it there.",
        f"* Made with {', '.join(f'{name} {version}' for name, version in facts.versions.items())}.",
    ]


def _seen(snrs_db: Mapping[str, float]) -> str:
    return "; ".join(f"{part} {'equal' if math.isinf(snr) else f'{snr:.1f} dB'}" for part, snr in snrs_db.items())


def _files(manifest: Mapping[str, Any]) -> list[str]:
    named = {
        "model.onnx": "the model; beyond 1.9 GB with its weights in `model.onnx.data`",
        **(
            {}
            if manifest["host"] is None
            else {"host.onnx, device.onnx": "the same in two, what is in float64 apart: TensorRT has none"}
        ),
        "program.json": "inputs, axes, outputs with tolerances, states, and of every site what the graph holds it to",
        "policy.yaml": "the policy",
        "scales.json": "what was calibrated, and the scales made of it",
        "sample/": "one utterance and what must come of it",
        "run.py, runtime.py, sessions.py": "what checks inputs, runs by a CPU or a card, times and compares",
        "arrays.py, listing.py, chunks.py": "files of numbers and sound; the table of sites; an utterance in chunks",
        "widening.py": "16-bit sites for a CPU",
        "build.py, builder.py, checking.py, operators.py, facts.py, gpu.py": "what checks a model and builds an engine",
        "engine.py, measured.py, refitting.py": "what runs, times and refits one; only `engine.py` imports TensorRT",
        "inspected.py, departures.py": "what an engine made of each site, and where it departs from the policy",
        "requirements.txt, requirements-tensorrt.txt": "what a CPU needs, and what a card needs beside",
    }
    return ["## Files", "", *(f"* `{name}`: {what}" for name, what in named.items())]
