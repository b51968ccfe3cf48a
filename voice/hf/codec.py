"""Neural codecs of transformers: sound to codes, codes to sound; the search for each code is a site of its own."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.family import Family
from voice.hf.base import HfError, HfVoice, Recording
from voice.model import Clip, Rendering


class Codebook(nn.Module):
    """Entries of one quantizer. The search for the nearest one is a product with them, and so a site."""

    def __init__(self, entries: Tensor) -> None:
        """Take the entries [entries, width]."""
        super().__init__()
        self.weight = nn.Parameter(entries.detach().clone(), requires_grad=False)
        self.spacing = _spacing(self.weight)
        """Median over the entries of the squared distance to the next one."""

    def forward(self, rest: Tensor) -> Tensor:
        """Negative squared distances [frames, entries] of `rest` [frames, width] to the entries, by their spacing.

        The unit makes the logits of all codecs alike: trained entries lie at lengths from 1e-2 to 1e2, and what moves
        the choice of one would otherwise be nothing, or everything, in nats.
        """
        squares = rest.square().sum(1, keepdim=True) + self.weight.square().sum(1)
        return (2 * F.linear(rest, self.weight) - squares) / self.spacing

    def entry(self, codes: Tensor) -> Tensor:
        """What codes [frames] stand for [frames, width]."""
        return F.embedding(codes, self.weight)


class Codec(nn.Module):
    """A codec's model taken apart, its parts at the paths that they have in transformers.

    Transformers runs encoder and quantizer as one, and gives codes and no distances; and some of its codecs search by
    `torch.cdist`, or in entries computed on the way, which are no weights.
    """

    encoder: Any
    decoder: Any
    quantizers: ClassVar[str]
    """Path of the list of quantizers, one a codebook."""
    usual: ClassVar[int | None] = None
    """How many codebooks deployers use, where there are more; None: all."""

    def __init__(self, model: Any, codebooks: int | None) -> None:
        """Take a model in; it is changed, and of no further use by itself.

        Args:
            model: of transformers.
            codebooks: how many are used, from the first; None: `usual`, or all there are.

        Raises:
            HfError: there are not so many, or too few to decode, or the model has one half alone.
        """
        super().__init__()
        adopt(self, model)
        self.sample_rate_hz = int(getattr(model.config, "sampling_rate", None) or model.config.sample_rate)
        self.hop = self._hop(model.config)
        fewest, available = self._fewest(), len(self.stages())
        self.codebooks = min(self.usual or available, available) if codebooks is None else codebooks
        if not fewest <= self.codebooks <= available:
            raise HfError(f"the model can do with {fewest} to {available} codebooks, and was asked for {codebooks}")
        self._keep(self.codebooks)
        for stage in self.stages():
            stage.codebook = self._codebook(stage.codebook)

    def forward(self, sound: Tensor, codes: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Code a recording and decode it again.

        Args:
            sound: [time] in -1..1.
            codes: [codebooks, frames], which every stage and the decoder are given; None: those that are nearest.

        Returns:
            Waveform [time], no longer than `sound`; `audio.N` -> logits of codebook N, given the codes before it.
        """
        quantized, logits = self.quantized(self.encoded(sound), codes)
        waveform = self.decoded(quantized)[: sound.shape[0]]
        return waveform, {f"audio.{index}": values for index, values in enumerate(logits)}

    @abstractmethod
    def encoded(self, sound: Tensor) -> Tensor:
        """Frames [1, width, frames] of a sound [time]."""

    @abstractmethod
    def decoded(self, quantized: Tensor) -> Tensor:
        """Sound [time] of frames [1, width, frames], at least as long as the one that they were made of, or nearly."""

    def quantized(self, frames: Tensor, codes: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Frames as the codes have them [1, width, frames], and the logits of each codebook [frames, entries]."""
        return self.residual(frames, self.stages(), codes)

    def stages(self) -> Any:
        """The quantizers in use, one a codebook."""
        return self.get_submodule(self.quantizers)

    def _fewest(self) -> int:
        return 1

    def _keep(self, codebooks: int) -> None:
        """Drop the codebooks after the first so many."""
        del self.stages()[codebooks:]

    def _codebook(self, codebook: Any) -> Codebook:
        """What stands for a codebook of transformers."""
        return Codebook(codebook.embed)

    def _hop(self, config: Any) -> int:
        """Samples of a frame."""
        return int(config.hop_length)

    def residual(self, rest: Tensor, stages: Sequence[Any], codes: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Each stage codes what those before it left over."""
        total, logits = torch.zeros_like(rest), []
        for index, stage in enumerate(stages):
            logits.append(stage.codebook(self.searched(stage, rest)))
            entry = self.entry(stage, logits[-1].argmax(1) if codes is None else codes[index])
            rest, total = rest - entry, total + entry
        return total, logits

    def searched(self, stage: Any, rest: Tensor) -> Tensor:
        """What a stage looks for in its codebook [frames, width], where [1, width, frames] is left over."""
        return rest[0].T

    def entry(self, stage: Any, codes: Tensor) -> Tensor:
        """What a stage takes away for codes [frames]: [1, width, frames]."""
        found: Tensor = stage.codebook.entry(codes).T[None]
        return found


@dataclass(frozen=True)
class CodecVoice(HfVoice):
    """A codec that says a recording again; a clip's inputs are the recording [time] and the codes [codebooks, frames].

    The decoder, and every stage of the quantizer after the first, is given the reference's codes, so that sound differs
    by arithmetic alone; whether the search would have found them is judged by the logits. So no site is protected for
    the codes' sake: a search of codes that low precision leads astray shows in the agreement of tokens, and most of
    the error comes with the encoder's activations, not with the small product at its end.
    """

    codebooks: int | None = None
    """How many are used, from the first; None: as deployers do (`Codec.usual`)."""

    family: ClassVar[Family] = "codec"
    codec: ClassVar[type[Codec]]
    module: Codec

    def __post_init__(self) -> None:
        """Take the model of transformers apart."""
        if not isinstance(self.module, Codec):
            object.__setattr__(self, "module", self.codec(self.module, self.codebooks).eval().requires_grad_(False))

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the recordings and of the sound."""
        return self.module.sample_rate_hz

    def clips(self, count: int, recordings: Sequence[Recording] = ()) -> tuple[Clip, ...]:
        """Recordings with the codes that the model gives them in fp32."""
        check_recordings(self, count, recordings, self.module.hop)
        return tuple(self._clip(recording) for recording in recordings[:count])

    def unforced(self, clip: Clip) -> Clip:
        """The recording alone."""
        return Clip(clip.name, clip.inputs[:1], clip.seconds, clip.natural)

    def rendered(self, *inputs: Tensor) -> Rendering:
        """Sound and the logits of each codebook."""
        return Rendering(*self.module(*inputs))

    def _clip(self, recording: Recording) -> Clip:
        sound = torch.from_numpy(recording.samples)
        rendered = self.render(Clip(recording.name, (sound,), 1.0))
        codes = torch.stack([values.argmax(1) for values in rendered.logits.values()])
        natural = recording.samples[: len(rendered.sound)]
        return Clip(recording.name, (sound, codes), len(natural) / self.sample_rate_hz, natural)


def adopt(module: nn.Module, model: nn.Module) -> None:
    """Make a model's parts those of a module, under their own names.

    Raises:
        HfError: it was saved without its encoder or its decoder.
    """
    for half in ("encoder", "decoder"):
        if getattr(model, half, model) is None:
            raise HfError(f"the codec was saved without its {half}; sound is coded and decoded: give it both")
    for name, child in model.named_children():
        module.add_module(name, child)


def check_recordings(voice: HfVoice, count: int, recordings: Sequence[Recording], shortest: int) -> None:
    """Refuse too few recordings, and those that are not [time] float32 of `shortest` samples at least."""
    wrong = [
        f"{recording.name}: {recording.samples.dtype} {list(recording.samples.shape)}"
        for recording in recordings[:count]
        if recording.samples.ndim != 1 or recording.samples.dtype != "float32" or len(recording.samples) < shortest
    ]
    if len(recordings) < count:
        wrong.append(f"{count} clips need as many recordings, and there are {len(recordings)}")
    if wrong:
        raise HfError(
            f"{voice.name} says recordings again: give it mono float32 [time] at {voice.sample_rate_hz} Hz, of"
            f" {shortest} samples or more; " + "; ".join(wrong)
        )


def _spacing(entries: Tensor) -> float:
    between = torch.cdist(entries, entries).fill_diagonal_(torch.inf)
    spacing = between.min(1).values.square().median().item()
    # Entries that mostly coincide were never trained; any unit serves.
    return spacing if spacing > 0 else 1.0
