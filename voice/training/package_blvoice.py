"""Put BL-Voice `mini` into the package: its weights in fp16, and prompt and rows of the bundled clips.

`python -m voice.training.package_blvoice DATA OUT` reads OUT/{codec,codec_decoder,lm}.pt and DATA/held_back.npz, and
writes voice/data/: blvoice.safetensors, blvoice_rows.json.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from voice.blvoice import ROWS, WEIGHTS, BlVoiceModel
from voice.training.blvoice import sequences
from voice.training.codec import Codec
from voice.training.package import CLIPS, FOLDER
from voice.training.speech import load


def main() -> None:
    """Write the package's data, replacing what was there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    trained = torch.load(arguments.out / "codec_decoder.pt", weights_only=True)
    stored = BlVoiceModel()
    state = {f"model.{name}": tensor for name, tensor in torch.load(arguments.out / "lm.pt", weights_only=True).items()}
    for name, tensor in trained.items():
        state[name if name.startswith("encoder.") else f"model.codec.{name.removeprefix('decoder.')}"] = tensor
    stored.load_state_dict(state)
    halved = {name: tensor.half().contiguous() for name, tensor in stored.state_dict().items()}
    save_file(halved, FOLDER / WEIGHTS)
    (FOLDER / WEIGHTS).chmod(0o644)
    # Codes are those that the weights as stored give.
    codec = Codec()
    codec.load_state_dict(
        {
            name: halved[name if name.startswith("encoder.") else f"model.codec.{name.removeprefix('decoder.')}"]
            for name in trained
        }
    )
    lines = []
    for number, utterance in enumerate(load(arguments.data / "held_back.npz")[:CLIPS], 1):
        one = sequences(utterance, codec)
        row = {"name": f"slt_{number:03d}", "prompt": one.prompt[0].tolist(), "rows": one.rows.tolist()}
        lines.append(json.dumps(row))
    text = ",\n".join(lines)
    (FOLDER / ROWS).write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
