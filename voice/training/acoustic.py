"""Train the embedded voice's acoustic model on the made speech: L1 of log-mel, true durations and F0.

`python -m voice.training.acoustic DATA OUT --minutes 60` keeps the newest weights in OUT/acoustic.pt. At the end it
writes OUT/mels.npz, its own mels of the training sentences with true durations and F0, for the vocoder to learn on.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voice.acoustic import Acoustic, AcousticConfig
from voice.mel import EMBEDDED_MEL, log_mel
from voice.training.batch import Batch, arguments_of, train
from voice.training.speech import Utterance, load


def losses(model: Acoustic, batch: Batch) -> dict[str, Tensor]:
    """L1 of log-mel over the real frames."""
    made = _speak(model, batch)
    return {"mel": (made - batch.mel).abs().mean(dim=1)[batch.frame_mask].mean()}


def _speak(model: Acoustic, batch: Batch) -> Tensor:
    encoded = model.encode(batch.phones, batch.phone_mask)
    frames = model.stretch(encoded, batch.places, batch.features) * batch.frame_mask[..., None]
    return model.decode(frames, batch.octaves, batch.voiced, batch.frame_mask)


def mels_of(utterances: list[Utterance]) -> list[Tensor]:
    """Log-mel [mels, frames] of each utterance."""
    with torch.no_grad():
        return [log_mel(torch.from_numpy(u.samples)[None], EMBEDDED_MEL)[0] for u in utterances]


def main() -> None:
    """Train until the minutes are used up, then write the predicted mels."""
    arguments = arguments_of(__doc__)
    learned, held_back = load(arguments.data / "train.npz"), load(arguments.data / "held_back.npz")
    mels = mels_of(learned)
    model = Acoustic(AcousticConfig())
    with torch.no_grad():
        model.to_mel.bias.copy_(torch.cat(mels, dim=1).mean(dim=1))
    judged = Batch(held_back, mels_of(held_back))
    train(model, losses, learned, judged, arguments, arguments.out / "acoustic.pt", mels)
    _write_mels(model, learned, mels, arguments.out / "mels.npz")


def _write_mels(model: Acoustic, utterances: list[Utterance], mels: list[Tensor], path: Path) -> None:
    model.eval()
    with torch.no_grad():
        made = [_speak(model, Batch([u], [mel]))[0].numpy() for u, mel in zip(utterances, mels, strict=True)]
    np.savez(path, mels=np.concatenate(made, axis=1))


if __name__ == "__main__":
    main()
