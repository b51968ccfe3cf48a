"""Child process in which PESQ's C code may crash; started by path, so it imports nothing of this project.

Requests come on stdin and replies go to what was stdout, each as a little header and its bytes:
request `mode (2 bytes), rate, samples (uint32)` then reference and degraded as float32; reply `ok or er (2 bytes),
length (uint32)` then a float64 or the text of the error. Ends when stdin does.
"""

import os
import signal
import struct
import sys
from typing import BinaryIO

import numpy as np
from pesq import PesqError, pesq

REQUEST = "<2sII"
REPLY = "<2sI"


def _answer(source: BinaryIO, mode: bytes, rate: int, samples: int) -> tuple[bytes, bytes]:
    reference, degraded = (np.frombuffer(source.read(4 * samples), np.float32) for _ in range(2))
    try:
        score = pesq(rate, reference, degraded, mode.decode())
    except (PesqError, ValueError, ZeroDivisionError) as fault:
        text = fault.args[0] if fault.args else type(fault).__name__
        return b"er", text if isinstance(text, bytes) else str(text).encode()
    return b"ok", struct.pack("<d", score)


def main() -> None:
    """Answer requests until stdin ends."""
    # Ctrl-C is the parent's to handle; anything the C code prints must not enter the replies.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while len(header := source.read(struct.calcsize(REQUEST))) == struct.calcsize(REQUEST):
        status, body = _answer(source, *struct.unpack(REQUEST, header))
        sink.write(struct.pack(REPLY, status, len(body)) + body)
        sink.flush()


if __name__ == "__main__":
    main()
