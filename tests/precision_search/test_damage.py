from collections.abc import Callable, Sequence

import pytest

from backends.emulation.audition import Bench
from precision.policy import Scheme
from precision.study import Study
from precision_search.damage import measure_damage
from precision_search.progress import Progress
from precision_search.wire import make_setting, read_recipe


class Counting:
    """Stands where the workers do: what is asked is counted, nothing is rendered; the last is there first."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[tuple[str, Scheme]] = []
        self._dies_after = dies_after

    def damage(
        self, tasks: Sequence[tuple[str, Scheme]], metrics: Sequence[str], made: Callable[[int, dict[str, float]], None]
    ) -> list[dict[str, float]]:
        found = {}
        for place in reversed(range(len(tasks))):
            if len(self.asked) == self._dies_after:
                raise RuntimeError("killed")
            self.asked.append(tasks[place])
            found[place] = dict.fromkeys(metrics, float(place))
            made(place, found[place])
        return [found[place] for place in range(len(tasks))]


def test_nothing_is_measured_twice_nor_again_on_resume(tmp_path):
    setting = make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=2")))
    bench = Bench.of(setting.recipe.gates, setting.material("search"), 1)
    quiet = Progress(quiet=True)
    first, second = Counting(), Counting()
    with Study.create(tmp_path / "study", {"recipe": "test"}) as study:
        found = measure_damage(setting, study, first, bench, quiet)
    with Study.open(tmp_path / "study", {"recipe": "test"}) as study:
        again = measure_damage(setting, study, second, bench, quiet)
    assert again == found
    assert not second.asked
    assert set(found) == {(site, scheme.name) for site, schemes in setting.space.items() for scheme in schemes}
    # At a product of two activations the weights of a scheme mean nothing: bf16_lofi and bfp8_lofi are one there.
    product = next(site.name for site in setting.sites if not site.weight_shape and site.name not in setting.protected)
    assert found[product, "bf16_lofi"] is not found[product, "bf16"]
    assert found[product, "bf16_lofi"] == found[product, "bfp8_lofi"]
    assert [scheme.name for site, scheme in first.asked if site == product].count("bfp8_lofi") == 0


def test_what_came_before_a_kill_is_not_measured_again_in_whatever_order_it_came(tmp_path):
    setting = make_setting(read_recipe("tts_blackhole", ("data.search=1", "data.held_back=2")))
    bench = Bench.of(setting.recipe.gates, setting.material("search"), 1)
    quiet = Progress(quiet=True)
    killed, resumed = Counting(dies_after=10), Counting()
    with (
        Study.create(tmp_path / "study", {"recipe": "test"}) as study,
        pytest.raises(RuntimeError, match="killed"),
    ):
        measure_damage(setting, study, killed, bench, quiet)
    with Study.open(tmp_path / "study", {"recipe": "test"}) as study:
        assert len(study.records("damage")) == 10
        measure_damage(setting, study, resumed, bench, quiet)
    assert len(killed.asked) == 10
    assert not set(killed.asked) & set(resumed.asked)
