"""Lowered: a policy heard as its program computes it, with every result stored as the card stores it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from audio_eval.output import Output
from backends.emulation.audition import output_of
from backends.tenstorrent.lower import LoweringError, lower, stored_operands
from backends.tenstorrent.lower.builder import Between
from backends.tenstorrent.lower.operands import Operands
from backends.tenstorrent.simulate import SimulationError, simulate
from calibrate.moments import Moments
from precision_search.commands import Answer, CommandError, verdicts
from precision_search.jury import hear
from precision_search.lowering import Asked, CardChoice, choose, refuse_refused
from precision_search.progress import Progress
from precision_search.run import calibrated, moments_of
from precision_search.workers import Workers
from voice.graph import GraphError, export_graph
from voice.model import Rendering


def evaluate_lowered(folder: Path, policy: Path | None, between: Between, progress: Progress) -> Answer:
    """Hear a policy of a study on the clips held back, as the program for its card computes them.

    With fp32 between sites that is what `evaluate --exact` hears; with bf16 it is not.

    Raises:
        CommandError: the study is not for a Tenstorrent card or has not ended, or the model cannot be lowered.
    """
    chosen = choose(Asked(str(folder), policy, between=between))
    refuse_refused(chosen)
    setting = chosen.setting
    moments = moments_of(setting, progress)
    rendered = rendered_lowered(chosen, moments, progress)
    with Workers(setting, calibrated(setting, progress), 1, moments, folder) as crew:
        heard = hear(setting, crew, chosen.policy, "held_back", whole=True, rendered=rendered)
    return verdicts(chosen.policy.digest, f"the lowered program, {between} between sites", heard)


def rendered_lowered(chosen: CardChoice, moments: Mapping[str, Moments], progress: Progress) -> list[Output]:
    """What the program makes of every clip held back; it is lowered anew for each, as lengths differ."""
    torch.set_num_threads(1)
    setting, operands = chosen.setting, dict[str, Operands]()
    progress.begin("computing the lowered program, clips", len(setting.held_back_clips))
    found = []
    for clip in setting.held_back_clips:
        try:
            graph = export_graph(setting.voice, clip)
            operands = operands or stored_operands(graph, chosen.policy, moments, setting.chains, chosen.adapted)
            program = lower(graph, chosen.policy, chosen.card, operands, between=chosen.between)
            parts = simulate(program, graph.examples)
        except (GraphError, LoweringError, SimulationError) as error:
            raise CommandError(f"{setting.voice.name}, clip {clip.name}: {error}") from error
        logits = {name: parts[name] for name in parts if name.startswith(("text", "audio."))}
        found.append(output_of(Rendering(parts.get("waveform"), logits)))
        progress.step(clip.name)
    return found
