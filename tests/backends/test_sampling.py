import pytest
import torch

from backends.emulation.sampling import sample_rows
from voice.gemm import to_rows
from voice.site_call import ConvOptions, SiteCall


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CALLS = [
    ("linear", random(2, 50, 8), random(4, 8), None),
    ("conv1d", random(2, 6, 90), random(4, 3, 5), ConvOptions((2,), (3,), (2,), groups=2)),
    ("conv_transpose1d", random(2, 6, 40), random(6, 2, 7), ConvOptions((4,), (2,), (1,), 2, (1,))),
    ("conv2d", random(2, 4, 9, 40), random(4, 2, 3, 5), ConvOptions((2, 1), (1, 2), (1, 2), groups=2)),
]


@pytest.mark.parametrize(("op", "x", "weight", "options"), CALLS, ids=[row[0] for row in CALLS])
def test_samples_are_rows_of_the_call(op, x, weight, options):
    call = SiteCall("site", op, x, weight, None, options, is_product=False, index=0)
    groups = 1 if options is None else options.groups
    whole = to_rows(call, x)
    whole = whole.reshape(1, -1, 8) if options is None else whole.transpose(0, 1).flatten(1, 2)
    assert torch.equal(sample_rows(call, 10_000), whole)
    few = sample_rows(call, 10)
    assert few.shape[0] == groups
    assert 4 <= few.shape[1] < whole.shape[1] / 3
    for group in range(groups):
        rows = {tuple(row) for row in whole[group].tolist()}
        assert all(tuple(row) in rows for row in few[group].tolist())


def test_upsampled_positions_are_seen_at_every_phase():
    # A transposed convolution of stride 6 whose one tap fills only positions 0, 6, 12, ...
    call = SiteCall(
        "site",
        "conv_transpose1d",
        torch.ones(1, 1, 300),
        torch.ones(1, 1, 1),
        None,
        ConvOptions((6,), (0,), (1,), 1, (0,)),
        is_product=False,
        index=0,
    )
    share = float(sample_rows(call, 300).mean())
    assert share == pytest.approx(float(to_rows(call, call.x).mean()), abs=0.01)
