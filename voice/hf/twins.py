"""Tiny twins: each architecture of transformers from a small configuration with seeded random weights.

`python -m voice.hf.twins NAME FOLDER` writes one, as `save_pretrained` does, with safetensors. They say nothing that
anyone understands: they hold every operation of the real ones, and are loaded by the same code.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

TWINS: Mapping[str, str] = MappingProxyType(
    {
        # name of the twin -> `module:function` under voice.hf.tiny; function(folder: Path) -> None writes the model.
        "mimi": "codec:mimi",
        "encodec": "codec:encodec",
        "encodec_48khz": "codec:encodec_48khz",
        "dac": "codec:dac",
        "xcodec": "codec:xcodec",
        "pocket_tts_codec": "codec:pocket",
        "vibevoice_codec": "codec:vibevoice",
        "whisper": "whisper:whisper",
        "moonshine": "whisper:moonshine",
        "qwen2_audio": "speech_llm:qwen2_audio",
        "voxtral": "speech_llm:voxtral",
        "qwen3_asr": "speech_llm:qwen3_asr",
        "ultravox": "ultravox:ultravox",
        "qwen2_5_omni": "qwen_omni:omni",
        "qwen2_5_omni_thinker": "qwen_omni:thinker",
        "bark": "bark:bark",
        "csm": "csm:csm",
        "dia": "dia:dia",
        "moshi": "moshi:moshi",
        "mms_tts": "vits:one_speaker",
        "vits": "vits:speakers",
        "fastspeech2": "fastspeech2:with_vocoder",
        "fastspeech2_apart": "fastspeech2:vocoder_apart",
        "speecht5": "speecht5:speecht5",
        "speecht5_hifigan": "vocoder:hifigan",
        "univnet": "vocoder:univnet",
    }
)


def build(name: str, folder: Path) -> Path:
    """Write a twin to a folder, and give the folder.

    Raises:
        KeyError: no twin of that name.
    """
    module, _, function = TWINS[name].partition(":")
    write: Callable[[Path], None] = getattr(import_module(f"voice.hf.tiny.{module}"), function)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    return folder


def main() -> None:
    """Write the twin that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(TWINS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(build(arguments.name, arguments.folder))


if __name__ == "__main__":
    main()
