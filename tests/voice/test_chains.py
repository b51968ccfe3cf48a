import torch
from torch import nn
from torch.nn import functional as F

from voice.chains import find_chains


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.norm = nn.LayerNorm(8)
        self.gate = nn.Linear(8, 8)
        self.out = nn.Conv1d(8, 8, 3, padding=1)
        with torch.no_grad():
            self.norm.weight.copy_(torch.arange(8) + 1.0)

    def forward(self, x):
        x = x + self.down(F.gelu(self.up(x)))  # the order between them is free
        gated = self.gate(self.norm(x))  # ends in a residual: bound
        return self.out((x + gated).mT)


def test_only_channels_that_nothing_else_reads_may_be_reordered():
    torch.manual_seed(0)
    block, x = Block(), torch.randn(1, 5, 8)
    assert find_chains(block, lambda: (block(x),)) == {"up": "down"}


def test_a_convolution_feeds_a_transposed_one():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(4, 6, 3), nn.LeakyReLU(), nn.ConvTranspose1d(6, 10, 4, 2), nn.Conv1d(10, 4, 3, groups=2)
    )
    x = torch.randn(1, 4, 20)
    assert find_chains(model, lambda: (model(x),)) == {"0": "2"}


def test_a_site_called_twice_is_left_out():
    torch.manual_seed(0)
    layer, last = nn.Linear(6, 6), nn.Linear(6, 6)
    model, x = nn.ModuleList([layer, last]), torch.randn(3, 6)
    assert find_chains(model, lambda: (last(torch.relu(layer(torch.relu(layer(x))))),)) == {}
