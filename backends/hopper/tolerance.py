"""Tolerance: how far a card's output, and a CPU's, may lie from the emulated one before something is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from backends import tolerance
from backends.hopper.emulated import ON_CARD, ON_CPU, Doubt
from backends.tolerance import BF16_SNR_DB, FACTOR


class CpuTolerance(tolerance.Tolerance):
    """Bounds on one output of ONNX Runtime's CPU provider."""

    __slots__ = ()

    DERIVATION: ClassVar[str] = (
        "A CPU computes what the emulation does, operands rounded alike, and adds up in another order. So the sample"
        " was computed as emulated, which is what is expected, and three times more with every sum moved at random by"
        " up to what the order of its terms is worth (2**-24 of the sum of their magnitudes), every value that a site"
        " reads by up to 2**-19 of it (sines of long phases, running sums and exponentials differ from library to"
        " library by more than a last place), and all that comes of that in the roundings behind. The bounds are"
        f" {FACTOR:g} times the largest difference, and never tighter than 60 dB and a step of bf16 of the largest"
        " value: a sum that lies between two values of bf16 may fall to either, and to another of FP8 behind that."
    )
    LEAST_SNR_DB: ClassVar[float] = 60.0


class CardTolerance(tolerance.Tolerance):
    """Bounds on one output of a card."""

    __slots__ = ()

    DERIVATION: ClassVar[str] = (
        "Scales, codes and the types of all that is stored are modelled to the bit; in what order a tensor core adds,"
        " how many bits it keeps of FP8 products, and which roundings TensorRT fuses away, was not measured on a card."
        " So the sample was computed as emulated with sums in fp32, which is what is expected, and three times more"
        " with sums of FP8 products moved at random by what they lose where 32 at a time are aligned to the largest"
        " and cut 13 bits below it (as arXiv 2412.19437 and 2511.10909 measured it), all others by what their order can"
        " do, and each site's result by up to one unit in the last place of what it is stored in (2**-8 of a value in"
        " bf16, 2**-11 in fp16, 2**-24 in fp32), which goes through all that follows. The bounds are"
        f" {FACTOR:g} times the largest difference, and never tighter than one step of bf16 in every value"
        f" ({BF16_SNR_DB:g} dB). A deep model makes much of such a unit: a loose bound here says that samples are no"
        " measure there, not that the sound is bad. An output beyond the bounds is no matter of rounding."
    )


DRAWS = 3
"""Computations with a doubt, of which the furthest counts: one value that is rounded otherwise may change a sound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on one output, wherever it is computed."""

    card: CardTolerance
    cpu: CpuTolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the derivations, which are those of every output."""
        held = {"card": self.card.to_dict(), "cpu": self.cpu.to_dict()}
        return {
            place: {name: value for name, value in data.items() if name != "derivation"} for place, data in held.items()
        }


Parts = Mapping[str, NDArray[Any]]
Compute = Callable[[Doubt | None, int], Parts]
"""What moves results of the sample, and the seed of it -> the sample's outputs by part."""


def bounded(compute: Compute) -> tuple[Parts, dict[str, Bounds]]:
    """What is expected of a sample, and the bounds on it.

    Args:
        compute: the whole sample, by `emulated.Emulated`; called seven times.

    Raises:
        ValueError: an output has Inf or NaN; the message has its name.
    """
    expected = compute(None, 0)
    cpu, card = ([compute(doubt, seed) for seed in range(DRAWS)] for doubt in (ON_CPU, ON_CARD))
    found = {}
    for part, whole in expected.items():
        try:
            found[part] = Bounds(
                CardTolerance.between(whole, *(made[part] for made in card)),
                CpuTolerance.between(whole, *(made[part] for made in cpu)),
            )
        except ValueError as error:
            raise ValueError(f"output {part}: {error}") from error
    return expected, found
