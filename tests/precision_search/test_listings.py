"""The commands that only tell."""

import json

import pytest

from precision.blocks import known_formats
from precision_search.main import main
from precision_search.wire import devices


@pytest.fixture
def told(capsys):
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        return capsys.readouterr().out

    return run


def test_formats(told):
    text = told("formats")
    assert all(name in text for name in known_formats())
    rows = {row["name"]: row for row in json.loads(told("formats", "--json"))["formats"]}
    assert rows["fp8_e4m3"]["largest"] == 448
    assert rows["bfp8_b"]["stored_bits"] == 8.5


def test_devices_come_with_their_sources(told):
    assert all(name in told("devices") for name in devices())
    for row in json.loads(told("devices", "--json"))["devices"]:
        assert all(figure["source"] for figure in row["figures"].values())


def test_sites_and_their_share(told, tiny):
    found = json.loads(told("sites", str(tiny.recipe), "--json"))
    assert found["covered_mac_share"] == 1.0
    assert sum(row["mac_share"] for row in found["sites"]) == pytest.approx(1.0)
    assert "100.00% of" in told("sites", str(tiny.recipe))


def test_check_tells_what_is_refused(told, tiny):
    assert "nothing wrong" in told("check", str(tiny.recipe))
    text = told("check", str(tiny.recipe), "--set", "schemes.bold.activation=bfp4_b")
    assert "refused bold: activation bfp4_b" in text
    assert "11 sites: conv_pre" in text


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "precision-search run tts_blackhole" in text
    assert "exit codes" in text
