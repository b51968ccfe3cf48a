from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.calibration import Calibration, UncalibratedSiteError
from calibrate.histogram import MagnitudeHistogram
from calibrate.observing import least_squares_range, observing
from precision.formats import FORMATS, round_to

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
MAGNITUDES = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=200)


@dataclass
class Call:
    site: str
    x: torch.Tensor
    weight: torch.Tensor
    is_product: bool = False

    def compute(self):
        return self.x @ self.weight


class Source:
    """Stands for an interception: hands calls to the handler while it is open."""

    def __init__(self):
        self.handler = None

    @contextmanager
    def attach(self, handler):
        self.handler = handler
        try:
            yield
        finally:
            self.handler = None


def histogram_of(*tensors):
    histogram = MagnitudeHistogram()
    for tensor in tensors:
        histogram.add(tensor)
    return histogram


@PROPERTY
@given(MAGNITUDES, st.floats(1, 100))
def test_a_percentile_is_just_above_the_exact_one(values, percent):
    tensor = torch.tensor(values, dtype=torch.float32)
    ordered = np.sort(np.abs(tensor.numpy().astype(np.float64)))
    exact = ordered[max(int(np.ceil(len(values) * (percent / 100))) - 1, 0)]
    got = histogram_of(tensor).percentile(percent)
    assert exact <= got <= max(exact * (1 + 2**-6), 2.0**-120)


@PROPERTY
@given(MAGNITUDES, MAGNITUDES)
def test_the_order_and_cut_of_tensors_do_not_matter(first, second):
    a, b = torch.tensor(first), torch.tensor(second)
    one, two = histogram_of(a, b), histogram_of(torch.cat([b, a]))
    assert one.amax == two.amax
    assert all(np.array_equal(x, y) for x, y in zip(one.bins(), two.bins(), strict=True))


def test_outliers_move_amax_and_not_a_percentile():
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    values[7] = 1000.0
    histogram = histogram_of(values)
    assert histogram.amax == 1000.0
    assert histogram.percentile(100) == 1000.0
    assert 3.5 < histogram.percentile(99.99) < 6


@pytest.mark.parametrize("name", ["int8", "fp8_e4m3"])
def test_the_least_squares_range_is_hardly_worse_than_the_best_there_is(name):
    fmt = FORMATS[name]
    values = torch.randn(5_000, generator=torch.Generator().manual_seed(1))
    values[:3] = torch.tensor([30.0, -25.0, 28.0])

    def loss(limit):
        scale = limit / fmt.max_value
        return float(((round_to(values.numpy() / scale, fmt) * scale - values.numpy()) ** 2).sum())

    best = min(loss(limit) for limit in np.geomspace(1, 30, 200))
    found = least_squares_range(histogram_of(values), fmt)
    assert loss(found) <= best * 1.1
    assert loss(found) <= loss(30.0)


def test_observing_measures_every_activation_and_lets_go():
    source = Source()
    with observing(source.attach) as observer:
        x, w = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0], [9.0]])
        assert torch.equal(source.handler(Call("ff", x, w)), x @ w)
        source.handler(Call("ff", -2 * x, w))
        source.handler(Call("qk", x, w, is_product=True))
    assert source.handler is None
    assert observer.calibration() == Calibration.of("amax", {"ff": {"input": 6.0}, "qk": {"left": 3.0, "right": 9.0}})


def test_nothing_observed_is_an_error():
    with observing(Source().attach) as observer, pytest.raises(ValueError, match="nothing was observed"):
        observer.calibration()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_named_and_leaves_nothing_behind(bad):
    source = Source()
    with pytest.raises(ValueError, match=r"site 'ff', input: .*Inf or NaN \(1 of 2\)"), observing(source.attach):
        source.handler(Call("ff", torch.tensor([[bad, 1.0]]), torch.ones(2, 1)))
    assert source.handler is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "entropy"}, "amax, percentile, mse"),
        ({"method": "percentile", "percentile": 0.0}, "percentile must lie in"),
        ({"method": "mse", "fmt": "bf16"}, "fp8_e4m3, fp8_e5m2, int8"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message), observing(Source().attach, **arguments):
        pass


def test_a_calibration_is_plain_data_and_back():
    calibration = Calibration.of("mse", {"b": {"left": 1.5, "right": 2.0}, "a": {"input": 0.25}})
    data = calibration.to_dict()
    assert Calibration.of(data["method"], data["ranges"]) == calibration
    assert tuple(calibration) == ("b", "a")
    assert calibration.amax("a", "input") == 0.25
    with pytest.raises(UncalibratedSiteError, match="site 'c': no calibrated range of its input"):
        calibration.amax("c", "input")
