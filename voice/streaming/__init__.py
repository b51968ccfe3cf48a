"""Streaming: a convolutional model as a step of one chunk, with state, that gives what the whole utterance gives.

Under a policy a site gives to the bit the same streamed and whole where its result depends on its own window alone and
its sums have one order:

| scheme | streamed and whole |
|---|---|
| bf16, fp32, bfp8_b, bfp4_b, as the card has them (`ExactTensix`) | equal: blocks lie along channels |
| the same by `TensixArithmetic`, with bf16 sums | equal |
| the same with fp32 sums, and fp8 with static scales | apart by rounding: a GEMM of torch adds up by its size |
| `activation_scale: dynamic` | not equal: one scale covers all frames, of a chunk or of the utterance |
| blocks along time: a product whose right operand has time last | not equal: frames share exponents |
"""

from voice.streaming.step import StreamGraph, stream
from voice.streaming.streamable import Streamable, StreamableVoice, streamable, utterance
from voice.streaming.streamer import Streamer, chunks_of, frames_of, joined, run_stream
from voice.streaming.timing import StreamingError, Timing
from voice.streaming.utterance import Utterance, in_chunks, in_steps

__all__ = [
    "StreamGraph",
    "Streamable",
    "StreamableVoice",
    "Streamer",
    "StreamingError",
    "Timing",
    "Utterance",
    "chunks_of",
    "frames_of",
    "in_chunks",
    "in_steps",
    "joined",
    "run_stream",
    "stream",
    "streamable",
    "utterance",
]
