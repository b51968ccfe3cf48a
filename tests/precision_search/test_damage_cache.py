from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calibrate.calibration import Calibration
from calibrate.moments import Moments
from precision_search import damage_cache
from precision_search.damage_cache import DamageCache, cache_folder
from precision_search.wire import make_setting, read_recipe

METRICS = ("lsd_db", "group_delay_rad")
FOUND = {"lsd_db": 0.1 + 0.2, "group_delay_rad": float("inf")}
SITE = "vocoder.pre"


@pytest.fixture(scope="module")
def setting():
    return make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=2")))


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(setting, tmp_path, said):
    return DamageCache(setting, None, {}, METRICS, said.append, tmp_path / "kept")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_kept_comes_back_to_the_bit(setting, cache, tmp_path, said):
    scheme = setting.recipe.schemes[1]
    assert cache.get("damage", SITE, scheme) is None
    cache.put("damage", SITE, scheme, FOUND)
    other = DamageCache(setting, None, {}, METRICS, said.append, tmp_path / "kept")
    assert other.get("damage", SITE, scheme) == FOUND
    assert len(files(tmp_path / "kept")) == 1
    assert not said


def test_the_address_is_of_everything_that_damage_depends_on(setting, cache, tmp_path, monkeypatch):
    scheme = setting.recipe.schemes[1]
    cache.put("damage", SITE, scheme, FOUND)
    assert cache.get("damage", SITE, replace(scheme, name="by another name")) == FOUND
    assert cache.get("damage", SITE, replace(scheme, fidelity="lofi")) is None
    assert cache.get("damage", "vocoder.head", scheme) is None
    assert cache.get("foretold", SITE, scheme) is None

    def of(*given, setting=setting):
        return DamageCache(setting, *given, print, tmp_path / "kept").get("damage", SITE, scheme)

    moments = Moments(torch.zeros(1, 2), torch.eye(2)[None], 7)
    assert of(None, {}, METRICS) == FOUND
    assert of(None, {"vocoder.head": moments}, METRICS) == FOUND  # of another site
    assert of(None, {SITE: moments}, METRICS) is None
    assert of(Calibration("amax", ((SITE, "x", 1.0),)), {}, METRICS) is None
    assert of(None, {}, METRICS[:1]) is None
    assert of(None, {}, METRICS, setting=replace(setting, search_clips=setting.held_back_clips[:1])) is None
    assert of(None, {}, METRICS, setting=replace(setting, held_back_clips=())) == FOUND
    monkeypatch.setattr(setting.voice.module.vocoder.pre, "dilation", (2,))
    assert of(None, {}, METRICS) is None
    monkeypatch.undo()
    assert of(None, {}, METRICS) == FOUND
    with torch.no_grad():
        setting.voice.module.vocoder.pre.bias.add_(1.0)
        try:
            assert of(None, {}, METRICS) is None
        finally:
            setting.voice.module.vocoder.pre.bias.sub_(1.0)
    monkeypatch.setattr(damage_cache, "code_digest", lambda: "other code")
    assert of(None, {}, METRICS) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "damage"}', b"\xff\xfe", b'{"kind":"x","values":{}}'])
def test_what_cannot_be_read_is_as_nothing_and_is_written_anew(setting, cache, tmp_path, content, said):
    scheme = setting.recipe.schemes[1]
    cache.put("damage", SITE, scheme, FOUND)
    (path,) = files(tmp_path / "kept")
    path.write_bytes(content)
    assert cache.get("damage", SITE, scheme) is None
    cache.put("damage", SITE, scheme, FOUND)
    assert cache.get("damage", SITE, scheme) == FOUND
    assert files(tmp_path / "kept") == [path]
    assert not said


def test_a_cache_that_cannot_be_written_is_told_of_once(setting, tmp_path, said):
    (tmp_path / "file").write_text("in the way")
    cache = DamageCache(setting, None, {}, METRICS, said.append, tmp_path / "file")
    for scheme in setting.recipe.schemes:
        cache.put("damage", SITE, scheme, FOUND)
        assert cache.get("damage", SITE, scheme) is None
    assert len(said) == 1
    assert said[0].startswith("damages are not kept for other studies: ")


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.setenv("PRECISION_SEARCH_CACHE", "/named")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/named")
    monkeypatch.delenv("PRECISION_SEARCH_CACHE")
    assert cache_folder() == Path("/shared/precision-search")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/somebody/.cache/precision-search")
