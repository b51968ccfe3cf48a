"""streamable: what of a voice runs step by step, and a clip as the inputs of its steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from voice.embedded import EmbeddedVoice
from voice.graph import SiteGraph, graph_of
from voice.hifigan import HifiganVoice
from voice.model import Clip, Voice
from voice.streaming.step import StreamGraph, stream
from voice.streaming.timing import StreamingError
from voice.streaming.utterance import Utterance, in_chunks


@dataclass(frozen=True, slots=True, eq=False)
class Streamable:
    """A part of a model that can be streamed, on one clip."""

    module: nn.Module
    """Takes the inputs in their order, and gives a waveform [time]."""
    sites_of: nn.Module
    """The whole model: sites have the names that they have in it."""
    inputs: Mapping[str, Tensor]
    time_axes: Mapping[str, int]
    sample_rate_hz: int

    def graph(self) -> SiteGraph:
        """The part as a graph, on the whole clip; GraphError where it cannot be traced."""
        return graph_of(self.module, self.inputs, parts=("waveform",), sites_of=self.sites_of)

    def step(self, chunk_ms: float = 80.0) -> StreamGraph:
        """The part as a step of about so many milliseconds; errors as those of `stream`."""
        return stream(self.graph(), time_axes=self.time_axes, chunk_ms=chunk_ms, sample_rate_hz=self.sample_rate_hz)

    def utterance(self, chunk_ms: float = 80.0) -> Utterance:
        """The clip, chunk by chunk; errors as those of `step`."""
        return in_chunks(self.step(chunk_ms), self.inputs)


@runtime_checkable
class StreamableVoice(Protocol):
    """A voice that says itself how it streams: in chunks (`Streamable.utterance`), or in steps of its own."""

    def utterance(self, clip: Clip, chunk_ms: float) -> Utterance:
        """A clip in runs of about so many milliseconds.

        Raises:
            StreamingError: it has no runs of that length.
        """


def utterance(voice: Voice, clip: Clip, chunk_ms: float = 80.0) -> Utterance:
    """Give a clip as a voice streams it.

    Raises:
        GraphError: the part cannot be traced.
        StreamingError: nothing of this voice can be streamed, or not in runs of that length.
    """
    if isinstance(voice, StreamableVoice):
        return voice.utterance(clip, chunk_ms)
    return streamable(voice, clip).utterance(chunk_ms)


def streamable(voice: Voice, clip: Clip) -> Streamable:
    """Give the part of a voice that runs in chunks: all of a HiFi-GAN, the vocoder of the embedded voice.

    What comes before that part runs once, for the whole utterance.

    Raises:
        StreamingError: nothing is known of this voice.
    """
    for kind, (path, time_axes) in _PARTS.items():
        if isinstance(voice, kind):
            part = _Part(voice.module, path)
            inputs = dict(zip(time_axes, _inputs_of(voice, clip, path), strict=True))
            return Streamable(part, voice.module, inputs, time_axes, voice.sample_rate_hz)
    raise StreamingError(
        f"voice {voice.name} ({type(voice).__name__}) does not say what of it can be streamed: give it a method"
        " utterance(clip, chunk_ms), see voice.streaming.StreamableVoice; or leave out --stream, for a program of a"
        " whole clip"
    )


_PARTS: Mapping[type, tuple[str, Mapping[str, int]]] = {
    HifiganVoice: ("", {"mel": 2}),
    EmbeddedVoice: ("vocoder", {"mel": 2, "source": 2}),
}
"""Kind of voice -> path of the part, and the time axes of its inputs."""


class _Part(nn.Module):
    """A part of a model, under the whole."""

    def __init__(self, whole: nn.Module, path: str) -> None:
        super().__init__()
        self.whole = whole
        self._path = path
        self.training = whole.training

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give the waveform [time]."""
        waveform: Tensor = self.whole.get_submodule(self._path)(*inputs)
        return waveform.flatten()


def _inputs_of(voice: Voice, clip: Clip, path: str) -> tuple[Any, ...]:
    """What the part takes when the voice renders a clip."""
    seen: list[tuple[Any, ...]] = []
    note: Callable[[nn.Module, tuple[Any, ...]], None] = lambda _module, inputs: seen.append(inputs)  # noqa: E731
    hook = voice.module.get_submodule(path).register_forward_pre_hook(note)
    try:
        voice.render(clip)
    finally:
        hook.remove()
    return seen[0]
