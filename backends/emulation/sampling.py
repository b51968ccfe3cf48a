"""Sampling: some of the rows of a call, for statistics that do not need all of them."""

from dataclasses import replace
from math import ceil, gcd

from torch import Tensor

from voice.gemm import to_rows
from voice.site_call import SiteCall

_STEP_AVOIDS = 30
"""Steps share no factor with this: what repeats with an upsampling's 2, 3 or 5 positions is sampled at all phases."""


def sample_rows(call: SiteCall, limit: int) -> Tensor:
    """Rows [groups, m, k] of a call's input, evenly spaced, at most `limit` a batch item (conv2d: a line of it).

    The same rows at every run. Convolutions unfold only those; transposed ones unfold all and drop the rest. Not for
    products of two activations.
    """
    options = call.options
    if options is None:
        rows = call.x.reshape(1, -1, call.x.shape[-1])
        return rows[:, :: _step(rows.shape[1], limit)]
    if call.op == "conv_transpose1d":
        rows = to_rows(call, call.x)
        rows = rows[:, :, :: _step(rows.shape[2], limit)]
    else:
        reach = options.dilation[-1] * (call.weight.shape[-1] - 1)
        positions = (call.x.shape[-1] + 2 * options.padding[-1] - reach - 1) // options.stride[-1] + 1
        # Every n-th position of a convolution is what n times the stride visits.
        stride = (*options.stride[:-1], options.stride[-1] * _step(positions, limit))
        rows = to_rows(replace(call, options=replace(options, stride=stride)), call.x)
    return rows.transpose(0, 1).flatten(1, 2)


def _step(count: int, limit: int) -> int:
    step = max(ceil(count / limit), 1)
    while gcd(step, _STEP_AVOIDS) > 1:
        step += 1
    return step
