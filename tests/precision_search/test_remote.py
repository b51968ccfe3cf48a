"""What a worker on another machine is sent, and what it makes of it without any file of this one."""

import shutil
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from audio_eval.output import Output
from calibrate.adapted import Operands
from precision.policy import Policy
from precision_search.auditions import Auditions
from precision_search.bundle import address, pack, unpack
from precision_search.progress import Progress
from precision_search.remote import Fetched, RemoteWorker, differences, first_digest, questions
from precision_search.run import moments_of
from precision_search.store import HELD_OUTPUTS, Store
from precision_search.wire import make_setting, read_recipe

METRICS = ("lsd_db", "group_delay_rad")


class Shelf(dict[str, bytes]):
    """An object store in this process: by the address of what it holds."""

    def put(self, content: bytes) -> str:
        self[address(content)] = content
        return address(content)


@pytest.fixture(scope="module")
def setting(made, tmp_path_factory):
    """A setting whose files are gone."""
    folder = tmp_path_factory.mktemp("gone") / "tiny"
    shutil.copytree(made, folder)
    levers = "[fidelity_rounding, error_feedback, bias_correction]"
    recipe = (made / "tiny.yaml").read_text().replace("[fidelity_rounding]", levers).replace(str(made), str(folder))
    (folder / "tiny.yaml").write_text(recipe)
    found = make_setting(read_recipe(str(folder / "tiny.yaml"), ()))
    shutil.rmtree(folder)
    return found


@pytest.fixture(scope="module")
def here(setting):
    site = setting.sites[0].name
    module = setting.voice.module.get_submodule(site)
    trained = {site: Operands(module.weight.detach() * 1.5, module.bias.detach())}
    return Auditions(setting, None, moments_of(setting, Progress(quiet=True)), {"0f0f": trained})


def asked(worker, store, method, *task):
    parcel = store.parcel(task)
    return unpack(worker.do(method, parcel.task, parcel.references, parcel.adapted))


@pytest.fixture(scope="module")
def shelf():
    return Shelf()


@pytest.fixture(scope="module")
def store(here, shelf):
    return Store(shelf.put, here)


@pytest.fixture(scope="module")
def worker(store, shelf):
    made = RemoteWorker(shelf.__getitem__, store.content, store.moments, 1)
    made.begin()
    return made


def test_a_setting_is_packed_bit_for_bit(setting, made):
    whole = unpack(pack(setting))
    assert (whole.recipe, whole.discovery, whole.space) == (setting.recipe, setting.discovery, setting.space)
    assert (whole.refused, whole.protected, whole.device) == (setting.refused, setting.protected, setting.device)
    held, found = setting.voice.module.state_dict(), whole.voice.module.state_dict()
    assert all(torch.equal(found[name], held[name]) for name in held)
    for clip, other in zip(setting.held_back_clips, whole.held_back_clips, strict=True):
        assert np.array_equal(other.natural, clip.natural)
        assert torch.equal(whole.voice.render(other).sound, setting.voice.render(clip).sound)


def test_packing_keeps_nan_read_only_mappings_and_arrays_that_can_be_written_to():
    value = MappingProxyType({"sound": np.array([np.nan, -0.0, 1.5], dtype=np.float32)})
    found = unpack(pack(value))
    assert isinstance(found, MappingProxyType)
    assert found["sound"].tobytes() == value["sound"].tobytes()
    found["sound"][0] = 0.0


def test_the_embedded_voice_is_packed_too():
    setting = make_setting(read_recipe("tts_blackhole", ()))
    whole = unpack(pack(setting))
    clip = setting.search_clips[0]
    assert torch.equal(whole.voice.render(whole.search_clips[0]).sound, setting.voice.render(clip).sound)


def test_a_remote_worker_finds_what_this_process_finds(here, worker, store):
    setting = here.setting
    site = setting.sites[0].name
    by_levers = next(scheme for scheme in setting.recipe.schemes if "error_feedback" in scheme.levers)
    assert asked(worker, store, "damage", site, by_levers, METRICS) == (here.damage(site, by_levers, METRICS), None)
    policy = Policy.uniform([one.name for one in setting.sites], setting.recipe.baseline)
    (rendered, scores), error = asked(worker, store, "render", "held_back", policy, 1, METRICS)
    assert error is None
    ours, our_scores = here.render("held_back", policy, 1, METRICS)
    assert np.array_equal(rendered.samples, ours.samples)
    assert scores == our_scores
    assert asked(worker, store, "score", "held_back", 1, ours, METRICS) == (our_scores, None)


def test_trained_weights_go_by_their_digest(here, worker, store):
    site = here.setting.sites[0].name
    scheme = replace(here.setting.recipe.baseline, adapted="0f0f")
    found = here.damage(site, scheme, METRICS)
    assert asked(worker, store, "damage", site, scheme, METRICS) == (found, None)
    assert found != here.damage(site, here.setting.recipe.baseline, METRICS)


def test_sound_is_put_once_and_the_oldest_let_go(here):
    shelf = Shelf()
    store = Store(shelf.put, here)
    before = len(shelf)
    first = store.parcel(("held_back", 0, Output(np.zeros(4, np.float32)), METRICS))
    for number in range(HELD_OUTPUTS + 1):
        store.parcel((0, Output(np.full(4, number, np.float32))))
    assert len(shelf) == before + HELD_OUTPUTS + 1, "the first is the same as one of the others"
    assert len(first.task) < 300
    assert unpack(shelf[next(iter(first.references))]).samples.shape == (4,)
    assert len(store._outputs) == HELD_OUTPUTS


def test_an_error_comes_back_as_it_was_raised_and_says_where(here, worker, store):
    result, error = asked(worker, store, "damage", "nowhere", here.setting.recipe.baseline, METRICS)
    assert result is None
    assert isinstance(error, ValueError)
    assert "'nowhere'" in str(error)
    assert "Traceback" in error.__notes__[0]


def test_a_worker_begins_with_the_first_clip_as_its_processor_computes_it(here, worker):
    assert unpack(worker.begin()) == (first_digest(here), None)


def test_what_was_fetched_is_kept_where_that_is_wanted():
    asked = []

    def fetch(reference):
        asked.append(reference)
        return pack(reference * 2)

    kept, passing = (Fetched(fetch, {"a": 1, "b": 2}, keep=keep) for keep in (True, False))
    assert [kept["a"], kept["a"], passing["a"], passing["a"]] == [2, 2, 2, 2]
    assert asked == [1, 1, 1]
    assert dict(passing) == {"a": 2, "b": 4}
    with pytest.raises(KeyError):
        kept["c"]


def test_a_node_says_its_versions_and_what_differs_is_named():
    ours = questions()()
    assert set(ours) == {"python", "torch", "numpy", "precision-search"}
    assert differences(ours, dict(ours)) == []
    assert differences(ours, ours | {"torch": "1.0"}) == [f"torch is 1.0, here {ours['torch']}"]
    assert differences({"python": "3.12.1"}, {}) == ["python is not there, here 3.12.1"]
