"""Library: what ttnn 0.81.1 takes, an operation a row; tests/backends/tenstorrent/test_support_table.py asks it.

`takes` is what the wheel plans on a mock card of either architecture; `refused` is what it would plan, too, and what we
don't let it compute, with the reason. Whatever stands in neither the library refuses itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backends.tenstorrent.program import Layout
from precision.policy import Accumulate, Fidelity

Architecture = Literal["wormhole", "blackhole"]
Config = Literal["compute_kernel_config", "compute_config"]

FORMATS: tuple[str, ...] = ("bf16", "bfp8_b", "bfp4_b", "fp32")
"""What weights and activations may be stored in; measured on the ttnn 0.81.1 wheel."""
WITHOUT_BFP4 = ("bf16", "bfp8_b", "fp32")
WIDE = ("bf16", "fp32")
BOTH: tuple[Layout, ...] = ("tile", "row_major")


@dataclass(frozen=True, slots=True)
class Row:
    """What an operation takes."""

    takes: tuple[str, ...]
    """Types of its first input, in tiles."""
    weights: tuple[str, ...] = ()
    """Types of its second: a weight, or the right operand of a product; empty where it has none."""
    rows: tuple[str, ...] = ()
    """Types of its first input where that is row-major; empty where it must be in tiles."""
    config: Config | None = None
    """By which argument it is told how to compute; None: it has no such choice."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Types that the library takes and we refuse -> why, and what to use."""
    note: str = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        """Types of its first input that are taken, and that we let it compute."""
        return tuple(dtype for dtype in self.takes if dtype not in self.refused)


_CONVOLUTION = Row(
    FORMATS,
    FORMATS,
    WIDE,
    "compute_config",
    {"bfp4_b": "convolutions take bf16, bfp8_b, fp32; use bfp8_b"},
    "ttnn plans bfp4_b activations; its halo makes bf16 of every block format, and nobody ran it. Channels of an input"
    " in tiles are filled up to 32 a tap, of rows to 8. One tap is computed as a matrix product. Weights and bias are"
    " host tensors in rows, both packed by the operation itself in weights_dtype",
)
_PRODUCT = Row(FORMATS, FORMATS, (), "compute_kernel_config", note="bias [1, n] in tiles, added in bf16")
_VECTOR = Row(FORMATS, rows=WIDE, note="no choice of fidelity; block formats are read and packed again")
_PAIR = Row(FORMATS, FORMATS, WIDE, note="types of both inputs may differ, but for maximum and minimum")
_OSCILLATOR = Row(
    FORMATS,
    rows=WIDE,
    refused={
        dtype: f"an angle in {dtype} is off by whole turns from {turn} on; use fp32"
        for dtype, turn in (("bf16", 256), ("bfp8_b", 128), ("bfp4_b", 8))
    },
)
_SUM = Row(
    FORMATS,
    refused={
        dtype: f"a running sum in {dtype} stops growing where a step is below half of its last bit; use fp32"
        for dtype in ("bf16", "bfp8_b", "bfp4_b")
    },
    note="in fp32 itself wrong from about 72,000 samples on (tt-metal 55542): sum chunks, or on the host",
)
_MOVEMENT = Row(FORMATS, rows=WIDE)
_NORM = Row(WITHOUT_BFP4, WIDE, (), "compute_kernel_config", note="wrong in bf16 sums (tt-metal 48824): use fp32 ones")

OPERATIONS: Mapping[str, Row] = {
    "linear": _PRODUCT,
    "matmul": _PRODUCT,
    "conv1d": _CONVOLUTION,
    "conv2d": _CONVOLUTION,
    "conv_transpose1d": _CONVOLUTION,
    "attention": Row(
        ("bf16", "bfp8_b", "bfp4_b"), ("bf16", "bfp8_b", "bfp4_b"), (), "compute_kernel_config", note="one type for all"
    ),
    "layer_norm": _NORM,
    "rms_norm": _NORM,
    "group_norm": Row(WIDE, WIDE, (), "compute_kernel_config", note="weights in rows of 32, channels in whole tiles"),
    "softmax": Row(WITHOUT_BFP4, (), (), "compute_kernel_config"),
    "sum": Row(WITHOUT_BFP4, (), WIDE, "compute_kernel_config"),
    "mean": Row(WITHOUT_BFP4, (), WIDE, "compute_kernel_config"),
    "cumsum": _SUM,
    "sin": _OSCILLATOR,
    "cos": _OSCILLATOR,
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), _PAIR),
    **dict.fromkeys(
        ("leaky_relu", "relu", "gelu", "silu", "elu", "tanh", "sigmoid", "exp", "log", "sqrt", "rsqrt", "abs", "neg"),
        _VECTOR,
    ),
    **dict.fromkeys(("square", "reciprocal", "softplus", "clamp", "pow"), _VECTOR),
    "typecast": Row(FORMATS, rows=WIDE, note="block formats exist in tiles only; packed in the precise way"),
    **dict.fromkeys(("permute", "reshape", "slice", "concat", "repeat"), _MOVEMENT),
    "pad": Row(WITHOUT_BFP4, rows=WIDE, note="in front only in rows"),
}
"""By the names of card steps."""
EMBEDDING_TABLE = ("bf16",)
"""Types of an embedding's table, row-major; its indices are uint32."""


@dataclass(frozen=True, slots=True)
class WrongSum:
    """What the library plans and a card computes wrongly."""

    architecture: Architecture
    fidelity: Fidelity
    accumulate: Accumulate
    reason: str


WRONG_SUMS: tuple[WrongSum, ...] = (
    WrongSum(
        "wormhole",
        "hifi4",
        "fp32",
        "hifi4 with fp32 accumulation: wrong sums on Wormhole (tt-metal #38306); use hifi3",
    ),
)
"""The library plans these without a word."""
INSTEAD: Mapping[str, str] = {
    "bfp2_b": "ttnn 0.81.1 has no bfp2_b; use bfp4_b",
    "fp8_e4m3": "ttnn 0.81.1 has fp8_e4m3 only in row-major tensors, which no matrix product takes; use bfp8_b",
    "fp8_e5m2": "ttnn 0.81.1 has no fp8_e5m2; use bfp8_b",
    "fp16": "ttnn 0.81.1 has no fp16; use bf16",
    "tf32": "tf32 is a register format, not one of memory; use fp32, which is read as tf32",
    "int8": "ttnn 0.81.1 has no int8 matrix products; use bfp8_b",
    "mxfp8_e4m3": "ttnn 0.81.1 has no mx formats; use bfp8_b",
    "mxfp8_e5m2": "ttnn 0.81.1 has no mx formats; use bfp8_b",
}
"""Formats that no operation takes -> why, and what to use."""
FP8_ARCHITECTURES: tuple[Architecture, ...] = ("blackhole",)
"""Where ttnn has fp8_e4m3 at all: row-major tensors, which typecast makes and reads and nothing else computes with."""
