"""Settings of every test."""

import hypothesis
import torch

# One thread, as the search itself computes; two spinning on a busy machine can be ten times slower than one.
torch.set_num_threads(1)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")
