"""What the GEMM path is asked and what it did: the Site of a call, and the scheme that its tensors show."""

import math
from dataclasses import replace

from backends.hopper.gemm_products import Ran
from backends.hopper.numerics import FP8_TYPES, WIDE_TYPES
from precision.policy import Scheme
from precision.site import Site
from voice.site_call import SiteCall

_FORMATS = {dtype: name for name, dtype in (*FP8_TYPES.items(), *WIDE_TYPES.items())}


def site_of(call: SiteCall) -> Site:
    """The site of a call, as far as a refusal asks: its rate is 0, since nobody said how long the audio is."""
    weight = call.weight
    if call.is_product:
        return Site(call.site, call.op, (), weight.shape[-2], weight.shape[-1], 0.0, math.prod(weight.shape[:-2]))
    shape = tuple(weight.shape)
    if call.options is None:
        return Site(call.site, call.op, shape, shape[1], shape[0], 0.0)
    groups, taps = call.options.groups, math.prod(shape[2:])
    if call.op == "conv_transpose1d":
        return Site(call.site, call.op, shape, shape[0] // groups, shape[1] * taps, 0.0, groups, taps)
    return Site(call.site, call.op, shape, shape[1] * taps, shape[0] // groups, 0.0, groups, taps)


def shown(scheme: Scheme, ran: Ran, call: SiteCall) -> Scheme:
    """The scheme with all that the tensors of a call show in place of what was asked for."""
    left, right, weight = _FORMATS[ran.left], _FORMATS[ran.right], _FORMATS[ran.stored]
    activation = left
    if call.is_product:
        # Both operands are activations, and what departs is to be seen; the scheme's weight means nothing.
        activation = left if left != scheme.activation else right
        weight = scheme.weight
    granularity, mode = scheme.weight_scale, scheme.activation_scale
    # One scale for one channel is either.
    if ran.weight_scales is not None and not ran.weight_scales == call.weight.shape[0] == 1:
        granularity = "tensor" if ran.weight_scales == 1 else "channel"
    if ran.static is not None:
        mode = "static" if ran.static else "dynamic"
    return replace(
        scheme,
        weight=weight,
        activation=activation,
        accumulate="fp32" if ran.fp32_sums else "bf16",
        weight_scale=granularity,
        activation_scale=mode,
    )
