"""What a file's arrays came to: how many are exact, where the others first differ, and what could not be checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.tenstorrent.verify.vectors import Array, Layout, UncheckedError, Vectors

_PATTERNS: dict[int, type[Any]] = {1: np.uint8, 2: np.uint16, 4: np.uint32}


@dataclass(slots=True)
class FileReport:
    """Result of one file."""

    exact: int = 0
    differing: list[str] = field(default_factory=list)
    """One line an array that differs."""
    unchecked: list[str] = field(default_factory=list)
    """One line an array that could not be checked."""

    @property
    def arrays(self) -> int:
        """How many arrays there are to check."""
        return self.exact + len(self.differing) + len(self.unchecked)


def check(vectors: Vectors, layout: Layout) -> FileReport:
    """Compare every array that is not an input with what the exact arithmetic makes of the inputs."""
    report = FileReport()
    for key in vectors:
        if layout.inputs.fullmatch(key):
            continue
        wanted = vectors[key]
        try:
            differences = _differences(key, wanted, layout.compute(vectors, key))
        except UncheckedError as error:
            report.unchecked.append(f"{key}: {error}")
        except (ValueError, KeyError, IndexError) as error:
            report.unchecked.append(f"{key}: the arrays do not fit together: {error}")
        else:
            report.differing.extend(differences[:1])
            report.exact += not differences
    return report


def _differences(key: str, wanted: Array, results: Mapping[str, Array]) -> list[str]:
    lines = []
    for chip, got in results.items():
        difference = first_difference(key, wanted, got)
        if difference is not None:
            lines.append(f"{key}{f' on {chip}' if chip else ''} {difference}")
    return lines


def first_difference(key: str, wanted: Array, got: Array) -> str | None:
    """Where an array first differs in its bits, in words; None where it does not.

    Raises:
        UncheckedError: the recorded array has another shape or type than its layout says.
    """
    if wanted.shape != got.shape or wanted.dtype.itemsize != got.dtype.itemsize or wanted.dtype.kind not in "uf":
        raise UncheckedError(
            f"is {wanted.dtype} {list(wanted.shape)}; the layout has {got.dtype} {list(got.shape)} of these inputs"
        )
    kind = _PATTERNS[wanted.dtype.itemsize]
    wanted_bits, got_bits = (np.ascontiguousarray(array).view(kind) for array in (wanted, got))
    differ = wanted_bits != got_bits
    if not differ.any():
        return None
    index = tuple(int(axis) for axis in np.unravel_index(int(differ.argmax()), differ.shape))
    bits = [_spell(key, wanted_bits[index]), _spell(key, got_bits[index])]
    count = int(differ.sum())
    return f"{list(index)}: wanted {bits[0]}, got {bits[1]}; {count} of {differ.size} values differ"


def _spell(key: str, bits: Any) -> str:
    """Bits and the value they stand for: a byte's is itself, 19-bit registers and bf16 are widened to binary32."""
    code, digits = int(bits), 2 * bits.itemsize
    if bits.itemsize == 1:
        return f"{code:#04x}"
    shift = 16 if bits.itemsize == 2 else 13 if key.endswith(("_regs19", "_table")) else 0
    value = np.uint32(code << shift & 0xFFFFFFFF).view(np.float32)
    return f"{code:#0{digits + 2}x} ({float(value):.9g})"
