"""Small modules, each with an operation or two between sites; together all that a lowering knows."""

import math

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS, TIME = 40, 24


class Between(nn.Module):
    """A convolution, something, and another convolution, over [1, channels, time]."""

    def __init__(self, do, *, inner=CHANNELS):
        super().__init__()
        self.first = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.last = nn.Conv1d(inner, 8, 1)
        self.do = do

    def forward(self, x):
        return self.last(self.do(self.first(x)))


class Rows(nn.Module):
    """A linear layer, something, and another, over [1, rows, channels]."""

    def __init__(self, do, *, inner=CHANNELS):
        super().__init__()
        self.first = nn.Linear(CHANNELS, CHANNELS)
        self.last = nn.Linear(inner, 8)
        self.do = do

    def forward(self, x):
        return self.last(self.do(self.first(x.mT)))


class Snake(nn.Module):
    """x + sin^2(a x) / a, as codecs have it (Ziyin et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.linspace(0.5, 2, CHANNELS)[None, :, None])

    def forward(self, x):
        return x + (1 / (self.alpha + 1e-9)) * torch.sin(self.alpha * x).pow(2)


class Attention(nn.Module):
    """Heads, rotary positions, a causal mask."""

    def __init__(self, *, causal, fused):
        super().__init__()
        self.causal, self.fused = causal, fused
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)

    def forward(self, x):
        query, key, value = (
            part.view(1, -1, 2, CHANNELS // 2).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        query, key = turned(query), turned(key)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        else:
            scores = query @ key.mT / math.sqrt(CHANNELS // 2)
            if self.causal:
                scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -1e9)
            mixed = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).reshape(x.shape)


def turned(x):
    rate = 100.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    angle = torch.arange(x.shape[-2])[:, None] * rate
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], dim=-1)


class Spectrum(nn.Module):
    """An inverse STFT head: magnitude and phase, a basis, a cut."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, 18, 3, padding=1)
        self.register_buffer("basis", torch.randn(18, 1, 16) / 4)

    def forward(self, x):
        magnitude, phase = self.conv(x).chunk(2, dim=1)
        magnitude = torch.exp(magnitude.clamp(max=3.0))
        spectrum = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)
        return F.conv_transpose1d(spectrum, self.basis, stride=4)[:, :, 6:-6]


class Branches(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(CHANNELS, CHANNELS, k, padding=k // 2) for k in (1, 3, 5))
        self.how = how

    def forward(self, x):
        parts = [conv(x) for conv in self.convs]
        if self.how == "mean":
            return torch.stack(parts).mean(dim=0)
        if self.how == "sum":
            return torch.stack(parts).sum(dim=0) / 3
        return torch.cat(parts, dim=1)[:, 10:50]


def activation(name):
    return {
        "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "elu": F.elu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "exp": lambda x: torch.exp(x * 0.1),
        "square": lambda x: x**2,
        "abs_sqrt": lambda x: torch.sqrt(x.abs() + 0.1),
        "log": lambda x: torch.log(x.abs() + 0.5),
        "rsqrt": lambda x: torch.rsqrt(x * x + 1.0),
        "reciprocal": lambda x: 1 / (x.abs() + 0.5),
        "clamp": lambda x: x.clamp(-0.5, 0.7),
        "sine": torch.sin,
        "minus": lambda x: 2.0 - x,
        "normalised": lambda x: x / x.abs().mean(dim=1, keepdim=True),
    }[name]


ACTIVATIONS = (
    "leaky_relu relu gelu gelu_tanh silu elu tanh sigmoid softplus exp square abs_sqrt log rsqrt reciprocal clamp sine"
    " minus normalised"
).split()


def zoo():
    """Modules by name; all take [1, CHANNELS, TIME]."""
    torch.manual_seed(0)
    modules = {name: Between(activation(name)) for name in ACTIVATIONS}
    modules |= {
        "snake": Between(Snake()),
        "branches_mean": Between(Branches("mean")),
        "branches_sum": Between(Branches("sum")),
        "branches_cat": Between(Branches("cat")),
        "residual": Between(lambda x: x + F.leaky_relu(x)),
        "padded": Between(lambda x: F.pad(x, (3, 2))),
        "halves": Between(lambda x: x[:, ::1, 4:20]),
        "group_norm": Between(nn.GroupNorm(4, CHANNELS)),
        "group_norm_of_tiles": nn.Sequential(
            nn.Conv1d(CHANNELS, 64, 1), nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv1d(64, 8, 1)
        ),
        "layer_norm": Rows(nn.LayerNorm(CHANNELS)),
        "rms_norm": Rows(nn.RMSNorm(CHANNELS)),
        "channel_norm": Between(lambda x: F.layer_norm(x.mT, [CHANNELS]).mT),
        "attention": Rows(Attention(causal=False, fused=False)),
        "causal_attention": Rows(Attention(causal=True, fused=False)),
        "fused_attention": Rows(Attention(causal=False, fused=True)),
        "fused_causal_attention": Rows(Attention(causal=True, fused=True)),
        "spectrum": nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 1), Spectrum()),
        "strided": nn.Sequential(
            nn.Conv1d(CHANNELS, 16, 4, stride=2, padding=1), nn.ConvTranspose1d(16, 8, 5, stride=3, output_padding=1)
        ),
        "grouped": nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 3, groups=4, dilation=2), nn.Conv1d(CHANNELS, 8, 1)),
        "gated": Rows(lambda x: F.glu(x), inner=CHANNELS // 2),
    }
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}
