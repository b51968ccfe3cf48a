"""Modes: torch's compiler is not imported where nothing is compiled."""

import subprocess
import sys

SCRIPT = """
import sys
import torch
from voice.flow import find_flow
from voice.noise import paired_noise
from voice.sites import discover

model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
run = lambda: model(torch.randn(3, 4))
with paired_noise(0):
    assert len(discover(model, run, 1.0).sites) == 2
    assert find_flow(model, run) == {"1": "0"}
assert "torch._dynamo" not in sys.modules
compiled = torch.compile(lambda x: 2 * x, backend="eager")
assert "torch._dynamo" in sys.modules
with paired_noise(0):
    assert len(discover(model, lambda: compiled(run()), 1.0).sites) == 2
"""


def test_looking_at_a_model_imports_no_compiler_and_goes_on_beside_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
