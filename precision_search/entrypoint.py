"""Entrypoint: a model that a function of the user's builds, and the clips that another gives."""

import contextlib
import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from precision.mistakes import nearest, shown
from precision.model_section import ModelSection
from precision_search.setting import SetupError
from precision_search.sources import OURS
from voice.family import Family
from voice.folding import fold_parametrizations
from voice.hf.base import Recording
from voice.model import Clip, Rendering, Voice
from voice.noise import UnpairedNoiseError
from voice.torch_module import TorchModuleError, TorchVoice

_VOICE = ("name", "family", "module", "sample_rate_hz", "protected", "unforced", "reseeded", "render", "clips")
_NOT_THEIRS = ("<frozen", *(f"{Path(__file__).parents[1] / room}{os.sep}" for room in sorted(OURS)))
_OF_MODULE = ("inputs", "outputs", "sample_rate_hz", "family")

Recordings = Callable[[int], Sequence[Recording]]
"""Rate in Hz -> recordings at that rate."""


def load_entrypoint(
    model: ModelSection, count: int, recordings: Recordings, *, own_audio: bool
) -> tuple[Voice, tuple[Clip, ...]]:
    """Build a user's model and its clips.

    The function is called with torch's generator seeded, so that weights that it draws are the same in every process.

    Args:
        model: with an entrypoint.
        count: of clips, at most.
        recordings: for functions that ask for them by an argument of that name.
        own_audio: whether the recordings are the user's, who is told where nothing asks for them.

    Raises:
        SetupError: what is wrong with the functions, with what they give, or with what is said of it.
    """
    assert model.entrypoint is not None
    build = _function("entrypoint", model.entrypoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = _called("entrypoint", model.entrypoint, build, {})
    lacking = [name for name in _VOICE if not hasattr(made, name)]
    if lacking and not isinstance(made, nn.Module):
        raise SetupError(
            f"model.entrypoint: {model.entrypoint} gives a {type(made).__name__}, must be a torch.nn.Module, or a Voice"
            f" (voice/model.py) with clips(count, recordings): it lacks {', '.join(lacking)}"
        )
    known = {"count": count, "recordings": recordings}
    if lacking:
        voice, clips = _of_module(model, made, known, own_audio=own_audio)
    else:
        voice, clips = _of_voice(model, made, known, own_audio=own_audio)
    _refuse_unusable(model.entrypoint, voice, clips)
    return voice, clips


def _of_voice(
    model: ModelSection, voice: Any, known: Mapping[str, Any], *, own_audio: bool
) -> tuple[Voice, tuple[Clip, ...]]:
    idle = [key for key in _OF_MODULE if getattr(model, key) is not None]
    if idle:
        said = ", ".join(f"model.{key}" for key in idle)
        raise SetupError(f"{said}: {model.entrypoint} gives a Voice, which says that itself; leave it out")
    fold_parametrizations(voice.module.eval())
    voice.module.requires_grad_(False)
    what = f"{model.entrypoint}, clips"
    given = _called("entrypoint", what, voice.clips, _asked(what, voice.clips, known, voice.sample_rate_hz, own_audio))
    clips = tuple(itertools.islice(given, known["count"]))
    strange = [type(clip).__name__ for clip in clips if not isinstance(clip, Clip)]
    if strange or not clips:
        got = f"a {strange[0]}" if strange else "none"
        raise SetupError(f"model.entrypoint: {what} gives {got}, must be clips, as voice.model.Clip")
    return voice, clips


def _of_module(
    model: ModelSection, module: nn.Module, known: Mapping[str, Any], *, own_audio: bool
) -> tuple[Voice, tuple[Clip, ...]]:
    told = {key: _told(model, module, key) for key in _OF_MODULE[1:]}
    mistakes = []
    if model.inputs is None:
        mistakes.append(
            "model.inputs: missing, must be given: a function that gives clips, as my_package.my_model:clips, or for a"
            " first look names of arguments to shapes of noise, as {mel: [1, 80, 200]}"
        )
    rate, family, outputs = told["sample_rate_hz"], told["family"], told["outputs"]
    if type(rate) is not int or rate < 1:
        got = "missing" if rate is None else f"got {shown(rate)}"
        mistakes.append(f"model.sample_rate_hz: {got}, must be a whole number, here or as the module's own attribute")
    if family not in get_args(Family):
        got = "missing" if family is None else f"got {shown(family)}"
        families = ", ".join(get_args(Family))
        mistakes.append(f"model.family: {got}, must be one of {families}, here or as the module's own attribute")
    if outputs is not None and not isinstance(outputs, Mapping):
        mistakes.append(f"model.outputs: got {shown(outputs)} of the module, must be a mapping, as {{sound: 0}}")
    if mistakes:
        raise SetupError(f"{model.entrypoint} gives a torch module\n  " + "\n  ".join(mistakes))
    examples = _examples(model, known, rate, own_audio=own_audio)
    entry = str(model.entrypoint)
    places = {str(output): str(at) for output, at in (outputs or {}).items()}
    try:
        return TorchVoice.of(module, examples, name=_name(entry), family=family, sample_rate_hz=rate, outputs=places)
    except (TorchModuleError, UnpairedNoiseError) as error:
        raise SetupError(f"model.{error}") from error
    except Exception as error:
        raise SetupError(_raised(f"model.inputs: {entry} was built, and on its clips", error)) from error


def _told(model: ModelSection, module: nn.Module, key: str) -> Any:
    """What the recipe says of a module, or the module itself."""
    told = getattr(model, key)
    return getattr(module, key, None) if told is None else told


def _examples(model: ModelSection, known: Mapping[str, Any], rate: int, *, own_audio: bool) -> list[Any]:
    if isinstance(model.inputs, Mapping):
        if own_audio:
            raise SetupError("data.audio: noise is what model.inputs asks for; leave it out, or name a function there")
        return [_noise(model.inputs, seed) for seed in range(known["count"])]
    text = str(model.inputs)
    function = _function("inputs", text)
    asked = _asked(text, function, known, rate, own_audio)
    given = _called("inputs", text, lambda **named: list(itertools.islice(function(**named), known["count"])), asked)
    return list(given)


def _noise(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Normal noise of the shapes, the same in whatever order they stand."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shapes[name], generator=generator) for name in sorted(shapes)}


def _function(key: str, text: str) -> Callable[..., Any]:
    """What stands at `module:name`, with the working directory where python -m has it."""
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise SetupError(_raised(f"model.{key}: importing {module_name}", error)) from error
        raise SetupError(
            f"model.{key}: there is no module {error.name}; Python looked in {here} and among what is installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise SetupError(_raised(f"model.{key}: importing {module_name}", error)) from error
    for step in name.split("."):
        if not hasattr(found, step):
            near = nearest(step, [other for other in dir(found) if not other.startswith("_")])
            raise SetupError(f"model.{key}: {module_name} has no {name}{near}")
        found = getattr(found, step)
    if not callable(found):
        raise SetupError(f"model.{key}: {text} is a {type(found).__name__}, must be a function")
    function: Callable[..., Any] = found
    return function


def _asked(
    text: str, function: Callable[..., Any], known: Mapping[str, Any], rate: int, own_audio: bool
) -> dict[str, Any]:
    """Of `count` and `recordings` those that a function has arguments for."""
    parameters: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(ValueError, TypeError):  # of some that are not written in Python
        parameters = inspect.signature(function).parameters
    if own_audio and "recordings" not in parameters:
        raise SetupError(f"data.audio: {text} takes no argument `recordings`; give it one, or leave data.audio out")
    named = {"count": known["count"]} if "count" in parameters else {}
    return named | ({"recordings": tuple(known["recordings"](rate))} if "recordings" in parameters else {})


def _called(key: str, text: str, function: Callable[..., Any], named: Mapping[str, Any]) -> Any:
    try:
        return function(**named)
    except (Exception, SystemExit) as error:
        raise SetupError(_raised(f"model.{key}: {text}", error)) from error


def _raised(what: str, error: BaseException) -> str:
    """What was raised, and where: of a chain of calls the last line of the user's own."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS) and "site-packages" not in frame.filename
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{what} raises {type(error).__name__}: {error}{where}"


def _name(entry: str) -> str:
    """A model's name: the last part of its module, as reports show it."""
    return entry.partition(":")[0].rpartition(".")[2]


def _refuse_unusable(entry: str, voice: Voice, clips: Sequence[Clip]) -> None:
    """Refuse a model that in fp32 makes no sound, or something else of a clip the second time: nothing compares."""

    def render() -> Rendering:
        rendered: Rendering = _called("entrypoint", f"{entry}, render", lambda: voice.render(clips[0]), {})
        return rendered

    first, second = render(), render()
    pairs = list(zip(first.parts, second.parts, strict=False))
    same = len(first.parts) == len(second.parts) and all(torch.equal(one, other) for one, other in pairs)
    if not all(bool(torch.isfinite(part).all()) for part in first.parts):
        raise SetupError(
            f"model.entrypoint: {entry} gives NaN or Inf for {clips[0].name} in fp32 already; mend the model"
        )
    if first.waveform is not None and not bool(first.waveform.any()):
        raise SetupError(f"model.entrypoint: {entry} is silent on {clips[0].name}; give it inputs that make sound")
    if not same:
        raise SetupError(
            f"model.entrypoint: {entry} makes something else of {clips[0].name} the second time. Draw noise with torch,"
            " which is drawn again the same; with numpy or random draw it before, and give it as an input; and let no"
            " state stay in the module from call to call"
        )
