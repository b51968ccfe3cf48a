"""Noise of a model of any length is drawn anew as it was drawn, and refused where that is not known."""

import pytest
import torch

from precision_search.lengths import noise_of
from voice.graph import DynamicError


def test_what_noise_is_drawn_from_is_seen_in_its_numbers():
    torch.manual_seed(0)
    assert noise_of(torch.randn(1, 3, 200)) == "normal"
    assert noise_of(torch.rand(1, 3, 200)) == "uniform"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda: torch.randint(0, 5, (100,)), id="whole numbers"),
        pytest.param(lambda: torch.rand(100) < 0.5, id="a mask"),
        pytest.param(lambda: (torch.rand(1000) < 0.5).float(), id="a mask of floats"),
        pytest.param(lambda: 0.3 * torch.randn(1000), id="scaled"),
        pytest.param(lambda: torch.randn(1000) + 1, id="moved"),
        pytest.param(lambda: torch.full((100,), 0.5), id="all the same"),
        pytest.param(lambda: 0.45 + 0.1 * torch.rand(1000), id="narrower"),
        pytest.param(lambda: torch.zeros(0), id="nothing"),
    ],
)
def test_other_noise_is_refused(values):
    torch.manual_seed(0)
    with pytest.raises(DynamicError, match="neither normal nor uniform"):
        noise_of(values())
