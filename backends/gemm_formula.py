"""GemmFormula: how long a matrix product takes on a GPU, from its size, by a dozen fitted figures of the card.

    time = launch + (compute^blend + memory^blend)^(1/blend), and of FP8 that finds its scale + quantization

The result is cut into tiles, and the reduction into splits where tiles are few. Multiprocessors take a tile each; the
rounds ("waves") that takes, the last of them perhaps half empty, are the compute time. A library picks the cut that
is fastest, and so does this. What is read and written comes from the L2 cache while it fits, from DRAM otherwise.
(Waves and tiles: NVIDIA, Matrix Multiplication Background User's Guide, DU-09799-001. Copies of the weights that
take turns: ai-dynamo/aiconfigurator, collector/trtllm/collect_gemm.py.)
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TILES = ((128, 32), (64, 64), (64, 128), (128, 64), (64, 256), (128, 128), (256, 128), (128, 256))
"""Rows by columns of the result that one multiprocessor makes at a time: those of cuBLAS that fit its registers."""
SPLITS = (1, 2, 4, 8, 16, 32)
"""Parts of the reduction that are made side by side, and added."""
K_STEP = 32
"""Multiple to which a part of the reduction is padded."""
QUANTIZED_BYTES = 5
"""Of an element of the activation moved where a scale is found and applied: bf16 read twice, FP8 written."""

COPIES = 5
"""Most copies of the weights that take turns in NVIDIA's measurement: as many as overflow the L2 cache, but no more."""

Weights = Literal["rows", "cold", "warm"]
"""Where the right operand comes from: as in NVIDIA's rows, where copies of it take turns; from DRAM; from L2."""
Numbers = NDArray[np.float64]

_CUTS = np.array([(rows, columns, split) for rows, columns in TILES for split in SPLITS], np.float64).T


@dataclass(frozen=True, slots=True)
class Product:
    """`count` products of [m, k] by [k, n], and how many bits their elements take; sizes may be arrays of one shape."""

    m: Any
    n: Any
    k: Any
    count: int = 1
    left_bits: float = 16
    right_bits: float = 16
    out_bits: float = 16
    weights: Weights = "rows"
    left_elements: float | None = None
    """Read of the left operand; None for all m * k * count. A convolution reads less: a tap reads nothing anew."""

    @property
    def read_elements(self) -> Any:
        """Elements read of the left operand."""
        return self.m * self.k * self.count if self.left_elements is None else self.left_elements


@dataclass(frozen=True, slots=True)
class GemmFormula:
    """The fitted figures of one card and one type of operands; all above zero, quantization 0 where there is none."""

    multiprocessors: int
    """Of the card's data sheet; not fitted."""
    l2_mib: float
    """Of the L2 cache; not fitted."""
    launch_us: float
    tflops: float
    """That all multiprocessors reach together within a tile."""
    operand_gb_per_s: float
    """At which one multiprocessor takes in operands."""
    tile_us: float
    """To begin and end a tile."""
    split_us: float
    """To add up parts of a reduction, beside moving them."""
    dram_gb_per_s: float
    l2_gb_per_s: float
    write_gb_per_s: float
    """Of the result, while the L2 cache holds it."""
    l2_share: float
    """Of the L2 cache at which half of what is read anew and anew comes from DRAM."""
    l2_edge: float
    """How suddenly that changes: the power of size by cache."""
    blend: float
    """1: compute and memory add up; large: the longer hides the shorter."""
    quantize_us: float = 0.0
    quantize_gb_per_s: float = 1.0

    def product_us(self, product: Product) -> Any:
        """Microseconds of the product alone, operands in their formats; an array where sizes are arrays."""
        weights = product.n * product.k * product.count * product.right_bits / 8
        read = product.read_elements * product.left_bits / 8
        written = product.m * product.n * product.count * product.out_bits / 8
        copies = np.clip(np.ceil(self.l2_mib * 2**20 / weights), 1, COPIES)
        far = self._far(copies * weights + read + written)
        far_weights = {"rows": far, "cold": 1.0, "warm": 0.0}[product.weights]
        far_rows = self._far(read + written)
        memory = self._way_us(weights, far_weights, self.l2_gb_per_s) + self._way_us(read, far_rows, self.l2_gb_per_s)
        memory = memory + self._way_us(written, far_rows, self.write_gb_per_s)
        compute = self._compute_us(product)
        return self.launch_us + (compute**self.blend + memory**self.blend) ** (1 / self.blend)

    def quantize_activation_us(self, elements: Any) -> Any:
        """Microseconds of finding a scale for so many elements, and quantizing them."""
        return self.quantize_us + elements * QUANTIZED_BYTES / (self.quantize_gb_per_s * 1e3)

    def fetch_us(self, moved_bytes: float) -> float:
        """Microseconds of a launch that fetches so many bytes from DRAM and hides all else behind that."""
        return self.launch_us + moved_bytes / (self.dram_gb_per_s * 1e3)

    def _compute_us(self, product: Product) -> Any:
        sizes = (product.m, product.n, product.k)
        if isinstance(product.m, int):
            return _one_compute_us(self, sizes, product.count, product.left_bits, product.right_bits)
        return self._cuts_us(sizes, product.count, product.left_bits, product.right_bits)

    def _cuts_us(self, sizes: tuple[Any, Any, Any], count: int, left_bits: float, right_bits: float) -> Any:
        rows, columns, split = _CUTS
        m, n, k = (np.asarray(extent, np.float64)[..., None] for extent in sizes)
        depth = np.ceil(k / split / K_STEP) * K_STEP
        waves = np.ceil(np.ceil(m / rows) * np.ceil(n / columns) * split * count / self.multiprocessors)
        multiply = 2 * rows * columns * depth / (self.tflops * 1e6 / self.multiprocessors)
        take_in = (rows * left_bits + columns * right_bits) / 8 * depth / (self.operand_gb_per_s * 1e3)
        parts = m * n * count * 4 * split / (self.l2_gb_per_s * 1e3)
        adding = np.where(split > 1, self.split_us + parts, 0.0)
        return (waves * (self.tile_us + np.maximum(multiply, take_in)) + adding).min(axis=-1)

    def _far(self, held: Any) -> Any:
        """Share of what is read anew and anew that comes from DRAM where so many bytes take turns in the L2 cache."""
        return 1 / (1 + (self.l2_share * self.l2_mib * 2**20 / held) ** self.l2_edge)

    def _way_us(self, moved: Any, far: Any, l2_gb_per_s: float) -> Any:
        """Microseconds of so many bytes, a share of them from DRAM and the rest from L2."""
        return moved * (far / self.dram_gb_per_s + (1 - far) / l2_gb_per_s) / 1e3


@lru_cache(maxsize=1 << 16)
def _one_compute_us(
    formula: GemmFormula, sizes: tuple[int, int, int], count: int, left_bits: float, right_bits: float
) -> float:
    """The compute time of one size, which a launch is asked for again where its memory differs."""
    return float(formula._cuts_us(sizes, count, left_bits, right_bits))
