"""Scheme and Policy: how one site computes, and which site computes how."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Fidelity = Literal["lofi", "hifi2", "hifi3", "hifi4"]
FIDELITIES: tuple[Fidelity, ...] = ("lofi", "hifi2", "hifi3", "hifi4")
Accumulate = Literal["fp32", "bf16"]
Granularity = Literal["tensor", "channel"]
ScaleMode = Literal["static", "dynamic"]
Lever = Literal["fidelity_rounding", "gain_folding", "error_feedback", "bias_correction", "col_tilize", "channel_order"]
LEVERS: tuple[Lever, ...] = (
    "fidelity_rounding",
    "gain_folding",
    "error_feedback",
    "bias_correction",
    "col_tilize",
    "channel_order",
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one site computes: formats of its operands and of its accumulator, and the passes it takes.

    Formats are names from `precision.formats` and `precision.blocks`.
    """

    name: str
    weight: str
    activation: str
    accumulate: Accumulate = "fp32"
    fidelity: Fidelity | None = None
    """Passes of a Tensix multiplication; None on targets that have no such choice."""
    weight_scale: Granularity = "channel"
    """What one scale of a scaled weight format (fp8, int8) covers; without meaning for the others."""
    activation_scale: ScaleMode = "static"
    """Whether the scale of a scaled activation format is calibrated or taken from each tensor."""
    levers: tuple[Lever, ...] = ()
    """What is done to the weights, at no cost at run time, to win back accuracy."""

    packer_l1_acc: bool = False
    """Whether the Tensix packer adds the partial sums of K blocks in memory, instead of reloading them."""
    in0_block_w: int | None = None
    """Tiles of K (32 each) between two spills of a partial sum; None: all of K at once, which never spills."""
    bias_apart: bool = False
    """Whether the bias is added by an operation of its own: ttnn's fused one cuts an fp32 sum first."""
    adapted: str | None = None
    """Digest of the weights trained for the site, in place of the model's own; no recipe says so."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields; `adapted` only where there is one."""
        data = asdict(self)
        data["levers"] = list(self.levers)
        if self.adapted is None:
            del data["adapted"]
        return data


@dataclass(frozen=True, slots=True)
class Policy(Mapping[str, Scheme]):
    """A total map from site name to scheme, in the model's order of sites; immutable and hashable."""

    schemes: tuple[tuple[str, Scheme], ...]

    @classmethod
    def of(cls, schemes: Mapping[str, Scheme]) -> "Policy":
        """Make a policy of a mapping, keeping its order."""
        return cls(tuple(schemes.items()))

    @classmethod
    def uniform(cls, sites: Iterator[str] | tuple[str, ...] | list[str], scheme: Scheme) -> "Policy":
        """Give every site the same scheme."""
        return cls(tuple((site, scheme) for site in sites))

    def __getitem__(self, site: str) -> Scheme:
        """Give the scheme of a site; KeyError where the policy has no such site."""
        for name, scheme in self.schemes:
            if name == site:
                return scheme
        raise KeyError(site)

    def __iter__(self) -> Iterator[str]:
        """Site names in the model's order."""
        return (name for name, _ in self.schemes)

    def __len__(self) -> int:
        """Count the sites."""
        return len(self.schemes)

    def replace(self, site: str, scheme: Scheme) -> "Policy":
        """The same policy with one site changed."""
        if site not in self:
            raise KeyError(site)
        return Policy(tuple((name, scheme if name == site else old) for name, old in self.schemes))

    @property
    def digest(self) -> str:
        """Hash of sites and schemes: 16 hexadecimal digits, stable over runs and machines."""
        text = json.dumps([[site, scheme.to_dict()] for site, scheme in self.schemes], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
