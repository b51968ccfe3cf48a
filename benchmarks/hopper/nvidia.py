"""NVIDIA's own measurements of the shapes that we time."""

from backends.gemm_tables import DTYPES, GemmTable


def table_of(device: str) -> str | None:
    """The card of NVIDIA's tables that a device is, by its driver's name; None where it is none of them."""
    for word, card in (("H100", "h100_sxm"), ("H200", "h200_sxm"), ("L40S", "l40s")):
        # PCIe and NVL cards have other clocks and memory.
        if word in device and not any(other in device for other in ("PCIe", "NVL")):
            return card
    return None


def nvidia_us(device: str, m: int, n: int, k: int) -> tuple[float | None, float | None]:
    """NVIDIA's time of a product in bf16 and in FP8, whose quantization it holds, in us; outside their grid its edge's.

    None where they did not measure the card, or not that product.
    """
    card = table_of(device)
    table = GemmTable.of(card) if card else None
    if table is None:
        return None, None
    sizes = [min(max(value, axis[0]), axis[-1]) for value, axis in ((m, table.m), (n, table.n), (k, table.k))]
    bf16, fp8 = (table.seconds(dtype, *sizes) for dtype in DTYPES)
    return None if bf16 is None else 1e6 * bf16, None if fp8 is None else 1e6 * fp8
