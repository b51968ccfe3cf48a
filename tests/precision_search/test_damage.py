import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from backends.emulation.audition import Bench
from precision.policy import Scheme
from precision.study import Study
from precision_search.damage import measure_damage
from precision_search.damage_cache import DamageCache
from precision_search.progress import Progress
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import FORETOLD_AT_ONCE, Workers

QUIET = Progress(quiet=True)
SIZES = {"fp32": 1e-3, "bf16": 1e-2, "bfp8_hifi2": 0.02, "bf16_lofi": 0.1, "bfp8_lofi": 0.15, "bfp8_both_lofi": 30.0}


def size(site: str, scheme: Scheme) -> float:
    return SIZES[scheme.name] * (0.5 + (zlib.crc32(site.encode()) % 1000) / 1000)


class Counting:
    """Stands where the workers do: what is asked is counted, nothing is rendered; the last is there first."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[tuple[str, Scheme]] = []
        self.foretold: list[tuple[str, Scheme]] = []
        self._dies_after = dies_after

    def damage(
        self, tasks: Sequence[tuple[str, Scheme]], metrics: Sequence[str], made: Callable[[int, dict[str, float]], None]
    ) -> list[dict[str, float]]:
        found = {}
        for place in reversed(range(len(tasks))):
            if len(self.asked) == self._dies_after:
                raise RuntimeError("killed")
            self.asked.append(tasks[place])
            found[place] = dict.fromkeys(metrics, 0.1 * size(*tasks[place]))
            made(place, found[place])
        return [found[place] for place in range(len(tasks))]

    def foretell(self, tasks: Sequence[tuple[str, Scheme]]) -> list[tuple[float, ...]]:
        self.foretold += tasks
        return [(size(*task), 0.0) for task in tasks]


@pytest.fixture(scope="module")
def setting():
    return make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=2")))


@pytest.fixture(scope="module")
def bench(setting):
    return Bench.of(setting.recipe.gates, setting.material("search"), 1)


def measured(folder, setting, bench, crew, cache=None):
    """The damages, and the study's lines of them."""
    begun = (folder / "study.jsonl").exists()
    with Study.open(folder, {"recipe": "t"}) if begun else Study.create(folder, {"recipe": "t"}) as study:
        return measure_damage(setting, study, crew, bench, QUIET, cache), study.records("damage")


def test_nothing_is_measured_twice_nor_again_on_resume(tmp_path, setting, bench):
    first, second = Counting(), Counting()
    found, _ = measured(tmp_path / "study", setting, bench, first)
    again, _ = measured(tmp_path / "study", setting, bench, second)
    assert again == found
    assert not second.asked
    assert not second.foretold
    assert len(set(first.asked)) == len(first.asked)
    assert set(found) == {(site, scheme.name) for site, schemes in setting.space.items() for scheme in schemes}
    # At a product of two activations the weights of a scheme mean nothing: bf16_lofi and bfp8_lofi are one there.
    product = next(site.name for site in setting.sites if not site.weight_shape and site.name not in setting.protected)
    assert found[product, "bf16_lofi"] is not found[product, "bf16"]
    assert found[product, "bf16_lofi"] == found[product, "bfp8_lofi"]
    assert [scheme.name for site, scheme in first.foretold if site == product].count("bfp8_lofi") == 0


def test_what_is_beyond_doubt_is_settled_and_logged_as_such(tmp_path, setting, bench):
    crew = Counting()
    found, lines = measured(tmp_path / "study", setting, bench, crew)
    why = {(line["site"], line["scheme"]): line.get("settled") for line in lines}
    assert set(why.values()) == {None, "harmless", "hopeless"}
    assert len(why) == len(lines) == len(crew.foretold)
    asked = {(site, scheme.name) for site, scheme in crew.asked}
    assert asked == {key for key, reason in why.items() if reason is None}
    assert len(asked) < 0.7 * len(why)
    schemes = {scheme.name: scheme for scheme in setting.recipe.schemes}
    for (site, scheme), reason in why.items():
        true = 0.1 * size(site, schemes[scheme])
        for metric, budget in bench.budgets.items():
            if reason == "harmless":
                assert true <= found[site, scheme][metric] <= 0.1 * budget
        if reason == "hopeless":
            assert any(true > budget for budget in bench.budgets.values())


def test_what_came_before_a_kill_is_not_measured_again_in_whatever_order_it_came(tmp_path, setting, bench):
    whole, _ = measured(tmp_path / "whole", setting, bench, Counting())
    for dies_after in (10, 60):
        killed, resumed = Counting(dies_after), Counting()
        folder = tmp_path / f"after {dies_after}"
        with pytest.raises(RuntimeError, match="killed"):
            measured(folder, setting, bench, killed)
        found, _ = measured(folder, setting, bench, resumed)
        assert len(killed.asked) == dies_after
        assert not set(killed.asked) & set(resumed.asked)
        assert found == whole


def test_another_study_finds_everything_in_the_cache_and_settles_the_same(tmp_path, setting, bench):
    cache = DamageCache(setting, None, {}, bench.additive, QUIET.say)
    first, second = Counting(), Counting()
    found, lines = measured(tmp_path / "one", setting, bench, first, cache)
    again, more = measured(tmp_path / "other", setting, bench, second, cache)
    assert again == found
    assert not second.asked
    assert not second.foretold

    def logged(records):
        return sorted((line["site"], line["scheme"], line.get("settled", ""), str(line["damage"])) for line in records)

    assert logged(more) == logged(lines)  # the study is whole: what is found is in it as if it were measured


def test_few_options_and_voices_without_gradients_are_measured_whole(tmp_path, setting, bench):
    few = replace(setting, space={site: schemes[:1] for site, schemes in setting.space.items()})
    sites = [site for site in few.sites if few.space[site.name]][:50]
    few = replace(few, discovery=replace(few.discovery, sites=tuple(sites)))

    class Mute:
        """A voice with no excerpts."""

    for name, asked in (("few", few), ("no gradients", replace(setting, voice=Mute()))):
        crew = Counting()
        _, lines = measured(tmp_path / name, asked, bench, crew)
        assert not crew.foretold
        assert len(crew.asked) == len(lines)


def test_the_forecast_is_the_same_from_any_workers(tiny):
    small = make_setting(read_recipe(str(tiny.recipe), ()))
    tasks = [(site.name, scheme) for site in small.sites for scheme in small.space[site.name]]
    assert len(tasks) > FORETOLD_AT_ONCE
    found = []
    for count in (1, 2):
        with Workers(small, None, count, {}) as crew:
            found.append(crew.foretell(tasks))
    assert found[0] == found[1]
    coarser = dict(zip([(site, scheme.name) for site, scheme in tasks], found[0], strict=True))
    assert all(coarser[site.name, "bold"][0] > coarser[site.name, "bf16"][0] > 0 for site in small.sites)
