"""Commands: each does what its name says and gives data and text; printing is main's."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_eval.audio import AudioFileError
from calibrate.adapted import adapted_file
from precision.blocks import BlockFormat, format_named, known_formats, stored_bits
from precision.candidate import verdict_line
from precision.formats import Format
from precision.recipe import Recipe, RecipeError
from precision.search.sampled import METHODS, require_optuna
from precision.study import LOG, Study, StudyError
from precision_search.findings import findings
from precision_search.judging import JudgingError, check_outputs, found_data, judge_files, write_csv, write_json
from precision_search.jury import Heard, hear
from precision_search.progress import Progress
from precision_search.results import read_policy, write_results
from precision_search.run import calibrated, moments_of
from precision_search.run import run as run_setting
from precision_search.setting import Setting, SetupError
from precision_search.table import gate_lines, table
from precision_search.uncovered import outside_lines, warning
from precision_search.unscorable import refuse_clips
from precision_search.wire import devices as cards
from precision_search.wire import make_setting, read_recipe, study_header
from precision_search.workers import Where, WorkerError, Workers, reach
from voice.checkpoint import CheckpointError


class CommandError(ValueError):
    """A command that cannot be carried out as it was typed."""


INPUT_ERRORS = (
    RecipeError,
    SetupError,
    CheckpointError,
    AudioFileError,
    StudyError,
    WorkerError,
    JudgingError,
    CommandError,
)


@dataclass(frozen=True)
class Answer:
    """What a command found: for programs, and for people."""

    data: dict[str, Any]
    text: str


def run(
    source: str,
    overrides: Sequence[str],
    out: Path | None,
    *,
    resume: bool,
    workers: Where,
    progress: Progress,
    cached: bool = True,
) -> Answer:
    """Search a recipe; the study's summary. `cached`: whether damages are shared with other studies."""
    begun = time.monotonic()
    recipe = read_recipe(source, overrides)
    folder = out if out is not None else Path("studies") / recipe.name
    there = (folder / LOG).exists()
    if there and not resume:
        raise CommandError(
            f"{folder}: there is a study already; go on with it by --resume, or name another folder by --out"
        )
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder}: is a file, and a study is a folder; name another by --out")
    if not there and folder.is_dir() and any(folder.iterdir()):
        raise CommandError(f"{folder}: is not empty and holds no study; name another folder by --out")
    reach(workers)
    if recipe.search.method in METHODS:
        _need_optuna()
    setting = make_setting(recipe)
    progress.say(describe(setting))
    warned = warning(setting.discovery.covered_share)
    if warned is not None:
        progress.say(f"warning: {warned}")
    if not there:
        refuse_clips(setting, progress, workers if isinstance(workers, int) else os.cpu_count() or 1)
    header, text = study_header(setting), recipe.to_yaml()
    with Study.open(folder, header, text) if there else _create(folder, header, text) as study:
        found = run_setting(setting, study, progress, workers, cached=cached)
        summary = write_results(setting, study, found, time.monotonic() - begun)
    page = _write_report(folder)
    return Answer(summary, f"{table(summary)}\n\n  {page}")


def _need_optuna() -> None:
    try:
        require_optuna()
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from error


def _create(folder: Path, header: Mapping[str, str | int | float | bool | None], recipe: str) -> Study:
    """Begin a study; on a disk with no room for its first line leave nothing behind."""
    new = not folder.exists()
    try:
        return Study.create(folder, header, recipe)
    except StudyError:
        if new and folder.exists():
            shutil.rmtree(folder)
        raise


def describe(setting: Setting) -> str:
    """One line on what is about to be searched."""
    options = sum(len(schemes) for schemes in setting.space.values()) - len(setting.refused)
    return (
        f"{setting.recipe.name}: {setting.voice.name} on {setting.device.title}, {len(setting.sites)} sites that are"
        f" {setting.discovery.covered_share:.1%} of the MACs, {options} options,"
        f" {len(setting.search_clips)} clips to search with, {len(setting.held_back_clips)} held back"
    )


def check(source: str, overrides: Sequence[str]) -> Answer:
    """Everything that can be known of a recipe without running it."""
    setting = make_setting(read_recipe(source, overrides))
    warned = warning(setting.discovery.covered_share)
    lines = [describe(setting)]
    lines += [f"  {line}" for line in outside_lines(setting.discovery.uncovered)]
    lines += [] if warned is None else [f"  warning: {warned}"]
    lines += _grouped("refused", [(f"{scheme}: {why}", site) for (site, scheme), why in setting.refused.items()])
    lines += _grouped("protected", [(why, site) for site, why in setting.protected.items()])
    lines.append(f"  nothing wrong; run it with: precision-search run {source}")
    data = {
        "recipe": setting.recipe.name,
        "recipe_digest": setting.recipe.digest,
        "sites": len(setting.sites),
        "covered_mac_share": setting.discovery.covered_share,
        "warning": warned,
        "space": {site: [scheme.name for scheme in schemes] for site, schemes in setting.space.items()},
        "refused": [{"site": site, "scheme": scheme, "why": why} for (site, scheme), why in setting.refused.items()],
        "protected": dict(setting.protected),
    }
    return Answer(data, "\n".join(lines))


def _grouped(word: str, reasons: Sequence[tuple[str, str]]) -> list[str]:
    """One line a reason, with the sites that it holds for: all of them if few."""
    by_reason: dict[str, list[str]] = {}
    for reason, site in reasons:
        by_reason.setdefault(reason, []).append(site)
    return [
        f"  {word} {reason}\n      {len(names)} sites: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for reason, names in by_reason.items()
    ]


def formats() -> Answer:
    """The number formats."""
    rows = [
        {"name": name, "stored_bits": stored_bits(name), **_described(format_named(name))} for name in known_formats()
    ]
    keys = ("largest", "smallest", "overflow", "rounding", "block")
    lines = [
        f"{'format':12} {'bits':>5} {'largest':>10} {'smallest':>10}  {'overflow':10} {'rounding':31} shared exponent"
    ]
    for row in rows:
        largest, smallest, overflow, rounding, block = (row[key] for key in keys)
        sizes = " ".join(f"{'-' if size is None else format(size, '.4g'):>10}" for size in (largest, smallest))
        lines.append(f"{row['name']:12} {row['stored_bits']:5g} {sizes}  {overflow:10} {rounding:31} {block}")
    lines.append("definitions: precision/formats.py and precision/blocks.py")
    return Answer({"formats": rows}, "\n".join(lines))


def _described(fmt: Format | BlockFormat) -> dict[str, Any]:
    """What tells a format from the others; a block's largest and smallest value depend on its shared exponent."""
    if isinstance(fmt, Format):
        rounding = f"nearest, ties {fmt.ties}"
        sizes = {"largest": fmt.max_value, "smallest": fmt.min_positive}
        return sizes | {"overflow": fmt.overflow, "rounding": rounding, "block": "-"}
    block = f"{fmt.block_size} neighbours, {fmt.scale_bits} bits, {fmt.scale_rule.replace('_', ' ')}"
    rounding = fmt.element_rounding.replace("_", " ")
    return {"largest": None, "smallest": None, "overflow": fmt.overflow, "rounding": rounding, "block": block}


def devices() -> Answer:
    """The cards."""
    rows = []
    lines = [f"{'card':11} {'backend':12} {'memory GB/s':>12} {'W':>5} {'price USD':>20}  rates in TFLOPS"]
    for name, card in cards().items():
        figures = {key: figure.to_dict() for key, figure in card.figures().items()}
        rows.append({"name": name, "title": card.title, "backend": card.backend, "figures": figures})
        rates = ", ".join(f"{key} {figure.value:g}" for key, figure in card.rates_tflops.items())
        price = "-" if card.price_usd is None else f"{card.price_usd.low:g} to {card.price_usd.high:g}"
        backend, memory = card.backend or "(baseline)", card.memory_gb_per_s.value
        lines.append(f"{name:11} {backend:12} {memory:12g} {card.power_w.value:5g} {price:>20}  {rates}")
    lines.append("every figure's source and doubt: precision-search devices --json")
    return Answer({"devices": rows}, "\n".join(lines))


def evaluate(folder: Path, policy_path: Path | None, *, exact: bool, progress: Progress) -> Answer:
    """Hear a policy of a study again, on the clips held back, in the fast arithmetic or in the exact one."""
    recipe = _recipe_of(folder)
    setting = make_setting(recipe)
    arithmetic = setting.backend.exact if exact else setting.backend.arithmetic
    if arithmetic is None:
        raise CommandError(
            f"--exact: {setting.backend.name} has no exact arithmetic here; without it the policy is heard in"
            f" {setting.backend.arithmetic.name}"
        )
    path = policy_path or folder / "policy.yaml"
    try:
        policy = read_policy(setting, path)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    for weights in {scheme.adapted for scheme in policy.values() if scheme.adapted is not None}:
        if not (folder / adapted_file(weights)).is_file():
            raise CommandError(
                f"{folder / adapted_file(weights)}: the policy has trained weights, and they are not there; put the"
                " file back"
            )
    calibration = calibrated(setting, progress)
    with Workers(setting, calibration, 1, moments_of(setting, progress), folder) as crew:
        rendered = None
        if exact:
            clips = setting.held_back_clips
            progress.begin(f"rendering in {arithmetic.name}, clips", len(clips))
            rendered = []
            for clip, samples in zip(clips, crew.render_exactly(policy, [None] * len(clips)), strict=True):
                rendered.append(samples)
                progress.step(clip.name)
        heard = hear(setting, crew, policy, "held_back", whole=True, rendered=rendered)
    return verdicts(policy.digest, arithmetic.name, heard)


def verdicts(digest: str, arithmetic: str, heard: Heard) -> Answer:
    """What a policy was found to keep, and in which arithmetic."""
    gates = [verdict_line(verdict) for verdict in heard.verdicts]
    data = {
        "policy_digest": digest,
        "arithmetic": arithmetic,
        "verdict": "kept" if heard.kept else "broken",
        "gates": gates,
    }
    said = "every gate kept" if heard.kept else "GATES BROKEN"
    return Answer(data, "\n".join([*gate_lines(gates), f"{said} in {arithmetic}"]))


def judge(
    reference: Path,
    degraded: Path,
    natural: Path | None,
    *,
    profile: str,
    gates: Path | None,
    stop: bool,
    free: bool,
    workers: int,
    json_path: Path | None,
    csv_path: Path | None,
    progress: Progress,
) -> Answer:
    """Hold clips on disk against gates, and write what was found where that is asked."""
    check_outputs([path for path in (json_path, csv_path) if path is not None])
    judged = judge_files(
        reference,
        degraded,
        natural,
        profile=profile,
        gates=gates,
        stop=stop,
        free=free,
        workers=workers,
        progress=progress,
    )
    data = found_data(judged)
    if json_path is not None:
        write_json(json_path, data)
    if csv_path is not None:
        write_csv(csv_path, judged)
    return Answer(data, findings(judged, data))


def report(folder: Path) -> Answer:
    """Write a study's report again."""
    try:
        page = _write_report(folder)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return Answer({"report": str(page)}, str(page))


def _write_report(folder: Path) -> Path:
    # Late: it is the only thing that needs matplotlib, a second to import.
    from precision_search.report.page import write_report

    return write_report(folder)


def _recipe_of(folder: Path) -> Recipe:
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise CommandError(f"{folder}: holds no finished study (there is no recipe.yaml); finish it with run --resume")
    return read_recipe(str(path), ())
