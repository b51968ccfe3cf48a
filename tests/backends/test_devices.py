"""The table of cards: what is in it, and what its loader refuses."""

from dataclasses import FrozenInstanceError
from importlib.resources import files

import pytest
import yaml

from backends.devices import Figure, load_devices, parse_devices

CARDS = ("n150", "n300", "p100a", "p150a", "l40s", "h100_sxm", "h100_pcie", "h200_sxm", "b200_sxm")


@pytest.fixture
def table() -> dict[str, object]:
    data = yaml.safe_load(files("backends").joinpath("devices.yaml").read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def test_all_cards_are_there_with_the_backend_that_builds_for_them():
    devices = load_devices()
    assert tuple(devices) == CARDS
    assert {devices[name].backend for name in CARDS[:4]} == {"tenstorrent"}
    assert {devices[name].backend for name in ("h100_sxm", "h100_pcie", "h200_sxm")} == {"hopper"}
    assert devices["l40s"].backend is None
    assert devices["b200_sxm"].backend is None


@pytest.mark.parametrize("name", CARDS)
def test_every_figure_has_a_source_and_a_date_and_names_no_private_place(name):
    for figure_name, figure in load_devices()[name].figures().items():
        assert figure.source, figure_name
        assert figure.date, figure_name
        assert "shared" not in figure.source
        assert figure.low <= figure.value <= figure.high


def test_tenstorrent_rates_are_cores_times_clock_over_passes():
    for name, cores, clock_ghz in (("n150", 64, 1.0), ("p150a", 120, 1.35), ("p100a", 120, 1.35), ("n300", 128, 1.0)):
        rates = load_devices()[name].rates_tflops
        assert rates["lofi"].value == pytest.approx(4.096 * cores * clock_ghz)
        for passes, fidelity in enumerate(("lofi", "hifi2", "hifi3", "hifi4"), start=1):
            assert rates[fidelity].value == pytest.approx(rates["lofi"].value / passes)
    p150a = load_devices()["p150a"].rates_tflops
    assert round(p150a["lofi"].high) == 774, "the label of 140 cores"
    assert round(p150a["lofi"].value) == 664, "the label of 120 cores"
    assert round(load_devices()["n150"].rates_tflops["hifi4"].high) == 74, "the label of 72 cores"


def test_doubted_core_counts_carry_into_the_rates_and_the_sram_bandwidth():
    p150a = load_devices()["p150a"]
    assert p150a.cores is not None
    for figure in (p150a.rates_tflops["lofi"], p150a.sram_gb_per_s):
        assert figure.low < figure.value < figure.high
        assert figure.doubt
    assert p150a.rates_tflops["lofi"].high / p150a.rates_tflops["lofi"].low == pytest.approx(140 / 110)


def test_a_range_without_a_value_has_its_midpoint():
    price = load_devices()["l40s"].price_usd
    assert price is not None
    assert (price.low, price.value, price.high) == (7500, 8300, 9100)


def test_cases_of_a_figure():
    figure = Figure(2.0, "source", "2026", 1.0, 3.0)
    assert [figure.as_cost(case) for case in ("low", "middle", "high")] == [1.0, 2.0, 3.0]
    assert [figure.as_gain(case) for case in ("low", "middle", "high")] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("low", "value", "high", "source", "date", "word"),
    [
        (1.0, 1.0, 1.0, " ", "2026", "source"),
        (1.0, 1.0, 1.0, "source", "", "date"),
        (1.0, 3.0, 2.0, "source", "2026", "low <= value"),
        (0.0, 0.0, 0.0, "source", "2026", "positive"),
        (1.0, float("nan"), 2.0, "source", "2026", "finite"),
        (1.0, 1.0, float("inf"), "source", "2026", "finite"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(low, value, high, source, date, word):
    with pytest.raises(ValueError, match=word):
        Figure(value, source, date, low, high)


def test_every_mistake_is_named_at_once(table):
    card = table["devices"]["l40s"]
    del card["power_w"]["source"]
    del card["memory_gb"]
    card["colour"] = "green"
    card["architecture"] = "vera"
    card["overhead_us"] = {"value": 3.0, "low": 4.0, "high": 5.0, "source": "a page", "date": "2026"}
    card["rates_tflops"]["fp5"] = card["rates_tflops"]["bf16"]
    card["price_usd"] = 8300
    table["devices"]["n150"]["cores"] = {"value": "64", "source": "a page", "date": "2026"}
    with pytest.raises(ValueError, match="mistakes in the table of devices") as caught:
        parse_devices(yaml.safe_dump(table))
    text = str(caught.value)
    for words in (
        "8 mistakes",
        "l40s.power_w: a figure needs a source",
        "l40s.memory_gb: missing",
        "l40s.colour: unknown key",
        "l40s.architecture: 'vera'",
        "l40s.overhead_us: low <= value",
        "l40s.rates_tflops.fp5",
        "l40s.price_usd: a figure is a mapping",
        "n150.cores: needs a number",
    ):
        assert words in text


@pytest.mark.parametrize("text", ["", "devices: {}", "devices: 3", "- devices"])
def test_an_empty_table_is_refused(text):
    with pytest.raises(ValueError, match="at least one card"):
        parse_devices(text)


def test_devices_are_frozen():
    devices = load_devices()
    with pytest.raises(TypeError):
        devices["l40s"] = devices["n150"]
    with pytest.raises(FrozenInstanceError):
        devices["l40s"].name = "other"
    with pytest.raises(TypeError):
        devices["l40s"].rates_tflops["bf16"] = devices["n150"].power_w
    assert hash(devices["l40s"]) != hash(devices["n150"])
