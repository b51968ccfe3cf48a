from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from calibrate.adapt import Adaptation
from calibrate.adapted import Adapted, Operands, Plan, StoredAdaptations, adapted_file, load_adapted, save_adapted
from calibrate.spectral_loss import SpectralLoss

RATE = 8000
PLAN = Plan(steps=60, local_steps=5, rate=2e-3)


@dataclass
class Call:
    site: str
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    index: int

    def compute(self):
        return F.conv1d(self.x, self.weight, self.bias, padding=8)


class Model:
    """Two filters in a row; whoever attaches gets their calls."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weights = {name: torch.randn(1, 1, 17, generator=generator) for name in ("first", "second")}
        self.bias = torch.full((1,), 0.01)
        self.handler = None

    @contextmanager
    def attach(self, handler):
        self.handler = handler
        try:
            yield
        finally:
            self.handler = None

    def __call__(self, x):
        for index, (name, weight) in enumerate(self.weights.items()):
            call = Call(name, x, weight, self.bias if name == "second" else None, index)
            x = call.compute() if self.handler is None else self.handler(call)
            x.mul_(0.1)  # the model writes into what it gets
        return x[0, 0]

    def start(self):
        return {
            name: Operands(weight, self.bias if name == "second" else None) for name, weight in self.weights.items()
        }


def coarse(call, operands, *, detached):
    """A target that stores weights in steps of a quarter, and drops a tenth of the gain."""
    weight, bias = (call.weight, call.bias) if operands is None else (operands.weight, operands.bias)
    stored = weight + ((weight * 4).round() / 4 - weight).detach()
    x = call.x.detach() if detached else call.x
    return 0.9 * F.conv1d(x, stored, bias, padding=8)


def draw(model):
    def choose(generator):
        x = torch.randn(1, 1, 4000, generator=generator)
        return lambda: model(x)

    return choose


def adaptation(model, plan=PLAN, start=None):
    begin = model.start() if start is None else start
    return Adaptation(model.attach, coarse, draw(model), begin, sample_rate_hz=RATE, plan=plan)


def test_training_brings_the_sound_nearer_and_leaves_the_model_alone():
    model = Model()
    before = {name: weight.clone() for name, weight in model.weights.items()}
    adapted = adaptation(model).run()
    assert adapted.loss_after < 0.7 * adapted.loss_before
    assert 0 < adapted.best_step <= 65
    assert adapted.minutes > 0
    assert all(torch.equal(model.weights[name], weight) for name, weight in before.items())
    assert not any(weight.requires_grad for weight in model.weights.values())
    assert adapted.operands["first"].bias is None
    assert not torch.equal(adapted.operands["second"].bias, model.bias)


def test_the_weights_that_are_kept_give_the_loss_that_is_told():
    model = Model()
    adapted = adaptation(model).run()
    again = adaptation(model, start=adapted.operands)
    assert again.validated_loss() == adapted.loss_after


def test_the_same_plan_gives_the_same_weights_and_another_seed_others():
    first, second, other = (
        adaptation(Model(), plan).run().operands["first"].weight
        for plan in (Plan(8, 2, 1e-3), Plan(8, 2, 1e-3), Plan(8, 2, 1e-3, seed=1))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_local_steps_alone_learn_each_sites_output():
    model = Model()
    training = adaptation(model, Plan(steps=1, local_steps=80, rate=2e-3))
    told = []
    adapted = training.run(lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == list(range(1, 82))
    assert dict(told)[80] < 0.6 * adapted.loss_before


def test_what_makes_it_worse_is_not_kept():
    adapted = adaptation(Model(), Plan(steps=3, local_steps=0, rate=30.0)).run()
    assert (adapted.loss_after, adapted.best_step) == (adapted.loss_before, 0)
    assert torch.equal(adapted.operands["first"].weight, Model().weights["first"])


def test_only_the_sites_that_are_given_are_trained():
    model = Model()
    adapted = adaptation(model, Plan(4, 2), start={"second": model.start()["second"]}).run()
    assert set(adapted.operands) == {"second"}


def test_nothing_to_train_a_silent_model_and_a_loss_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="no site has a weight"):
        adaptation(Model(), start={})
    silent = Model()
    silent.weights["second"] = torch.zeros(1, 1, 17)
    silent.bias = torch.zeros(1)
    with pytest.raises(ValueError, match="silent"):
        adaptation(silent)
    broken = adaptation(Model())
    broken._operands["first"].weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="nan before the first step"):
        broken.run()
    with pytest.raises(FloatingPointError, match="at step 2; lower the rate"):
        adaptation(Model(), Plan(4, 0, rate=1e38)).run()


@pytest.mark.parametrize("change", [{"steps": 0}, {"local_steps": -1}, {"rate": 0.0}])
def test_a_plan_that_trains_nothing_is_refused(change):
    with pytest.raises(ValueError, match="steps must be >= 1"):
        replace(PLAN, **change)


def test_trained_weights_come_back_from_their_file(tmp_path):
    weight = torch.randn(2, 3)
    written = Adapted({"a.b": Operands(weight, torch.ones(2)), "c": Operands(weight.T, None)}, 1.5, 0.5, 7, 2.25, PLAN)
    path = tmp_path / adapted_file("0f")
    stored = StoredAdaptations(tmp_path)  # made before there is a file
    save_adapted(written, path)
    read = load_adapted(path)
    assert (read.loss_before, read.loss_after, read.best_step, read.minutes, read.plan) == (1.5, 0.5, 7, 2.25, PLAN)
    assert list(stored) == ["0f"]
    assert len(stored) == 1
    assert torch.equal(stored["0f"]["a.b"].weight, weight)
    with pytest.raises(KeyError, match="run the recipe again"):
        stored["00"]
    assert torch.equal(read.operands["c"].weight, weight.T)
    assert read.operands["c"].bias is None
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot be read .* trains it again"):
        load_adapted(path)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.floats(0.001, 0.3), st.floats(1.1, 4.0), st.integers(0, 100))
def test_the_loss_is_least_for_the_reference_and_grows_with_noise(noise, factor, seed):
    generator = torch.Generator().manual_seed(seed)
    reference = 0.1 * torch.randn(4000, generator=generator)
    error = torch.randn(4000, generator=generator)
    loss = SpectralLoss([reference], RATE)
    same, near, far = (
        float(loss(reference + step * error, reference)) for step in (0, 0.1 * noise, 0.1 * noise * factor)
    )
    assert 0 <= same < 0.01
    assert same < near < far


def test_hiss_in_a_pause_weighs_nearly_as_the_same_ratio_in_speech():
    generator = torch.Generator().manual_seed(0)
    speech, hiss = torch.randn(8000, generator=generator), torch.randn(8000, generator=generator)
    level = torch.cat([torch.full((4000,), 0.5), torch.full((4000,), 0.005)])
    reference = level * speech
    loss = SpectralLoss([reference], RATE)
    half = torch.arange(8000) < 4000
    loud = float(loss(reference + 0.03 * level * hiss * half, reference))
    soft = float(loss(reference + 0.03 * level * hiss * ~half, reference))
    assert loud / 3 < soft < loud  # of 40 dB less power


def test_the_loss_of_a_silent_stretch_has_a_gradient():
    loss = SpectralLoss([torch.randn(4000)], RATE)
    rendered = torch.zeros(4000, requires_grad=True)
    loss(rendered, torch.zeros(4000)).backward()
    assert torch.isfinite(rendered.grad).all()
