"""Streaming: a convolutional model as a step of one chunk, with state, that gives what the whole utterance gives."""

from voice.streaming.step import StreamGraph, stream
from voice.streaming.streamable import Streamable, StreamableVoice, streamable
from voice.streaming.streamer import Streamer, run_stream
from voice.streaming.timing import StreamingError, Timing

__all__ = [
    "StreamGraph",
    "Streamable",
    "StreamableVoice",
    "Streamer",
    "StreamingError",
    "Timing",
    "run_stream",
    "stream",
    "streamable",
]
