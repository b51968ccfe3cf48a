"""load: a Hugging Face model from a repository or a folder, by the adapter of its family."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from voice.hf.base import HfError, HfVoice
from voice.hf.sources import folder_of, require_weights, settings_of


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which adapter takes a `model_type` of transformers, and the class that loads its weights."""

    adapter: str
    """`module:Class` under voice.hf, a subclass of HfVoice."""
    loads: str
    """Name of a class of transformers, whose `from_pretrained` reads the weights; `module:Class` under voice.hf where
    transformers has none."""
    attention: str = "sdpa"
    """How attention is computed; "eager" for a class that has no other."""
    files: tuple[str, ...] = ()
    """Names of further files of a repository that it reads, beside configurations, tokenizers and weights."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        # One line an architecture, by `model_type`, in the order of docs/voices.md.
        "mimi": Architecture("codec_mimi:MimiVoice", "MimiModel"),
        "encodec": Architecture("codec_encodec:EncodecVoice", "EncodecModel", "eager"),
        "dac": Architecture("codec_dac:DacVoice", "DacModel", "eager"),
        "xcodec": Architecture("codec_dac:XcodecVoice", "XcodecModel", "eager"),
        "pocket_tts_audio_tokenizer": Architecture("codec_continuous:PocketCodecVoice", "PocketTTSAudioTokenizerModel"),
        "vibevoice_acoustic_tokenizer": Architecture(
            "codec_continuous:VibeVoiceCodecVoice", "VibeVoiceAcousticTokenizerModel", "eager"
        ),
        "whisper": Architecture("whisper:WhisperVoice", "WhisperForConditionalGeneration"),
        "moonshine": Architecture("whisper:MoonshineVoice", "MoonshineForConditionalGeneration"),
        "qwen2_audio": Architecture("speech_llm:Qwen2AudioVoice", "Qwen2AudioForConditionalGeneration"),
        "voxtral": Architecture("speech_llm:VoxtralVoice", "VoxtralForConditionalGeneration"),
        "qwen3_asr": Architecture("speech_llm:Qwen3AsrVoice", "Qwen3ASRForConditionalGeneration"),
        "ultravox": Architecture("ultravox:UltravoxVoice", "ultravox:Ultravox"),
        "qwen2_5_omni": Architecture("qwen_omni:OmniVoice", "qwen_omni:Omni", files=("spk_dict.pt",)),
        "qwen2_5_omni_thinker": Architecture("qwen_omni:Thinker", "Qwen2_5OmniThinkerForConditionalGeneration"),
        "bark": Architecture("bark:BarkVoice", "BarkModel", "eager"),
        "csm": Architecture("csm:CsmVoice", "CsmForConditionalGeneration"),
        "dia": Architecture("dia:DiaVoice", "DiaForConditionalGeneration"),
        "moshi": Architecture("moshi:MoshiVoice", "MoshiForConditionalGeneration"),
        "vits": Architecture("vits:VitsVoice", "VitsModel", "eager"),
        "fastspeech2_conformer": Architecture("fastspeech2:FastSpeech2Voice", "fastspeech2:FastSpeech2", "eager"),
        "fastspeech2_conformer_with_hifigan": Architecture(
            "fastspeech2:FastSpeech2Voice", "FastSpeech2ConformerWithHifiGan", "eager"
        ),
        "speecht5": Architecture("speecht5:SpeechT5Voice", "speecht5:SpeechT5", "eager"),
        "speecht5_hifigan": Architecture("vocoder:HifiGanVoice", "SpeechT5HifiGan", "eager"),
        "fastspeech2_conformer_hifigan": Architecture("vocoder:HifiGanVoice", "FastSpeech2ConformerHifiGan", "eager"),
        "hifigan": Architecture("vocoder:HifiGanVoice", "FastSpeech2ConformerHifiGan", "eager"),
        "univnet": Architecture("vocoder:UnivNetVoice", "UnivNetModel", "eager"),
        "kokoro": Architecture("kokoro:KokoroVoice", "kokoro:Kokoro"),
    }
)


def load(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> HfVoice:
    """Load a model in fp32, ready to render.

    Args:
        source: a folder that `save_pretrained` wrote, or the name of a repository, as kyutai/mimi.
        revision: of a repository: a branch, a tag or a commit.
        trust_remote_code: run Python that lies beside the weights; off unless a recipe asks for it.

    Raises:
        HfError: transformers is not installed, the source cannot be read, its architecture has no adapter or brings
            Python of its own that is not to be run, or weights are missing, of another shape, or no safetensors.
    """
    transformers = _transformers()
    further = tuple(sorted({name for architecture in ARCHITECTURES.values() for name in architecture.files}))
    folder = folder_of(source, revision, python=trust_remote_code, more=further)
    settings = settings_of(folder)
    kind, remote = settings["model_type"], bool(settings.get("auto_map"))
    architecture = ARCHITECTURES.get(kind)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        own = "; the Python that lies beside it is not run" if remote else ""
        raise HfError(
            f"{source}: no adapter for the architecture {kind}{own}. There are adapters for {known}. Any other model is"
            " taken by model.entrypoint: a function that builds it, and one that gives its inputs"
        )
    ours = ":" in architecture.loads
    if remote and not ours and not trust_remote_code and not _knows(transformers, kind):
        raise HfError(
            f"{source}: transformers {transformers.__version__} does not know the architecture {kind}, and the model"
            " brings Python of its own; read it, and where you trust it say so by trust_remote_code: true"
        )
    require_weights(folder)
    loader = _named(architecture.loads) if ours else getattr(transformers, architecture.loads)
    try:
        with _without_bars():
            model, found = loader.from_pretrained(
                str(folder),
                trust_remote_code=trust_remote_code,
                dtype="float32",
                attn_implementation=architecture.attention,
                use_safetensors=True,
                output_loading_info=True,
            )
    except HfError:
        raise
    except (OSError, ValueError, RuntimeError, TypeError, ImportError, KeyError, _broken_file()) as error:
        raise HfError(f"{source}: cannot be read as a model of the architecture {kind}: {error}") from error
    _require_complete(source, found)
    # A repository's folder in the cache is named by its commit.
    path = Path(source).expanduser()
    name = path.resolve().name if path.is_dir() else path.name
    voice: HfVoice = _named(architecture.adapter)(name, model.eval().requires_grad_(False), str(folder))
    return voice


@contextmanager
def _without_bars() -> Iterator[None]:
    """Within the context, transformers draws no progress bars; then as it was set before."""
    bars = import_module("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _require_complete(source: str, found: Mapping[str, Any]) -> None:
    """See that every weight of the architecture was read; what the file holds beyond them does not matter."""
    missing = sorted(found["missing_keys"])
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise HfError(
            f"{source}: {len(missing)} weights are missing: {', '.join(missing[:5])}{more}. They would be random; is it"
            " the checkpoint of another architecture, or only a part of one?"
        )


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise HfError(
            f"models of Hugging Face need transformers; pip install 'precision-search[hf]' ({error})"
        ) from error


def _knows(transformers: Any, kind: str) -> bool:
    """Whether transformers has an architecture itself."""
    return kind in transformers.CONFIG_MAPPING


def _broken_file() -> type[Exception]:
    error: type[Exception] = import_module("safetensors").SafetensorError
    return error


def _named(place: str) -> Any:
    """What stands at `module:name` under voice.hf."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"voice.hf.{module}"), name)
