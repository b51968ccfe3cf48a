"""Train the language model of BL-Voice `mini` on the made speech, coded by a trained codec.

`python -m voice.training.blvoice DATA OUT --minutes 50` reads OUT/codec.pt and keeps the newest weights in OUT/lm.pt.
Utterances lie one behind the other in a step, each with places of its own and blind to the others. Of the codes that
are read some are replaced, so that a slip of its own does not throw the model off.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from voice.codec_encoder import coded, columns_of
from voice.decoder import SpeechDecoder
from voice.decoder_config import MINI
from voice.phones import index_of
from voice.reading import SOUNDS, prompt_of, spoken
from voice.training.codec import Codec
from voice.training.segments import learning_rate, parser_of
from voice.training.speech import HOP, SAMPLE_RATE_HZ, Utterance, load
from voice.transformer import HIDDEN_SCORE, Places

ROWS = 320
"""Of a step, about."""
REPLACED = 0.2
TEXT_WEIGHT = 0.3
SMOOTHING = 0.1
"""Of the labels in learning: what no text says is not to be learned by heart, nor said with confidence."""


@dataclass(frozen=True)
class Sequences:
    """One utterance as rows of tokens."""

    prompt: Tensor
    """[1 + codebooks, rows]"""
    rows: Tensor
    """[1 + codebooks, frames + delay]; behind its last frame a codebook repeats it."""
    frames: int


class Pairs(nn.Module):
    """Adds to what is known of a pair of phones what is known of each: most pairs are rare."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Parameter(0.2 * torch.randn(SOUNDS, width))
        self.second = nn.Parameter(0.2 * torch.randn(SOUNDS, width))

    def forward(self, own: Tensor) -> Tensor:
        """Table [tokens, width] of the rows' own part; its first row and any behind the pairs stand alone."""
        both = (self.first[:, None] + self.second[None]).flatten(0, 1)
        return own + F.pad(both, (0, 0, 1, own.shape[0] - 1 - len(both)))


def sequences(utterance: Utterance, codec: Codec) -> Sequences:
    """Code an utterance, and lay its phones beside."""
    frames = len(utterance.samples) // MINI.codec.frame_samples
    samples = torch.from_numpy(utterance.samples[: frames * MINI.codec.frame_samples])
    with torch.no_grad():
        codes, _ = coded(codec.encoder(columns_of(samples[None]))[0], codec.decoder)
    phones = [index_of(phone) for phone in utterance.phones]
    ends_s = (np.cumsum(utterance.durations) * HOP / SAMPLE_RATE_HZ).tolist()
    return Sequences(*laid_out(phones, ends_s, codes), frames)


def laid_out(phones: Sequence[int], ends_s: Sequence[float], codes: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt and rows, each [1 + codebooks, rows], of phones, when they end, and codes [codebooks, frames]."""
    books, frames = codes.shape
    nothing = MINI.codec.codes
    asked = prompt_of(phones)
    prompt = torch.full((1 + books, len(asked)), nothing)
    prompt[0] = torch.tensor(asked)
    text = spoken(phones, ends_s, frames)
    rows = torch.full((1 + books, frames + MINI.delay), nothing)
    rows[0] = torch.tensor([*text, *[text[-1]] * MINI.delay])
    for book in range(books):
        rows[1 + book, book:] = codes[book, (torch.arange(frames + MINI.delay - book)).clamp(max=frames - 1)]
    return prompt, rows


def losses(model: SpeechDecoder, batch: Sequence[Sequences], draw: torch.Generator | None) -> dict[str, Tensor]:
    """Cross entropy of the text head and of each codebook's, and how often the likeliest code is right."""
    inputs, targets, spots, owners = [], [], [], []
    for index, one in enumerate(batch):
        tokens = torch.cat([model.none(), one.prompt, one.rows], dim=1)
        target = tokens[:, 1:].clone()
        behind = torch.arange(one.rows.shape[1])[None] - torch.arange(MINI.codec.codebooks)[:, None]
        target[:, : one.prompt.shape[1]] = -100
        target[1:, one.prompt.shape[1] :][(behind < 0) | (behind >= one.frames)] = -100
        inputs.append(tokens[:, :-1])
        targets.append(target)
        spots.append(torch.arange(target.shape[1]))
        owners.append(torch.full((target.shape[1],), index))
    tokens, target = torch.cat(inputs, dim=1), torch.cat(targets, dim=1)
    if draw is not None:
        codes = tokens[1:]
        replaced = (torch.rand(codes.shape, generator=draw) < REPLACED) & (codes < MINI.codec.codes)
        random = torch.randint(MINI.codec.codes, codes.shape, generator=draw)
        tokens = torch.cat([tokens[:1], torch.where(replaced, random, codes)])
    spot, owner = torch.cat(spots), torch.cat(owners)
    seen = (owner[:, None] == owner[None]) & (spot[:, None] >= spot[None])
    mask = torch.where(seen, 0.0, HIDDEN_SCORE)
    places = Places(model.positions.cosine[spot], model.positions.sine[spot], mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, _ = model.read(tokens[0], model.codec.indices(tokens[1:]), places)
        said = (target[0] >= 0).nonzero()[:, 0]
        logits = model.logits(hidden[said])
    smoothing = 0.0 if draw is None else SMOOTHING
    text = F.cross_entropy(logits.pop("text").float(), target[0, said], label_smoothing=smoothing)
    audio = torch.stack([values.float() for values in logits.values()])  # [books, rows, codes]
    goal = target[1:, said]
    right = (audio.argmax(dim=2) == goal)[goal >= 0].float().mean()
    each = torch.stack(
        [F.cross_entropy(one, aim, label_smoothing=smoothing) for one, aim in zip(audio, goal, strict=True)]
    )
    return {"text": text, "audio": each.mean(), "first": each[0], "last": each[-1], "right": right}


def batches(every: Sequence[Sequences], draw: np.random.Generator) -> Iterator[list[Sequences]]:
    """Utterances in random order, about ROWS rows at a time, without end."""
    batch: list[Sequences] = []
    rows = 0
    while True:
        for index in draw.permutation(len(every)):
            one = every[index]
            batch.append(one)
            rows += one.prompt.shape[1] + one.rows.shape[1]
            if rows >= ROWS:
                yield batch
                batch, rows = [], 0


def begun(width: int = MINI.width) -> SpeechDecoder:
    """A model to train."""
    model = SpeechDecoder(MINI)
    for table in (model.text, model.codes):
        nn.init.normal_(table.weight, std=0.2)
    for layer in model.layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5 * 0.8)
    for name, parameter in model.layers.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            parameter.data.mul_((2 * MINI.layers) ** -0.5)
    for module, start in ((model.text, None), (model.text_head, 0.1)):
        if start is not None:
            nn.init.normal_(module.weight, std=0.02)
        pairs = Pairs(width)
        if start is not None:
            for part in pairs.parameters():
                part.data.mul_(start)
        parametrize.register_parametrization(module, "weight", pairs)
    return model


def folded(model: SpeechDecoder) -> dict[str, Tensor]:
    """Weights of a model that was trained, as `SpeechDecoder` has them; its codec's are left out."""
    state = {k: v for k, v in model.state_dict().items() if ".parametrizations." not in f".{k}"}
    state |= {"text.weight": model.text.weight, "text_head.weight": model.text_head.weight}
    return without_codec({name: tensor.detach().clone() for name, tensor in state.items()})


def without_codec(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a model's state this script trains."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("codec.")}


def main() -> None:
    """Train until the minutes are used up."""
    parser = parser_of(__doc__, minutes=50, rate=1.5e-3)
    parser.add_argument("--resume", action="store_true", help="begin with OUT/lm_raw.pt")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    codec = Codec()
    codec.load_state_dict(torch.load(arguments.out / "codec.pt", weights_only=True))
    learned = [sequences(u, codec) for u in load(arguments.data / "train.npz")]
    judged = [sequences(u, codec) for u in load(arguments.data / "held_back.npz")[24:]]
    model = begun()
    model.codec.requires_grad_(False)
    raw = arguments.out / "lm_raw.pt"
    if arguments.resume:
        model.load_state_dict(torch.load(raw, weights_only=True), strict=False)  # all but the codec
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.1)
    draw = torch.Generator().manual_seed(int(arguments.resume))
    begin, limit = time.monotonic(), arguments.minutes * 60
    recent: list[float] = []
    for step, batch in enumerate(batches(learned, np.random.default_rng(int(arguments.resume))), 1):
        elapsed = time.monotonic() - begin
        if elapsed > limit:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(arguments.rate, elapsed / limit, step - 1, warm_up=300)
        found = losses(model, batch, draw)
        optimizer.zero_grad()
        (TEXT_WEIGHT * found["text"] + found["audio"]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        recent.append(found["audio"].item())
        if step % 100 == 0:
            print(f"{elapsed / 60:6.1f} min  step {step}  audio {np.mean(recent[-100:]):.4f}", end="", flush=True)
            if step % 500 == 0:
                with torch.no_grad():
                    parts = [losses(model, judged[at : at + 4], None) for at in range(0, len(judged), 4)]
                held = {name: round(float(np.mean([part[name].item() for part in parts])), 4) for name in parts[0]}
                print(f"  held back {held}", end="", flush=True)
                torch.save(without_codec(model.state_dict()), raw)
            print(flush=True)
    torch.save(without_codec(model.state_dict()), raw)
    torch.save(folded(model), arguments.out / "lm.pt")


if __name__ == "__main__":
    main()
