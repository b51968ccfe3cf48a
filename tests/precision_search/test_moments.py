"""Levers that use data: the same result whatever the number of processes, and no look where none is needed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calibrate.moments import StoredMoments, save_moments
from precision_search.progress import Progress
from precision_search.run import moments_of
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import Workers

METRICS = ("lsd_db", "group_delay_rad")


@pytest.fixture(scope="module")
def setting(made):
    levers = "[fidelity_rounding, gain_folding, error_feedback, bias_correction]"
    recipe = (made / "tiny.yaml").read_text().replace("[fidelity_rounding]", levers)
    return make_setting(read_recipe(_written(made / "levers.yaml", recipe), ()))


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_moments_are_taken_of_the_sites_whose_schemes_ask_for_them(setting, tiny):
    quiet = Progress(quiet=True)
    plain = make_setting(read_recipe(str(tiny.recipe), ()))
    assert moments_of(plain, quiet) == {}
    moments = moments_of(setting, quiet)
    assert set(moments) == {site.name for site in setting.sites}
    for site in setting.sites:
        groups, k = moments[site.name].mean.shape
        assert groups == site.groups
        assert k == site.k * (site.kernel if site.op == "conv_transpose1d" else 1)
        assert moments[site.name].second.shape == (groups, k, k)
    first, *_ = setting.sites
    fewer = replace(setting, space={**setting.space, first.name: (setting.recipe.baseline,)})
    assert set(moments_of(fewer, quiet)) == set(moments) - {first.name}


@pytest.mark.slow
def test_damage_does_not_depend_on_how_many_processes_measure_it(setting):
    moments = moments_of(setting, Progress(quiet=True))
    (scheme,) = (scheme for scheme in setting.recipe.schemes if "error_feedback" in scheme.levers)
    tasks = [(site.name, scheme) for site in setting.sites[:3]]
    found = []
    for count in (1, 2):
        with Workers(setting, None, count, moments) as crew:
            found.append(list(crew.damage(tasks, METRICS)))
    assert found[0] == found[1]
    assert all(damage["lsd_db"] > 0 for damage in found[0])
    with Workers(setting, None, 1, {}) as crew, pytest.raises(ValueError, match="error_feedback needs the moments"):
        list(crew.damage(tasks, METRICS))


def test_a_second_look_gives_the_same_moments(setting, tmp_path):
    quiet = Progress(quiet=True)
    moments, again = moments_of(setting, quiet), moments_of(setting, quiet)
    save_moments(moments, tmp_path / "moments.safetensors")
    stored = StoredMoments(tmp_path / "moments.safetensors")
    for site, held in moments.items():
        for other in (again[site], stored[site]):
            assert torch.equal(other.mean, held.mean)
            assert torch.equal(other.second, held.second)
