"""Times of the GEMM path, and CUDA graphs of a step, by stand-ins where there is no card."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from backends.hopper.gemm import GemmEngine
from backends.hopper.gemm_graph import WARM_UP, CapturedStep, check_inputs, median_time
from precision.policy import Policy
from tests.backends.hopper.by_hand import random
from tests.backends.hopper.mixed_decoder import WIDE


def test_times_are_of_the_clock_that_is_there():
    engine = GemmEngine(nn.Sequential(nn.Linear(32, 16)), Policy.of({"0": WIDE[0]}), device="cpu")
    runs = []
    timing = engine.time(lambda: runs.append(engine.module(random(4, 32))), runs=5, warm_up=2)
    assert (len(runs), len(timing.seconds), timing.clock) == (7, 5, "wall clock")
    assert min(timing.seconds) * 1e6 <= timing.median_us <= max(timing.seconds) * 1e6
    with pytest.raises(ValueError, match="1 run or more"):
        median_time(lambda: None, torch.device("cpu"), runs=0)


class Memory:
    """A step that adds up what it is given."""

    def __init__(self):
        self.total = torch.full((2,), 5.0)
        self.calls = 0

    def __call__(self, *, x):
        self.calls += 1
        self.total.add_(x)
        return (self.total * 2,)

    def states(self):
        return [self.total]


class Replayed:
    """A graph as CUDA has it: what was captured is computed again from the same memory into the same memory."""

    captured = None

    def replay(self):
        step, inputs, outputs = self.captured
        for held, new in zip(outputs, step(**inputs), strict=True):
            held.copy_(new)


def test_a_capture_leaves_states_as_they_were_and_replays_from_its_own_inputs(monkeypatch):
    stream = MagicMock()
    graphs = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda of: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs.append(Replayed()) or graphs[-1])
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    step, example = Memory(), torch.ones(2)
    captured = CapturedStep(step, {"x": example}, torch.device("cpu"))
    assert step.calls == WARM_UP + 1
    assert step.total.tolist() == [5.0, 5.0]
    graphs[0].captured = (step, captured._inputs, captured._outputs)
    given = torch.tensor([1.0, 2.0])
    first = captured(x=given)
    assert first[0].tolist() == [12.0, 14.0]
    assert captured(x=given)[0] is first[0]
    assert first[0].tolist() == [14.0, 18.0]
    assert example.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="x is missing"):
        captured(y=given)


def test_inputs_that_do_not_fit_a_capture_are_all_named():
    held = {"text": torch.zeros(1, dtype=torch.long), "position": torch.zeros(1, dtype=torch.long)}
    check_inputs(held, {name: values.clone() for name, values in held.items()})
    with pytest.raises(ValueError, match=r"position is missing; row is not one of text, position; text is"):
        check_inputs(held, {"text": torch.zeros(2), "row": torch.zeros(1)})
