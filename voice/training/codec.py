"""Train the codec of BL-Voice `mini` on the made speech: spectral losses, codebooks by moving averages.

`python -m voice.training.codec DATA OUT --minutes 20` keeps the newest weights in OUT/codec.pt. With `--decoder` it
goes on with the decoder alone, its codes as they are: so a language model may learn the codes meanwhile.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.codec_decoder import CodecDecoder, Past
from voice.codec_encoder import CodecEncoder, codebook, coded, columns_of, distances
from voice.decoder_config import MINI
from voice.training.segments import learning_rate, parser_of
from voice.training.speech import Utterance, load
from voice.training.vocoder import spectral_loss

SEGMENT_FRAMES = 14
UNHEARD_FRAMES = 2
"""At the begin of a segment, where the decoder lacks what came before."""
BATCH = 8
DECAY = 0.99
COMMITMENT = 0.25
RARE = 0.03
"""Uses in a batch, by moving average, below which an entry is given up for a latent of the batch."""


class Codebooks:
    """Residual quantization that learns its entries as moving averages of what they stand for."""

    def __init__(self, decoder: CodecDecoder) -> None:
        self.decoder = decoder
        books, codes, latent = decoder.config.codebooks, decoder.config.codes, decoder.config.latent
        self.uses = torch.zeros(books, codes)
        self.sums = torch.zeros(books, codes, latent)
        self.begun = False

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized latents [batch, frames, latent], gradients straight through, and how far off entries are."""
        left = latents.reshape(-1, latents.shape[-1])
        total, off = torch.zeros_like(left), left.new_zeros(())
        for book in range(self.decoder.config.codebooks):
            entries = codebook(self.decoder, book)
            if not self.begun:
                self._begin(book, left.detach())
            with torch.no_grad():
                chosen = distances(left, entries).argmax(dim=1)
                found = F.embedding(chosen, entries)
                self._learn(book, left, chosen)
            off = off + F.mse_loss(left, found)
            total, left = total + found, left - found
        self.begun = True
        total = total.view_as(latents)
        return latents + (total - latents).detach(), off

    def _begin(self, book: int, left: Tensor) -> None:
        picked = left[torch.randint(len(left), (self.uses.shape[1],))]
        entries = picked + 0.01 * left.std() * torch.randn_like(picked)
        self.uses[book], self.sums[book] = 1.0, entries
        self._write(book)

    def _learn(self, book: int, left: Tensor, chosen: Tensor) -> None:
        which = F.one_hot(chosen, self.uses.shape[1]).float()
        self.uses[book].mul_(DECAY).add_((1 - DECAY) * which.sum(dim=0))
        self.sums[book].mul_(DECAY).add_((1 - DECAY) * which.T @ left.detach())
        rare = self.uses[book] < RARE
        if rare.any():
            fresh = left[torch.randint(len(left), (int(rare.sum()),))].detach()
            self.uses[book, rare], self.sums[book, rare] = 1.0, fresh
        self._write(book)

    def _write(self, book: int) -> None:
        codebook(self.decoder, book).data.copy_(self.sums[book] / self.uses[book].clamp(min=1e-5)[:, None])


class Codec(nn.Module):
    """Both halves, as they are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CodecEncoder(MINI.codec.latent)
        self.decoder = CodecDecoder(MINI.codec)


def main() -> None:
    """Train until the minutes are used up."""
    parser = parser_of(__doc__, minutes=20, rate=2e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--decoder", action="store_true", help="train the decoder alone, from OUT/codec.pt")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    draw = np.random.default_rng(int(arguments.resume) + 2 * int(arguments.decoder))
    learned, held_back = load(arguments.data / "train.npz"), load(arguments.data / "held_back.npz")
    codec = Codec()
    with torch.no_grad():
        assert codec.decoder.last.bias is not None
        codec.decoder.last.bias[: MINI.codec.head_hop + 1] = -3.0  # so that it begins softly
        codec.decoder.entries.weight.zero_()
    path = arguments.out / "codec.pt"
    books = Codebooks(codec.decoder)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume or arguments.decoder:
        codec.load_state_dict(torch.load(path, weights_only=True))
        books.begun, books.uses[:] = True, 1.0
        for book in range(MINI.codec.codebooks):
            books.sums[book] = codebook(codec.decoder, book).detach()
    if arguments.decoder:
        path = arguments.out / "codec_decoder.pt"
        codec.encoder.requires_grad_(False)
    codec.decoder.entries.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in codec.parameters() if p.requires_grad], lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4
    )
    begun, limit = time.monotonic(), arguments.minutes * 60
    recent: list[float] = []
    step = 0
    while (elapsed := time.monotonic() - begun) < limit:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(arguments.rate, elapsed / limit, step, warm_up=100)
        true = _segments(learned, draw)
        latents = codec.encoder(columns_of(true))
        if arguments.decoder:
            with torch.no_grad():
                quantized, off = coded(latents, codec.decoder)[1], latents.new_zeros(())
        else:
            quantized, off = books(latents)
        made = codec.decoder.sound(quantized.mT, Past())
        skipped = UNHEARD_FRAMES * MINI.codec.frame_samples
        loss = spectral_loss(made[:, skipped:], true[:, skipped:])
        optimizer.zero_grad()
        (loss + COMMITMENT * off).backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % 100 == 0:
            held = _held_back(codec, held_back[24:32]) if step % 500 == 0 else float("nan")
            print(
                f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(recent[-100:]):.4f}  off {off.item():.4f}"
                f"  held back {held:.4f}",
                flush=True,
            )
        if step % 200 == 0:
            torch.save(codec.state_dict(), path)
    torch.save(codec.state_dict(), path)


def _segments(utterances: list[Utterance], draw: np.random.Generator) -> Tensor:
    length = SEGMENT_FRAMES * MINI.codec.frame_samples
    rows = []
    for index in draw.integers(len(utterances), size=BATCH):
        samples = utterances[index].samples
        start = int(draw.integers(max(1, len(samples) - length + 1)))
        piece = samples[start : start + length]
        rows.append(np.pad(piece, (0, length - len(piece))))
    return torch.from_numpy(np.stack(rows))


def _held_back(codec: Codec, utterances: list[Utterance]) -> float:
    losses = []
    with torch.no_grad():
        for utterance in utterances:
            frames = len(utterance.samples) // MINI.codec.frame_samples
            true = torch.from_numpy(utterance.samples[: frames * MINI.codec.frame_samples])[None]
            made = codec.decoder.sound(coded(codec.encoder(columns_of(true)), codec.decoder)[1].mT, Past())
            losses.append(spectral_loss(made, true).item())
    return float(np.mean(losses))


if __name__ == "__main__":
    main()
