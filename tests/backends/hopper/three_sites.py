"""A model of three sites, two in FP8 and one in bf16, lowered once; for what is built from a lowered model."""

from functools import lru_cache

import torch
from torch import nn

from backends.base import Measured
from backends.hopper.lower import Lowered, lower
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from voice.graph import graph_of

FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
BF16 = Scheme("bf16", "bf16", "bf16")
POLICY = Policy.of({"pre": FP8, "mid": FP8, "head": BF16})
CALIBRATION = Calibration.of("amax", {"pre": {"input": 3.0}, "mid": {"input": 2.0}})


class ThreeSites(nn.Module):
    """A convolution and two linear layers, with a state that is added to their result."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pre, self.mid, self.head = nn.Conv1d(32, 64, 3, padding=1), nn.Linear(64, 48), nn.Linear(48, 16)
        self.eval().requires_grad_(False)

    def forward(self, x, past):
        y = self.head(torch.relu(self.mid(torch.relu(self.pre(x)).mT)))
        return y + past, past + y[:, -1:]


@lru_cache(maxsize=1)
def three_sites() -> Lowered:
    graph = graph_of(ThreeSites(), {"x": torch.randn(1, 32, 24)}, {"past": torch.zeros(1, 1, 16)}, parts=("y",))
    return lower(graph, POLICY, Measured(calibration=CALIBRATION))
