"""Operations: the vocabulary of card steps and the call that each becomes."""

from collections.abc import Mapping

from backends.tenstorrent.emission.code import Emitted
from backends.tenstorrent.emission.convolutions import conv1d, conv_transpose1d
from backends.tenstorrent.emission.movement import MOVEMENTS
from backends.tenstorrent.emission.products import attention, linear, matmul
from backends.tenstorrent.emission.vectors import VECTORS
from backends.tenstorrent.program import CardStep

OPS: Mapping[str, Emitted] = {
    "linear": linear,
    "matmul": matmul,
    "conv1d": conv1d,
    "conv_transpose1d": conv_transpose1d,
    "attention": attention,
    **VECTORS,
    **MOVEMENTS,
}
_CALLS: Mapping[str, str] = {
    "conv_transpose1d": "ttnn.conv_transpose2d",
    "attention": "ttnn.transformer.scaled_dot_product_attention",
    "upload": "runtime.upload",
    "download": "runtime.download",
}


def call_of(step: CardStep) -> str:
    """Name of the one call that a step is in `model.py`: `ttnn.conv1d`; what graph capture shows on its first level.

    Raises:
        ValueError: there is no such operation.
    """
    if step.op not in OPS:
        raise ValueError(f"no operation {step.op!r}; there are {', '.join(sorted(OPS))}")
    if step.op == "upload" and step.options.get("kept"):
        return "runtime.hold"
    return _CALLS.get(step.op, f"ttnn.{step.op}")
