"""Site: a place in a model where a precision is chosen."""

from dataclasses import dataclass
from typing import Any, Literal

Op = Literal["linear", "conv1d", "conv2d", "conv_transpose1d", "matmul"]
OPS: tuple[Op, ...] = ("linear", "conv1d", "conv2d", "conv_transpose1d", "matmul")


@dataclass(frozen=True, slots=True)
class Site:
    """One matrix product of a model: a layer with weights, or a product of two activations.

    Every site is seen as a GEMM of `rows_per_second` rows (per second of audio, batch 1), reduction
    length `k` and `n` output columns, done `groups` times: a grouped convolution has `k` and `n` per group,
    an attention product one GEMM a head. `macs_per_second` is their product.
    """

    name: str
    """Path of the module, as `named_modules()` has it; a functional call adds `#op0`, `#op1` ..."""
    op: Op
    weight_shape: tuple[int, ...]
    """Shape of the weight in torch's layout; () for a product of two activations."""
    k: int
    n: int
    rows_per_second: float
    groups: int = 1
    kernel: int = 1
    """Taps of a convolution (height times width for conv2d); 1 otherwise."""
    group: str | None = None
    """Sites of one name here must agree on their scheme (fused q/k/v)."""
    feeds: str | None = None
    """The one site that reads this one's channels, with nothing between that tells them apart; None where there is no
    such site, or none was looked for. The order of those channels is free."""
    fed_by: str | None = None
    """The site whose result this one's input is made of, of several the one called last before; None where the input
    is made of the model's own input alone, or none was looked for. So sites and what feeds them are a forest."""

    @property
    def macs_per_second(self) -> float:
        """Multiply-accumulates per second of audio."""
        return self.rows_per_second * self.k * self.n * self.groups

    def described(self) -> dict[str, Any]:
        """What it is and how large, as files of results have it."""
        return {
            "name": self.name,
            "op": self.op,
            "weight_shape": list(self.weight_shape),
            "k": self.k,
            "n": self.n,
            "groups": self.groups,
        }

    @property
    def weight_elements(self) -> int:
        """Number of weights; 0 for a product of two activations."""
        if not self.weight_shape:
            return 0
        count = 1
        for extent in self.weight_shape:
            count *= extent
        return count
