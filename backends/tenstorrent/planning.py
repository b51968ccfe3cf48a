"""Plan: what the library made of every operation of a program, and whether that is what its policy says."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backends.tenstorrent.exported.listing import table
from backends.tenstorrent.program import Compute
from precision.policy import Policy, Scheme

PRODUCTS = frozenset({"linear", "matmul", "conv1d", "conv_transpose1d"})
"""Operations that compute a site."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor as a call was given it, or gave it."""

    name: str
    """Keyword or position of the argument."""
    shape: tuple[int, ...]
    dtype: str
    """Our name on the card, numpy's on the host."""
    place: str
    layout: str | None = None
    """None of a host array."""


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """One step of a program, as the library took it."""

    index: int
    site: str | None
    op: str
    call: str
    source: str
    inputs: tuple[PlannedTensor, ...]
    """Those given to the call; lists are flattened."""
    output: PlannedTensor | None
    """None where the library refused it, or it runs on the host."""
    refused: str | None
    """The library's reason, or that it leaves too little L1; None where the operation is taken."""
    device_ops: tuple[str, ...]
    """The operations of the device that the call became."""
    operands: tuple[str, ...]
    """Types that the one of them which computes reads; a convolution's first is what its halo made, never blocks."""
    compute: Compute | None
    """The kernel configuration that it got; None where it takes none."""
    k_block_tiles: int | None
    """Tiles of K (32 each) between two spills of a sum; None where that can't be read."""
    k_blocks: int | None
    """How many such blocks a sum has."""
    l1_bytes_per_core: int
    """The most that one core holds while it runs."""
    l1_bytes: int
    """The most that all cores hold."""
    dram_bytes: int
    """What the program holds of DRAM after it, weights included."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PlannedOp":
        """One of the plan's `steps`."""
        compute, output = data["compute"], data["output"]
        return cls(
            **{
                **data,
                "inputs": tuple(_tensor(held) for held in data["inputs"]),
                "output": None if output is None else _tensor(output),
                "device_ops": tuple(data["device_ops"]),
                "operands": tuple(data["operands"]),
                "compute": None if compute is None else Compute(**compute),
            }
        )


def _tensor(data: Mapping[str, Any]) -> PlannedTensor:
    return PlannedTensor(**{**data, "shape": tuple(data["shape"])})


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole program on one card."""

    card: str
    architecture: str
    grid: tuple[int, int]
    """Columns and rows of cores."""
    l1_bytes_per_core: int
    """What buffers may take of one, beside the part that convolutions keep their windows in."""
    weights_dram_bytes: int
    """What weights and state take before the first run; those of convolutions come with their first call."""
    steps: tuple[PlannedOp, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """What `run.py --plan --json` writes.

        Raises:
            TypeError: fields that are missing or unknown: an export of another version.
        """
        steps = tuple(PlannedOp.from_dict(step) for step in data["steps"])
        return cls(**{**data, "grid": tuple(data["grid"]), "steps": steps})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `from_dict` takes it."""
        return asdict(self)

    @property
    def refusals(self) -> tuple[PlannedOp, ...]:
        """Steps that the library refused."""
        return tuple(step for step in self.steps if step.refused is not None)

    def table(self) -> str:
        """A row a step, the totals and the refusals."""
        return table(self.to_dict())


@dataclass(frozen=True, slots=True)
class Realized:
    """How a site computes by the library's account."""

    weight: str
    """What the device operation reads; of a product of two activations, the type of the second."""
    activation: str
    """Of the tensor given to the call."""
    accumulate: str
    fidelity: str
    output: str
    packer_l1_acc: bool
    k_block_tiles: int | None
    k_blocks: int | None
    bias_fused: bool


def realized(plan: Plan) -> Mapping[str, Realized]:
    """How each site computes, in the order of first calls; sites whose operation was refused are not among them."""
    sites: dict[str, Realized] = {}
    for step, found in _products(plan):
        if found is not None and step.site is not None:
            sites.setdefault(step.site, found)
    return sites


def _products(plan: Plan) -> Iterator[tuple[PlannedOp, Realized | None]]:
    """Steps that compute a site, and how; None for one that was refused."""
    for step in plan.steps:
        if step.site is None or step.op not in PRODUCTS:
            continue
        if step.refused is not None or step.output is None or step.compute is None or len(step.operands) < 2:
            yield step, None
            continue
        yield (
            step,
            Realized(
                weight=step.operands[1],
                activation=step.inputs[0].dtype,
                accumulate="fp32" if step.compute.fp32_accumulation else "bf16",
                fidelity=step.compute.fidelity,
                output=step.output.dtype,
                packer_l1_acc=step.compute.packer_l1_acc,
                k_block_tiles=step.k_block_tiles,
                k_blocks=step.k_blocks,
                bias_fused=len(step.operands) > 2,
            ),
        )


def mismatches(plan: Plan, policy: Policy) -> list[str]:
    """Where a plan is not what a policy says: a line for each, with the site, what was wanted, and what it got.

    A site with several operations is held against its scheme in each of them. Empty where all is as it should be.
    """
    lines, seen = [], set()
    for step, found in _products(plan):
        site = step.site or ""
        seen.add(site)
        where = f"{site} (step {step.index}, {step.call})"
        if site not in policy:
            lines.append(f"{where}: the policy has no such site")
        elif found is None:
            lines.append(f"{where}: refused: {' '.join((step.refused or 'no kernel configuration').split())}")
        else:
            lines += [
                f"{where}: {what} {wanted}, got {got}" for what, wanted, got in _differences(policy[site], step, found)
            ]
    lines += [f"{site}: no operation of the program computes it" for site in policy if site not in seen]
    return lines


def _differences(scheme: Scheme, step: PlannedOp, found: Realized) -> Iterator[tuple[str, object, object]]:
    second = scheme.activation if step.op == "matmul" else scheme.weight
    pairs = (
        ("second activation" if step.op == "matmul" else "weight", second, found.weight),
        ("activation", scheme.activation, found.activation),
        ("accumulation", scheme.accumulate, found.accumulate),
        ("fidelity", scheme.fidelity, found.fidelity),
        ("packer_l1_acc", scheme.packer_l1_acc, found.packer_l1_acc),
    )
    yield from (pair for pair in pairs if pair[1] != pair[2])
    if scheme.bias_apart and found.bias_fused:
        yield "bias", "apart", "one fused with the product"
    if scheme.in0_block_w is None:
        if found.k_blocks not in (None, 1):
            yield "blocks of K", 1, found.k_blocks
    elif found.k_block_tiles not in (None, scheme.in0_block_w) and not (
        found.k_blocks == 1 and (found.k_block_tiles or 0) <= scheme.in0_block_w  # K has no more tiles
    ):
        yield "in0_block_w", scheme.in0_block_w, found.k_block_tiles
