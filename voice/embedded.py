"""The embedded voice: text to waveform at 16 kHz, small enough to ship and real enough to break."""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import soundfile
import torch
from torch import Tensor, nn

from voice.acoustic import Acoustic, AcousticConfig, frame_places
from voice.checkpoint import load_into, load_state_dict
from voice.family import Family
from voice.model import Clip, Rendering
from voice.phones import index_of
from voice.pronunciation import Pronouncer
from voice.prosody import F0_CENTRE_HZ, Prosody, ProsodyConfig
from voice.text import to_phones
from voice.vocoder import Vocoder, VocoderConfig, make_source

DATA = files("voice") / "data"
MAX_FRAMES_A_PHONE = 60  # 0.96 s; no phone of the training voice is as long


class EmbeddedModel(nn.Module):
    """Prosody, acoustic model and vocoder in one module."""

    def __init__(
        self,
        prosody: ProsodyConfig | None = None,
        acoustic: AcousticConfig | None = None,
        vocoder: VocoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.prosody = Prosody(prosody or ProsodyConfig())
        self.acoustic = Acoustic(acoustic or AcousticConfig())
        self.vocoder = Vocoder(vocoder or VocoderConfig())

    def forward(
        self,
        phones: Tensor,
        durations: Tensor | None = None,
        f0_hz: Tensor | None = None,
        noise_seed: Tensor | None = None,
    ) -> Tensor:
        """Speak.

        Args:
            phones: [phones] indices.
            durations: [phones] frames of 16 ms, forced; None leaves them to the prosody network.
            f0_hz: [frames] forced, 0 where unvoiced; needs forced durations; None leaves it to the prosody network.
            noise_seed: whole number [] of the source's noise; None is 0.

        Returns:
            Waveform [frames * 256], float32, about -1..1.
        """
        rhythm = self.prosody.encode(phones[None])
        predicted = torch.exp(self.prosody.log_durations(rhythm))[0].round().long().clamp(1, MAX_FRAMES_A_PHONE)
        places, features = frame_places(predicted if durations is None else durations)
        octaves, voicing = self.prosody.contour(rhythm, places[None], features[None])
        voiced = (voicing > 0).to(octaves.dtype)
        if f0_hz is not None:
            voiced = (f0_hz[None] > 0).to(octaves.dtype)
            octaves = torch.log2(f0_hz[None].clamp(min=1.0) / F0_CENTRE_HZ)
        frames = self.acoustic.stretch(self.acoustic.encode(phones[None]), places[None], features[None])
        mel = self.acoustic.decode(frames, octaves, voiced)
        f0_hz = F0_CENTRE_HZ * torch.exp2(octaves.clamp(-2.0, 2.0)) * voiced
        seed = 0 if noise_seed is None else int(noise_seed)
        waveform: Tensor = self.vocoder(mel, make_source(f0_hz, self.vocoder.config, seed))
        return waveform[0]


@dataclass(frozen=True)
class EmbeddedVoice:
    """The embedded model with its text front end and its clips."""

    module: EmbeddedModel
    pronouncer: Pronouncer
    lexicon: Mapping[str, tuple[str, ...]]
    name: str = "embedded"
    family: Family = "non_autoregressive"
    sample_rate_hz: int = 16000
    protected: Mapping[str, str] = field(
        default_factory=lambda: {
            "prosody.*": "it decides timing and pitch, which clips with forced durations and F0 cannot show"
        }
    )

    @classmethod
    def load(cls, checkpoint: Path | None = None) -> "EmbeddedVoice":
        """Load the weights that the package brings, or a checkpoint of the same shape.

        Raises:
            CheckpointError: as `voice.checkpoint` has it.
        """
        path = checkpoint or Path(str(DATA / "embedded.safetensors"))
        state = load_state_dict(path)
        words = json.loads((DATA / "lexicon.json").read_text(encoding="utf-8"))
        module = EmbeddedModel()
        pronouncer = Pronouncer(tuple(words["chunks"]))
        both = nn.ModuleDict({"model": module, "pronouncer": pronouncer})
        load_into(both, state, path)
        both.eval().requires_grad_(False)
        return cls(module, pronouncer, {word: tuple(phones.split()) for word, phones in words["words"].items()})

    def render(self, clip: Clip) -> Rendering:
        """Waveform [time] of a clip, float32."""
        with torch.inference_mode():
            return Rendering(self.sound(clip))

    def sound(self, clip: Clip) -> Tensor:
        """Waveform that `render` gives, with gradients where they are wanted."""
        waveform: Tensor = self.module(*clip.inputs)
        return waveform

    def excerpt(self, clip: Clip, place: float, seconds: float) -> Clip:
        """Whole phones in a row, at least `seconds` of them where the clip has as much; durations and F0 forced.

        `place` in 0..1 goes over the phones at which that length can begin. A clip with nothing forced stays whole.
        """
        if len(clip.inputs) < 3:
            return clip
        phones, durations, f0_hz = clip.inputs[:3]
        frame_seconds = self.module.vocoder.config.hop_samples / self.sample_rate_hz
        ends = [0, *itertools.accumulate(durations.tolist())]
        wanted = min(math.ceil(seconds / frame_seconds), ends[-1])
        first = int(place * sum(ends[-1] - begin >= wanted for begin in ends[:-1]))
        first = min(first, max(i for i, begin in enumerate(ends[:-1]) if ends[-1] - begin >= wanted))
        last = next(i for i, end in enumerate(ends) if end - ends[first] >= wanted)
        inputs = (phones[first:last], durations[first:last], f0_hz[ends[first] : ends[last]])
        return Clip(f"{clip.name}+{first}", inputs, (ends[last] - ends[first]) * frame_seconds, None)

    def unforced(self, clip: Clip) -> Clip:
        """The same sentence with the model's own durations and F0."""
        return Clip(clip.name, clip.inputs[:1], clip.seconds, None)

    def reseeded(self, clip: Clip, seed: int) -> Clip | None:
        """The same sentence with other noise in the vocoder's source; None where durations and F0 are not forced."""
        forced = clip.inputs[:3]
        return replace(clip, inputs=(*forced, torch.tensor(seed))) if len(forced) == 3 else None

    def speak(self, text: str) -> Tensor:
        """Waveform [time] of a text, with the model's own durations."""
        return self.render(self.clip_of_text(text)).sound

    def clip_of_text(self, text: str) -> Clip:
        """Make a clip of a text without forced durations; its seconds are estimated from the phones."""
        phones = to_phones(text, self.lexicon, self.pronouncer.pronounce)
        indices = torch.tensor([index_of(phone) for phone in phones])
        return Clip(text, (indices,), 0.08 * len(phones), None)


def bundled_clips() -> tuple[Clip, ...]:
    """The sentences that the package brings: none was trained on; durations, F0 and sound of the training voice."""
    clips = []
    for row in json.loads((DATA / "clips.json").read_text(encoding="utf-8")):
        phones = torch.tensor([index_of(phone) for phone in row["phones"].split()])
        with (DATA / "clips" / f"{row['name']}.flac").open("rb") as file:
            natural, rate = soundfile.read(file, dtype="float32")
        inputs = (phones, torch.tensor(row["durations"]), torch.tensor(row["f0_hz"]))
        clips.append(Clip(row["name"], inputs, len(natural) / rate, natural))
    return tuple(clips)
