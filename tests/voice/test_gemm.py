import pytest
import torch

from voice.gemm import from_columns, from_rows, to_columns, to_rows
from voice.site_call import ConvOptions, SiteCall


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CALLS = [
    ("linear", random(2, 5, 48), random(24, 48, seed=1), None),
    ("conv1d", random(2, 40, 30), random(32, 20, 5, seed=1), ConvOptions((2,), (3,), (2,), groups=2)),
    ("conv_transpose1d", random(2, 40, 9), random(40, 12, 7, seed=1), ConvOptions((4,), (2,), (1,), 2, (1,))),
    ("conv_transpose1d", random(1, 6, 9), random(6, 4, 4, seed=1), ConvOptions((2,), (1,), (1,), 1, (0,))),
    ("conv2d", random(2, 6, 9, 11), random(8, 3, 3, 5, seed=1), ConvOptions((2, 1), (1, 2), (1, 2), groups=2)),
    ("matmul", random(2, 3, 7, 40), random(2, 3, 40, 9, seed=1), None),
]


@pytest.mark.parametrize(("op", "x", "weight", "options"), CALLS, ids=[row[0] for row in CALLS])
def test_a_call_as_a_matrix_product_is_the_call(op, x, weight, options):
    call = SiteCall("site", op, x, weight, None, options, is_product=op == "matmul", index=0)
    groups = 1 if options is None else options.groups
    columns = to_columns(weight, op, groups)
    torch.testing.assert_close(from_rows(call, to_rows(call, x) @ columns), call.compute(), atol=1e-4, rtol=1e-5)
    assert torch.equal(from_columns(columns, op, tuple(weight.shape), groups), weight)
