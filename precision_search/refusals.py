"""Refusals: what a recipe asks of a model that it cannot be judged by, said before anything is measured."""

from dataclasses import replace

from audio_eval.output import kind_of
from audio_eval.suite import METRICS
from backends.emulation.audition import Bench
from precision.search.exhaustive import LARGEST, space_size
from precision.sections import GatesSection
from precision_search.problem import missed_limits, pose
from precision_search.setting import Setting, SetupError
from voice.family import COMPARISONS
from voice.model import Rendering, Voice
from voice.sites import discover


def refuse(setting: Setting) -> None:
    """Refuse what cannot be judged.

    Raises:
        SetupError: the voice does not make what its family is judged by; a gate of the recipe's own is on what there is
            none of; no search can steer by the gates; no policy is within the limits, or there are too many to go
            through; other sites are called when nothing is forced.
    """
    _refuse_rendering(setting.voice, setting.first)
    _refuse_gates(setting)
    _refuse_search(setting)
    _refuse_hidden_sites(setting)


def _refuse_rendering(voice: Voice, made: Rendering) -> None:
    """Refuse a voice that does not make what its family is judged by, or has heads of no known kind."""
    judged = COMPARISONS[voice.family].judged
    kinds = {metric.heads for metric in METRICS.values() if metric.heads}
    strange = [head for head in made.logits if kind_of(head) not in kinds]
    mistakes = [
        f"head {head!r} is of no kind; begin its name with one of {', '.join(sorted(kinds))}" for head in strange
    ]
    if "tokens" in judged and not made.logits:
        mistakes.append(f"a model of the {voice.family} family is judged by its tokens, and `render` gives no logits")
    if "sound" in judged and made.waveform is None:
        mistakes.append(f"a model of the {voice.family} family is judged by its sound, and `render` gives none")
    if mistakes:
        raise SetupError(f"model: {voice.name} cannot be judged\n  " + "\n  ".join(mistakes))


def _refuse_gates(setting: Setting) -> None:
    """Refuse gates that the recipe itself sets, not its profile, on what such a model does not make."""
    written = setting.recipe.written.gates
    own = (*written.add, *written.replace) if isinstance(written, GatesSection) else written
    mistakes = []
    for metric in dict.fromkeys(METRICS[gate.metric] for gate in own):
        reason = metric.misfit(replace(setting.material("held_back"), free=metric.free))
        if metric.free and not COMPARISONS[setting.voice.family].free:
            reason = f"nothing is forced on a {setting.voice.family}, so there is no render without it"
        if reason is not None:
            mistakes.append(f"{metric.name}: {reason}")
    if mistakes:
        raise SetupError("gates: cannot be judged on this model; leave them out\n  " + "\n  ".join(mistakes))
    material = setting.material("search")
    bench = Bench.of(setting.recipe.gates, material, len(setting.search_clips))
    contrary = [gate.metric for gate in bench.gates if gate.metric in bench.additive and gate.min is not None]
    if contrary:
        raise SetupError(f"gates: less {', '.join(contrary)} is better, and a minimum is set; set max in its place")
    if bench.budgets and not any(bench.budgets.values()):
        raise SetupError(
            f"gates: a search steers by how much of {', '.join(bench.budgets)} is allowed, and that is 0; set a max"
            " above 0, or add a gate on another metric that adds"
        )
    if not bench.budgets:
        adding = [name for name, metric in METRICS.items() if metric.additive and not metric.inapplicable(material)]
        raise SetupError(f"gates: a search steers by metrics that add, and none is one; add {', '.join(adding)}")


def _refuse_search(setting: Setting) -> None:
    """Refuse limits that no policy meets, whatever it sounds like, and a space too large to be gone through."""
    wanted = setting.recipe.search
    posed = pose(setting)
    size = space_size(posed.problem)
    if wanted.method == "exhaustive" and size > LARGEST:
        raise SetupError(
            f"search.method: exhaustive goes through at most {LARGEST} policies, and there are {float(size):.3g}; give"
            " sites fewer schemes, or use method: exact"
        )
    missed = missed_limits(setting, posed)
    if missed:
        raise SetupError("search.within: no policy is within the limits\n  " + "\n  ".join(missed))


def _refuse_hidden_sites(setting: Setting) -> None:
    """Refuse a model that calls other sites when nothing is forced on it: no policy could be total for both."""
    voice = setting.voice
    free = voice.unforced(setting.held_back_clips[0])
    if free is None:
        return
    forced = {site.name for site in setting.sites}
    alone = {site.name for site in discover(voice.module, lambda: voice.render(free), free.seconds).sites}
    if forced != alone:
        raise SetupError(
            f"model: {voice.name} does not call the same sites with nothing forced on it; compute what forcing"
            f" makes idle all the same\n  only forced: {', '.join(sorted(forced - alone)) or '-'}"
            f"\n  only unforced: {', '.join(sorted(alone - forced)) or '-'}"
        )
