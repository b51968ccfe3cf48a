"""Loading: the voice that a recipe names, and the clips that there are of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from audio_eval.audio import read_folder, resample
from precision.recipe import Recipe
from precision_search.entrypoint import load_entrypoint
from precision_search.setting import SetupError
from voice.blvoice import BlVoice, BlVoiceCodec
from voice.decoder import DecoderVoice
from voice.decoder_config import SEVEN_B, DecoderConfig
from voice.embedded import EmbeddedVoice, bundled_clips
from voice.folding import fold_parametrizations
from voice.hf.base import HfError, Recording
from voice.hf.loading import load as load_hf
from voice.hifigan import HifiganVoice
from voice.model import Clip, Voice
from voice.nsf_voice import NsfVoice
from voice.vocos import VocosVoice

BUNDLED_RATE_HZ = 16000

Loaded = tuple[Voice, tuple[Clip, ...]]
"""A voice and the clips that there are of it."""


def load_model(recipe: Recipe) -> Loaded:
    """Load a recipe's model and its clips.

    Raises:
        SetupError, CheckpointError, AudioFileError: each names all that is wrong of its kind.
    """
    if recipe.model.hf is not None:
        return _hf(recipe)
    if recipe.model.entrypoint is not None:
        return load_entrypoint(
            recipe.model,
            recipe.data.search + recipe.data.held_back,
            partial(recordings, recipe),
            own_audio=recipe.data.audio is not None,
        )
    assert recipe.model.name is not None  # as the schema has it
    return MODELS[recipe.model.name](recipe)


def recordings(recipe: Recipe, rate: int) -> tuple[Recording, ...]:
    """Recordings from the user's folder, or those of the embedded voice, at a model's rate in Hz.

    Raises:
        SetupError: a recording is there twice.
        AudioFileError: the folder or a file cannot be read.
    """
    if recipe.data.audio is None:
        named = {clip.name: (clip.natural, BUNDLED_RATE_HZ) for clip in bundled_clips() if clip.natural is not None}
    else:
        named = dict(read_folder(recipe.data.audio))
    stems = Counter(Path(name).stem for name in named)
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice:
        raise SetupError(
            f"data.audio: {len(twice)} recordings are there as .wav and as .flac ({', '.join(twice)}); keep one of each"
        )
    found = []
    for name, (samples, source_rate) in named.items():
        audio = resample(samples, source_rate, rate)
        if recipe.data.seconds is not None:
            audio = audio[: int(recipe.data.seconds * rate)]
        found.append(Recording(Path(name).stem, audio))
    return tuple(found)


def _hf(recipe: Recipe) -> Loaded:
    model, count = recipe.model, recipe.data.search + recipe.data.held_back
    try:
        voice = load_hf(str(model.hf), revision=model.revision, trust_remote_code=model.trust_remote_code)
        fold_parametrizations(voice.module)
        return voice, voice.clips(count, recordings(recipe, voice.sample_rate_hz))
    except HfError as error:
        raise SetupError(f"model.hf: {error}") from error


def _embedded(recipe: Recipe) -> Loaded:
    if recipe.data.audio is not None:
        raise SetupError("data.audio: the embedded voice speaks its own sentences; leave it out, or name a vocoder")
    return EmbeddedVoice.load(Path(recipe.model.checkpoint) if recipe.model.checkpoint else None), bundled_clips()


def _hifigan(recipe: Recipe) -> Loaded:
    if recipe.model.checkpoint is None:
        raise SetupError(
            "model.checkpoint: hifigan needs one, and none was named; add --set model.checkpoint=PATH (a generator's"
            " checkpoint, its config.json beside it)"
        )
    config = Path(recipe.model.config) if recipe.model.config else None
    voice = HifiganVoice.load(Path(recipe.model.checkpoint), config)
    rate = voice.sample_rate_hz
    return voice, tuple(voice.clip(one.name, one.samples, rate) for one in recordings(recipe, rate))


def _vocos(recipe: Recipe) -> Loaded:
    voice = VocosVoice.load(Path(recipe.model.checkpoint) if recipe.model.checkpoint else None)
    rate = voice.sample_rate_hz
    return voice, tuple(voice.clip(one.name, one.samples, rate) for one in recordings(recipe, rate))


def _nsf(recipe: Recipe) -> Loaded:
    voice = NsfVoice.load(Path(recipe.model.checkpoint) if recipe.model.checkpoint else None)
    # F0 of the recordings that the package brings is known; of others it must be found.
    known = {clip.name: clip.inputs[2] for clip in bundled_clips()} if recipe.data.audio is None else {}
    rate, clips = voice.sample_rate_hz, []
    for seed, one in enumerate(recordings(recipe, rate)):
        f0_hz = known.get(one.name)
        frames = len(one.samples) // voice.mel.hop
        clips.append(voice.clip(one.name, one.samples, rate, None if f0_hz is None else f0_hz[:frames], seed))
    return voice, tuple(clips)


def _decoder(recipe: Recipe) -> Loaded:
    given = [key for key in ("checkpoint", "config") if getattr(recipe.model, key) is not None]
    said = [*(f"model.{key}" for key in given), *(["data.audio"] if recipe.data.audio is not None else [])]
    if said:
        raise SetupError(f"{', '.join(said)}: the decoder has seeded weights and writes its own clips; leave it out")
    voice = DecoderVoice.seeded()
    return voice, voice.clips(recipe.data.search + recipe.data.held_back)


def _blvoice(recipe: Recipe) -> Loaded:
    if recipe.data.audio is not None:
        raise SetupError("data.audio: blvoice reads its own sentences; leave it out, or name blvoice_codec")
    voice = BlVoice.load(Path(recipe.model.checkpoint) if recipe.model.checkpoint else None)
    return voice, voice.clips()


def _blvoice_codec(recipe: Recipe) -> Loaded:
    voice = BlVoiceCodec.load(Path(recipe.model.checkpoint) if recipe.model.checkpoint else None)
    return voice, voice.clips(recordings(recipe, voice.sample_rate_hz))


def _on_paper(recipe: Recipe) -> Loaded:
    raise SetupError(
        f"model.name: {recipe.model.name} is on paper, its weights are nowhere and nothing can be heard of it;"
        " precision-search cost prices it"
    )


ON_PAPER: Mapping[str, DecoderConfig] = {"blvoice_7b": SEVEN_B}
"""Models that can be priced alone."""
MODELS: Mapping[str, Callable[[Recipe], Loaded]] = {
    "embedded": _embedded,
    "hifigan": _hifigan,
    "nsf": _nsf,
    "vocos": _vocos,
    "decoder": _decoder,
    "blvoice": _blvoice,
    "blvoice_codec": _blvoice_codec,
    **dict.fromkeys(ON_PAPER, _on_paper),
}
"""The models that the package brings, by the name that a recipe has of each."""
