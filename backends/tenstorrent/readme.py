"""Readme: what an exported folder says of itself, from what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.tenstorrent.host_traffic import host_bytes, round_trips
from backends.tenstorrent.program import CardStep, Program
from backends.tenstorrent.tolerance import Tolerance


@dataclass(frozen=True, slots=True)
class Facts:
    """What an export is of."""

    model: str
    card_title: str
    policy: str
    """Where it is from."""
    policy_digest: str
    scheme_shares: Mapping[str, float]
    """Scheme -> share of the MACs of all sites."""
    lofi_mac_share: float
    bfp8_weight_share: float
    sites: int
    clip: str
    clip_seconds: float
    tolerances: Mapping[str, Tolerance]
    weight_bytes: int
    """Of the packed weights that were held against our own packer's bytes."""
    versions: Mapping[str, str]
    program_sites: int
    """Sites that the program computes: all, or those of the part that is streamed."""
    stream: Mapping[str, Any] | None = None
    """Of a program that runs chunk by chunk, as the manifest has it."""


def readme(program: Program, facts: Facts) -> str:
    """The folder's README.md."""
    sections = (
        _head(program, facts),
        _running(program, facts),
        _chunks(facts),
        _policy(facts),
        _sample(facts),
        _host(program),
        _shown(facts),
        _files(program),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def requirements(program: Program) -> str:
    """The folder's requirements.txt."""
    return "ttnn==0.81.1\n" + ("torch>=2.6  # host.py\n" if round_trips(program) else "")


def _head(program: Program, facts: Facts) -> list[str]:
    steps = sum(isinstance(step, CardStep) for step in program.steps)
    inputs = ", ".join(f"`{value.name}` {list(value.shape)} {value.dtype}" for value in program.inputs)
    outputs = ", ".join(f"`{name}`" for name in program.outputs)
    how = "" if facts.program_sites == facts.sites else _part(facts)
    return [
        f"# {facts.model} on {facts.card_title}, through TT-NN",
        "",
        f"{steps} operations of ttnn 0.81.1 for `{program.card}` ({program.architecture}), made of the policy"
        f" `{facts.policy_digest}`.{how}",
        "Shapes are fixed: this program is for inputs of these and no others."
        if facts.stream is None
        else "Shapes are fixed, and those of one run; an utterance takes as many runs as it is long.",
        "",
        f"* inputs: {inputs}",
        f"* outputs: {outputs}",
    ]


def _running(program: Program, facts: Facts) -> list[str]:
    torch = " and torch for the operations in `host.py`" if round_trips(program) else ""
    return [
        "## Running it",
        "",
        f"It needs CPython 3.12 (or 3.10) on x86-64 Linux with ttnn{torch}; nothing else of what made it.",
        "",
        "```sh",
        "pip install -r requirements.txt",
        "python run.py --plan        # no card is needed: the library checks and plans every operation",
        f"{_check(facts).strip('`')}       # on a card: the sample, held against what is expected of it",
        "python run.py --device 0 --input sample/input.npz --output output.npz",
        "```",
        "",
        "Planning opens a card that is not there; it touches neither a real one nor the installed library.",
    ]


def _part(facts: Facts) -> str:
    return (
        f" It has {facts.program_sites} of the {facts.sites} sites: those of the part that runs chunk by chunk. What"
        " comes before runs once an utterance and is not in this folder; what it gives are the inputs here."
    )


def _chunks(facts: Facts) -> list[str]:
    stream = facts.stream
    if stream is None:
        return []
    late, samples = stream["latency_samples"], stream["chunk_samples"]
    kept = "What a run needs of those before it stays on the card; it begins as zeros."
    if not stream["inputs"]:
        return [
            "## Runs",
            "",
            f"A run is a step of {stream['chunk_ms']:.1f} ms: it reads the row before and gives the next row's logits,"
            f" and {samples} samples. {kept} `sample/input.npz` has the rows of a clip, forced, along a first axis; in"
            f" its sound the first {late} samples ({late // samples} runs) come of what stands before the speech, and"
            " `run.py` leaves them out of a .wav.",
        ]
    masks = "".join(f" `{name}`" for name in stream["masks"])
    return [
        "## Chunks",
        "",
        f"A run takes {stream['chunk_frames']} frames and gives {samples} samples"
        f" ({stream['chunk_ms']:.1f} ms), late by {late}: sample i of chunk n is sample"
        f" {samples} n - {late} + i of the utterance; those before 0 and after its end mean nothing. {kept}",
        "The last frames are filled up with zeros, and chunks of zeros bring out what is late. Masks are 1 where a"
        f" value belongs to the utterance and 0 before its begin and after its end:{masks or ' none'}. They stay on the"
        " card while they do not change: in the middle of a stream they are ones, and nothing of them is moved.",
        "`python run.py --stream --input FILE` does all of that for an utterance of any length (`chunks.py`), and gives"
        " its sound without what means nothing. `sample/input.npz` is such an utterance.",
    ]


def _policy(facts: Facts) -> list[str]:
    rows = [f"| {name} | {share:.1%} |" for name, share in facts.scheme_shares.items()]
    return [
        "## Policy",
        "",
        f"From {facts.policy}: {facts.sites} sites, LoFi in {facts.lofi_mac_share:.1%} of the MACs, bfp8_b in"
        f" {facts.bfp8_weight_share:.1%} of the weights. `policy.yaml` has every site.",
        "",
        "| scheme | share of the sites' MACs |",
        "|---|---|",
        *rows,
    ]


def _sample(facts: Facts) -> list[str]:
    rows = [
        f"| {name} | {found.snr_db:.1f} | {found.max_abs:.3g} | {found.seen_snr_db:.1f} |"
        for name, found in facts.tolerances.items()
    ]
    return [
        "## The sample",
        "",
        f"`sample/input.npz` is clip `{facts.clip}` ({facts.clip_seconds:.2f} s), and `sample/expected.npz` what this"
        f" program makes of it by exact emulation on a CPU. {_check(facts)} holds a card's output against it.",
        "",
        "| output | SNR at least, dB | largest difference at most | SNR of the two computations, dB |",
        "|---|---|---|---|",
        *rows,
        "",
        Tolerance.DERIVATION,
    ]


def _check(facts: Facts) -> str:
    return "`python run.py --check`" if facts.stream is None else "`python run.py --stream --check`"


def _host(program: Program) -> list[str]:
    trips = round_trips(program)
    moved_in = sum(host_bytes(value) for value in program.inputs)
    lines = ["## Between host and card", ""]
    if not trips:
        return [
            *lines,
            f"Nothing but the inputs ({moved_in} bytes) and the outputs crosses: no operation is left on the host.",
        ]
    stops = sum(trip.stops_the_card for trip in trips)
    lines += [
        f"{len(trips)} piece{'s' * (len(trips) > 1)} of the model on the host, in torch (`host.py`): "
        + (f"for {stops} of them the card waits." if stops else "all done before the card begins.")
        + " The time that the bytes take is that of the host's PCIe link, which was not measured.",
        "",
        "| of module | from the card, bytes | to the card, bytes |",
        "|---|---|---|",
        *(f"| {trip.source or 'the model itself'} | {trip.down_bytes} | {trip.up_bytes} |" for trip in trips),
    ]
    return [*lines, "", *(f"* {why}" for why in program.left_on_host)] if program.left_on_host else lines


def _shown(facts: Facts) -> list[str]:
    return [
        "## What was seen, and what was not",
        "",
        f"* Seen: ttnn's own packer wrote `weights/`, and all {facts.weight_bytes} bytes of it are those of this"
        " toolkit's packer, bit for bit.",
        "* Seen: the expected output, computed on a CPU in arithmetic that was held against ttsim and the wheel.",
        "* Not seen: this program has not run on a card. `python run.py --plan` has the library accept every operation;"
        " times, and what the vector unit rounds otherwise than modelled, only a card shows.",
        f"* Made with {', '.join(f'{name} {version}' for name, version in facts.versions.items())}.",
    ]


def _files(program: Program) -> list[str]:
    named = {
        "model.py": "the program: plain calls of ttnn, one an operation",
        "run.py, runtime.py": "what opens the card, moves arrays, runs, plans, traces and times",
        "checked.py": "what is looked at before: program.json, the version of ttnn, inputs, the card",
        "chunks.py": "how an utterance is cut into chunks and joined again",
        "mock_card.py": "the card that is not there, for --plan",
        "program.json": "inputs, outputs, weights, and of every operation what it must be found to compute in",
        "weights/": "packed by ttnn",
        "policy.yaml": "the policy",
        "sample/": "one utterance and what must come of it",
    }
    if round_trips(program):
        named["host.py"] = "what stays on the host"
    return ["## Files", "", *(f"* `{name}`: {what}" for name, what in named.items())]
