"""TensixArithmetic: the matrix engine's arithmetic, fast enough to search with.

Operands are rounded and cut, partial sums spilled and biases added bit for bit as the card does it. Sums in bf16 are
the card's too; sums in fp32 are GEMMs, where the card aligns eight products at a time, 70 dB under the result. Source:
ttsim v1.10.0 and ttnn 0.81.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from torch import Tensor

from backends.base import Prepared
from backends.tenstorrent.accumulation import accumulate_bf16
from backends.tenstorrent.partials import (
    add_bias,
    add_in_bf16,
    adds_in_memory,
    bias_shape,
    in_eights,
    k_blocks,
    keeps_fp32,
    of_channels,
    of_rows,
    through_tf32,
)
from backends.tenstorrent.rounding import MAGNITUDE_BITS, clear_low_bits, pack_blocks, pack_float, truncate_float
from backends.tenstorrent.storage import (
    CUTS_ACTIVATION,
    HIGH_A,
    HIGH_B,
    read_mantissa,
    store_operands,
)
from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision.policy import Lever, Scheme
from voice.gemm import from_rows, to_columns, to_rows
from voice.site_call import SiteCall

LAST_A = 9
"""Mantissa bits that any fidelity reads of the weights' register."""
_LEAVES_THE_CUT: frozenset[Lever] = frozenset({"col_tilize", "channel_order"})
"""Levers that do nothing about what LoFi cuts off, which is most of its error."""


@dataclass(frozen=True, slots=True)
class TensixArithmetic:
    """Fast model of Wormhole and Blackhole; formats bf16, bfp8_b, bfp4_b, fp32. Needs no calibration.

    Results are stored as bf16, or as fp32 where the scheme's activation is; the next site rounds its own input. NaN
    among activations becomes Inf, as the packer has it.

    With `accumulate` bf16 it is exact. With fp32 its distance from `ExactTensix` lies under the scheme's own error
    (that of the exact result against fp64 on operands not rounded) by this many dB, on normal data, the least of
    linear, conv1d, conv_transpose1d and products, K 16 to 4096:

    | operands | lofi | hifi2 | hifi3, hifi4 |
    |---|---|---|---|
    | bf16 or fp32, both | 38, 25 | 23, 11 | 11, 6 |
    | bf16 or fp32 with bfp8_b | 36, 24 | 28, 16 | 27, 14 |
    | bfp8_b, both | 37, 23 | 32, 19 | 32, 19 |
    | bfp4_b, one or both | 55, 39 | 55, 39 | 55, 39 |

    First the sums, then what is stored, or goes on to the bias, as bf16: there one sum in ten lies so near a border
    that the two round apart, by a whole step. Nothing cheap mends either: the distance is noise (a gain of 1 + 4e-5
    explains 0.1 dB of it) and depends on the largest product of each eight. `trusted` says where both numbers are
    20 or more; a lever that wins n dB takes n from them.
    """

    name: str = "tensix_fast"

    def prepare(self, call: SiteCall, scheme: Scheme, moments: Moments | None = None) -> Prepared:
        """Round weight and bias as the host stores them, apply the levers, cut to what the fidelity reads.

        A product of two activations has nothing to prepare.

        Raises:
            ValueError: weight or bias is not finite; a lever needs moments and there are none that fit.
        """
        if call.is_product:
            return Prepared(None, None)
        stored, bias = store_operands(call, scheme, moments)
        if scheme.fidelity == "lofi":
            return Prepared(clear_low_bits(stored, 23 - HIGH_A), bias)
        # The multiplier never reads the last of tf32's 10 mantissa bits in the weights' register.
        whole = clear_low_bits(stored, 23 - min(read_mantissa(scheme.weight, scheme), LAST_A))
        high = clear_low_bits(stored, 23 - HIGH_A) if _takes_two_gemms(scheme) else None
        return Prepared(whole, bias, weight_high=high)

    def compute(self, call: SiteCall, scheme: Scheme, prepared: Prepared, calibration: Calibration | None) -> Tensor:
        """See `Arithmetic.compute`; the calibration is not used."""
        blocks = k_blocks(call, scheme)
        in_memory = adds_in_memory(scheme, blocks)
        has_bias = prepared.bias is not None and not scheme.bias_apart
        if scheme.accumulate == "bf16":
            total = _sum_in_bf16(call, scheme, prepared, blocks, has_bias=has_bias)
        else:
            total = _sum_in_fp32(call, scheme, prepared, blocks, has_bias=has_bias)
        if prepared.bias is not None and scheme.bias_apart:
            return total + prepared.bias.view(bias_shape(call))
        if prepared.bias is not None:
            partial = through_tf32(total) if keeps_fp32(call, scheme, in_memory=in_memory) else pack_float(total, 7)
            total = add_bias(partial, prepared.bias.view(bias_shape(call)), scheme)
        return total if scheme.activation == "fp32" else pack_float(total, 7)


def trusted(scheme: Scheme, *, is_product: bool = False) -> bool:
    """Whether `TensixArithmetic` is at least 20 dB nearer to the card than the card is to exact arithmetic.

    Args:
        scheme: one that the card takes.
        is_product: of two activations; the weight format means nothing then.
    """
    if scheme.accumulate == "bf16":
        return True
    if "bfp4_b" in (scheme.activation, scheme.activation if is_product else scheme.weight):
        return True
    return scheme.fidelity == "lofi" and (is_product or _LEAVES_THE_CUT.issuperset(scheme.levers))


def read_activation(x: Tensor, scheme: Scheme, axis: int, *, cut: bool = True) -> Tensor:
    """Round an activation as it is stored, and cut it to what the fidelity reads of a first operand.

    Args:
        x: float32.
        scheme: `activation`, `accumulate` and `fidelity` are read.
        axis: the axis of channels (K), along which blocks lie.
        cut: False gives all bits that are stored.
    """
    kept = HIGH_B if cut and scheme.fidelity in CUTS_ACTIVATION else None
    return _store_activation(x, scheme, axis, kept)


def read_input(call: SiteCall, scheme: Scheme) -> Tensor:
    """A call's input as the multiplier reads it."""
    return read_activation(call.x, scheme, 1 if call.options is not None else -1)


def _store_activation(x: Tensor, scheme: Scheme, axis: int, kept: int | None) -> Tensor:
    if scheme.activation in MAGNITUDE_BITS:
        packed = pack_blocks(x, scheme.activation, axis)
        return packed if kept is None or kept >= 6 else clear_low_bits(packed, 23 - kept)
    mantissa = read_mantissa(scheme.activation, scheme)
    if scheme.activation == "fp32":
        return truncate_float(x, mantissa if kept is None else min(kept, mantissa))
    return pack_float(x, mantissa, kept)


def _right(call: SiteCall, scheme: Scheme, prepared: Prepared) -> Tensor:
    """The second operand: a prepared weight, or an activation in the weights' place (blocks along its last axis)."""
    if prepared.weight is not None:
        return prepared.weight
    return _store_activation(call.weight, scheme, -1, HIGH_A if scheme.fidelity == "lofi" else LAST_A)


def _sum_in_fp32(call: SiteCall, scheme: Scheme, prepared: Prepared, blocks: list[slice], *, has_bias: bool) -> Tensor:
    """GEMMs of whole operands, cut into blocks of K only where a spill changes more than fp32 sums do."""
    gemms = _gemms(call, scheme, prepared)

    def product(block: slice) -> Tensor:
        return _add_up(call.compute(*of_channels(call, block, x, weight), with_bias=False) for x, weight in gemms)

    if call.options is None or len(blocks) == 1:
        return _add_up(call.compute(x, weight, with_bias=False) for x, weight in gemms)
    if scheme.packer_l1_acc:
        if has_bias:
            return product(slice(0, blocks[-1].stop))
        # The last block starts from the others' sum, reloaded through a source register.
        return through_tf32(product(slice(0, blocks[-1].start))).add_(product(blocks[-1]))
    total = product(blocks[0])
    for block in blocks[1:]:
        total = pack_float(total, 7).add_(product(block))
    return total


def _sum_in_bf16(call: SiteCall, scheme: Scheme, prepared: Prepared, blocks: list[slice], *, has_bias: bool) -> Tensor:
    """The card's own order; with packer_l1_acc blocks are summed apart and added up in memory."""
    assert scheme.fidelity is not None
    groups = 1 if call.options is None else call.options.groups
    x = read_activation(call.x, scheme, 1 if call.options is not None else -1, cut=False)
    columns = to_columns(_right(call, scheme, prepared), call.op, groups)
    rows, columns = in_eights(call, to_rows(call, x), columns)
    in_memory = adds_in_memory(scheme, blocks)
    total: Tensor | None = None
    for block in blocks:
        k = of_rows(call, block)
        left, right = rows[..., k], columns[..., k, :]
        apart = total is None or (in_memory and (has_bias or block is not blocks[-1]))
        part = accumulate_bf16(left, right, scheme.fidelity, None if apart else total)
        total = part if total is None or not apart else add_in_bf16(total, part)
    assert total is not None
    return from_rows(call, total)


def _gemms(call: SiteCall, scheme: Scheme, prepared: Prepared) -> list[tuple[Tensor, Tensor]]:
    """Operands whose products add up to those of all passes."""
    x = read_input(call, scheme)
    weight = _right(call, scheme, prepared)
    if not _takes_two_gemms(scheme):
        return [(x, weight)]
    high = clear_low_bits(x, 23 - HIGH_B)
    weight_high = prepared.weight_high if prepared.weight_high is not None else clear_low_bits(weight, 23 - HIGH_A)
    return [(high, weight), (x.sub_(high), weight_high)]


def _takes_two_gemms(scheme: Scheme) -> bool:
    """HiFi3 leaves out low slice x low slice, which only activations with a low slice have."""
    return scheme.fidelity == "hifi3" and scheme.accumulate == "fp32" and scheme.activation not in MAGNITUDE_BITS


def _add_up(parts: Iterable[Tensor]) -> Tensor:
    return reduce(Tensor.add_, parts)
