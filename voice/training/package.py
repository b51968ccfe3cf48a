"""Put what was trained into the package: weights, lexicon, clips.

`python -m voice.training.package DATA OUT` reads OUT/{prosody,acoustic,vocoder,pronouncer}.pt, OUT/lexicon.json and
DATA/held_back.npz and writes voice/data/: embedded.safetensors, lexicon.json, clips.json and clips/*.flac.
"""

import argparse
import json
import shutil
from pathlib import Path

import soundfile
import torch
from safetensors.torch import save_file

from voice.training.speech import SAMPLE_RATE_HZ, load

FOLDER = Path(__file__).parents[1] / "data"
CLIPS = 24  # the first of the held-back sentences; the rest stay with the model card's script


def main() -> None:
    """Write the package's data, replacing what was there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    state: dict[str, torch.Tensor] = {}
    for name in ("prosody", "acoustic", "vocoder", "pronouncer"):
        prefix = name if name == "pronouncer" else f"model.{name}"
        loaded = torch.load(arguments.out / f"{name}.pt", weights_only=True)
        state |= {f"{prefix}.{key}": tensor.contiguous() for key, tensor in loaded.items()}
    (FOLDER / "clips").mkdir(parents=True, exist_ok=True)
    save_file(state, FOLDER / "embedded.safetensors")
    (FOLDER / "embedded.safetensors").chmod(0o644)
    shutil.copyfile(arguments.out / "lexicon.json", FOLDER / "lexicon.json")
    rows = []
    for number, utterance in enumerate(load(arguments.data / "held_back.npz")[:CLIPS], 1):
        name = f"slt_{number:03d}"
        soundfile.write(FOLDER / "clips" / f"{name}.flac", utterance.samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        rows.append(
            {
                "name": name,
                "text": utterance.text,
                "phones": " ".join(utterance.phones),
                "durations": utterance.durations.tolist(),
                "f0_hz": [round(float(f0), 1) for f0 in utterance.f0_hz],
            }
        )
    text = ",\n".join(json.dumps(row) for row in rows)
    (FOLDER / "clips.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
