"""Train the embedded voice's prosody on the made speech: durations, F0 and voicing.

`python -m voice.training.prosody DATA OUT --minutes 15` keeps the newest weights in OUT/prosody.pt.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from voice.prosody import Prosody, ProsodyConfig
from voice.training.batch import Batch, arguments_of, train
from voice.training.speech import load


def losses(model: Prosody, batch: Batch) -> dict[str, Tensor]:
    """Squared error of log durations and of octaves (weighed 3 to 10), cross entropy of voicing."""
    encoded = model.encode(batch.phones, batch.phone_mask)
    log_durations = model.log_durations(encoded)
    duration = F.mse_loss(log_durations[batch.phone_mask], torch.log(batch.durations[batch.phone_mask]))
    octaves, logits = model.contour(encoded, batch.places, batch.features)
    sounding = batch.voiced.bool() & batch.frame_mask
    pitch = F.mse_loss(octaves[sounding], batch.octaves[sounding])
    voicing = F.binary_cross_entropy_with_logits(logits[batch.frame_mask], batch.voiced[batch.frame_mask])
    return {"duration": 3 * duration, "pitch": 10 * pitch, "voicing": voicing}


def main() -> None:
    """Train until the minutes are used up."""
    arguments = arguments_of(__doc__)
    learned, held_back = load(arguments.data / "train.npz"), load(arguments.data / "held_back.npz")
    model = Prosody(ProsodyConfig())
    train(model, losses, learned, Batch(held_back), arguments, arguments.out / "prosody.pt")


if __name__ == "__main__":
    main()
