"""Qwen2.5-Omni: a thinker that hears and writes, a talker that says it in codes, a flow that makes them sound."""

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import soxr
import torch
from torch import Tensor

from voice.family import Family
from voice.hf.base import HfError, Recording
from voice.hf.speech_llm import WindowedSpeechLlm
from voice.model import Clip, Rendering
from voice.noise import paired_noise

SPEAKERS = "spk_dict.pt"
LONGEST_CODES = 100
"""Codes of an answer at most, 2 s."""
REPETITION_PENALTY = 1.05
"""On the logits of codes that were said, as in use."""
HEARD_HZ = 16000
LONGEST_SECONDS = 300
"""What the published feature extractor cuts a recording to."""
FRAMES_A_SECOND = 100


class Thinker(WindowedSpeechLlm):
    """The thinker alone: Whisper-like convolutions, attention over windows of 2 s, Qwen2.

    A clip's inputs are the log-mel spectrogram [1, bands, frames], the mask [1, frames], the prompt and the forced
    tokens. Run on seeded random weights alone.
    """

    mask_argument: ClassVar[str] = "feature_attention_mask"
    template: ClassVar[tuple[str, str]] = (
        "<|im_start|>system\nYou are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of"
        " perceiving auditory and visual inputs, as well as generating text and speech.<|im_end|>\n<|im_start|>user\n"
        "<|audio_bos|>",
        "<|audio_eos|><|im_end|>\n<|im_start|>assistant\n",
    )

    def stops(self) -> frozenset[int]:
        """Tokens that end an answer: the generation's, else the configuration's."""
        config = self.model.config
        found = super().stops()
        other = getattr(config.get_text_config(), "eos_token_id", None) if not found else None
        return frozenset([other]) if isinstance(other, int) else found

    def chosen(self, logits: Tensor, step: int) -> int:
        """The likeliest token, the first of them no end: the talker has nothing to say of an empty answer."""
        allowed = logits.clone()
        if step == 0:
            allowed[torch.tensor(sorted(self.stops()), dtype=torch.long)] = -math.inf
        return super().chosen(allowed, step)

    def plain_extractor(self) -> Any:
        """Log-mel bands of the encoder's number, up to LONGEST_SECONDS."""
        bands = self.model.config.audio_config.num_mel_bins
        return import_module("transformers").WhisperFeatureExtractor(feature_size=bands, chunk_length=LONGEST_SECONDS)


class OmniVoice(Thinker):
    """The whole: a clip's inputs are spectrogram, mask, prompt, the noise's seed [1], forced text and forced codes.

    Text logits are those of the thinker, given the forced text; logits `audio.0` those of the talker, given the hidden
    states of that and the forced codes; sound is made of the forced codes, from first noise that the seed gives, by the
    real solver with all its steps, and BigVGAN. Forced is what the model itself writes and says in fp32: the likeliest
    token of each step, and the likeliest code under the repetition penalty that is in use (there codes are drawn at
    random), at most 2 s. The speaker is the first in spk_dict.pt. Recordings come at the rate of its own voice, 24 kHz.

    Images and video are not given to it. Run on seeded random weights alone.
    """

    family: ClassVar[Family] = "autoregressive"
    fragile: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "token2wav.code2wav_dit_model.proj_out": "head of the flow: every step of the solver adds what it gives",
            "token2wav.code2wav_dit_model.time_embed.*": "tells the flow how far it is, on all its steps",
            "token2wav.code2wav_bigvgan_model.*sample#*": "fixed filter around a periodic activation",
        }
    )

    def __post_init__(self) -> None:
        """Attend by windows in one product.

        Raises:
            HfError: the checkpoint has no talker.
        """
        if not self.module.has_talker:
            raise HfError(f"{self.name} makes no sound (enable_audio_output is off); its thinker alone can be loaded")
        super().__post_init__()

    @property
    def model(self) -> Any:
        """The thinker, which hears."""
        return self.module.thinker

    @property
    def talker(self) -> Any:
        """The part that says the answer in codes."""
        return self.module.talker

    @property
    def token2wav(self) -> Any:
        """The part that makes codes sound."""
        return self.module.token2wav

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the sound made: what a frame becomes in BigVGAN."""
        samples: int = math.prod(self.token2wav.config.bigvgan_config.upsample_rates)
        return samples * FRAMES_A_SECOND

    def features(self, recording: Recording, **options: Any) -> Mapping[str, Tensor]:
        """The spectrogram of a recording, which is brought to the rate that the thinker hears at."""
        samples = soxr.resample(recording.samples, self.sample_rate_hz, HEARD_HZ)
        found: Mapping[str, Tensor] = self.extractor(samples, sampling_rate=HEARD_HZ, return_tensors="pt", **options)
        return found

    def unforced(self, clip: Clip) -> Clip:
        """The clip without its text and codes; the noise stays."""
        return Clip(clip.name, clip.inputs[: self.inputs_heard + 1], clip.seconds)

    def reseeded(self, clip: Clip, seed: int) -> Clip:
        """The clip from other noise."""
        before, after = clip.inputs[: self.inputs_heard], clip.inputs[self.inputs_heard + 1 :]
        return Clip(clip.name, (*before, torch.tensor([seed]), *after), clip.seconds)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Sound, and logits of text and codes."""
        heard, seed = inputs[: self.inputs_heard], int(inputs[self.inputs_heard])
        forced = inputs[self.inputs_heard + 1 :]
        text = forced[0] if forced else self.written(heard)[0]
        hidden = self.hidden(heard, text)
        prompt, replies = self.told(heard[-1], text, hidden)
        codes = forced[1] if forced else self.spoken(prompt, replies)
        logits = {"text": self.headed(hidden, len(text)), "audio.0": self.said_logits(prompt, replies, codes)}
        return Rendering(self.sounded(codes, seed), logits)

    def told(self, prompt: Tensor, text: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the talker is given: vectors [prompt + 2, width] to begin with, and one [replies, width] a code.

        Where there are more codes than vectors of the reply, the last, of padding, is given again. Of sound, which the
        talker does not hear, there is the hidden state alone.
        """
        talker, embed = self.talker, self.model.get_input_embeddings()
        ids = torch.cat([prompt, text[:-1]])
        vectors = hidden + embed(ids) * (ids != self.placeholder)[:, None]
        special = torch.tensor([self.speaker["bos_token"], talker.text_eos_token, talker.text_pad_token])
        begin, end, pad = embed(special)[:, None]
        count = len(prompt)
        codes = talker.get_input_embeddings()(torch.tensor([talker.codec_pad_token, talker.codec_bos_token]))
        opening = torch.cat([begin, vectors[count : count + 1]]) + codes
        return torch.cat([vectors[:count], opening]), torch.cat([vectors[count + 1 :], end, pad])

    def said_logits(self, prompt: Tensor, replies: Tensor, codes: Tensor) -> Tensor:
        """Logits [steps, codes] of every code [steps], given those before it."""
        talker = self.talker
        places = torch.arange(len(codes) - 1).clamp(max=len(replies) - 1)
        vectors = torch.cat([prompt, talker.get_input_embeddings()(codes[:-1]) + replies[places]])
        states = talker.model(inputs_embeds=talker.thinker_to_talker_proj(vectors)[None], use_cache=False)
        logits: Tensor = talker.codec_head(states.last_hidden_state[0, -len(codes) :]).float()
        return logits

    def spoken(self, prompt: Tensor, replies: Tensor) -> Tensor:
        """Codes [steps] of the talker's own; the end is one of them where it comes."""
        talker = self.talker
        ends = {talker.codec_pad_token, talker.codec_eos_token}
        sounding = self.token2wav.config.dit_config.num_embeds
        begun = {talker.codec_mask_token, talker.codec_pad_token, talker.codec_bos_token}
        allowed = torch.zeros(talker.codec_head.out_features, dtype=torch.bool)
        allowed[:sounding] = True
        vectors, past = prompt, None
        codes: list[int] = []
        while len(codes) < LONGEST_CODES and not (codes and codes[-1] in ends):
            found = talker.model(
                inputs_embeds=talker.thinker_to_talker_proj(vectors)[None], past_key_values=past, use_cache=True
            )
            past = found.past_key_values
            logits = talker.codec_head(found.last_hidden_state[0, -1]).float()
            said = torch.tensor(sorted({*codes, *begun}))
            logits[said] = torch.where(
                logits[said] > 0, logits[said] / REPETITION_PENALTY, logits[said] * REPETITION_PENALTY
            )
            # Nothing can be heard of no code at all.
            allowed[sorted(ends)] = bool(codes)
            codes.append(int(logits.masked_fill(~allowed, -math.inf).argmax()))
            reply = replies[min(len(codes), len(replies)) - 1]
            vectors = talker.get_input_embeddings()(torch.tensor(codes[-1:])) + reply
        return torch.tensor(codes)

    def sounded(self, codes: Tensor, seed: int) -> Tensor:
        """Sound [time] of codes [steps], up to where they end."""
        speaker = self.speaker
        heard = self._sounding(codes)
        with paired_noise(seed):
            sound: Tensor = self.token2wav(
                heard[None],
                conditioning=speaker["cond"].float().reshape(1, -1),
                reference_mel=speaker["ref_mel"].float().reshape(1, -1, speaker["ref_mel"].shape[-1]),
            )
        return sound.reshape(-1)

    @property
    def speaker(self) -> Mapping[str, Any]:
        """The first speaker: its token of text, its embedding and a spectrogram of it."""
        speakers: Any = self.module.speaker_map
        found: Mapping[str, Any] = next(iter(speakers.values()))
        return found

    def _clip(self, recording: Recording) -> Clip:
        with torch.inference_mode():
            heard = self.heard(recording)
            text, _ = self.written(heard)
            codes = self.spoken(*self.told(heard[-1], text, self.hidden(heard, text)))
        frames = len(self._sounding(codes)) * self.token2wav.config.dit_config.repeats
        inputs = (*heard, torch.tensor([0]), text, codes)
        return Clip(recording.name, inputs, frames / FRAMES_A_SECOND)

    def _sounding(self, codes: Tensor) -> Tensor:
        """Codes before the end."""
        return codes[codes < self.token2wav.config.dit_config.num_embeds]


class Omni:
    """The loader: transformers' own, which cannot give the names of missing weights and load the speakers at once."""

    @classmethod
    def from_pretrained(cls, folder: str, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Read the model and its speakers.

        Raises:
            HfError: spk_dict.pt is missing, of a checkpoint that makes sound.
        """
        transformers = import_module("transformers")
        speakers = Path(folder) / SPEAKERS
        settings = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if settings.get("enable_audio_output", True) and not speakers.is_file():
            raise HfError(f"{folder}: {SPEAKERS} is missing, which holds the voices; copy it beside the weights")
        read = transformers.PreTrainedModel.from_pretrained.__func__
        model, found = read(transformers.Qwen2_5OmniForConditionalGeneration, folder, **options)
        if speakers.is_file():
            # Tensors and numbers alone: transformers reads it with weights_only.
            model.load_speakers(str(speakers))
        return model, found
