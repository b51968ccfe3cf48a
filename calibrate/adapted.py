"""Adapted: weights trained for a policy, the plan they were trained by, and the file that holds them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """What a site computes with in place of its own weight and bias."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train; the same plan gives the same weights."""

    steps: int = 300
    """Steps by the model's sound."""
    local_steps: int = 20
    """Steps by each site's own output, before."""
    rate: float = 4e-4
    """Step of Adam, relative to the root mean square of the weight or bias."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained by."""
        if self.steps < 1 or self.local_steps < 0 or not self.rate > 0:
            raise ValueError(f"steps must be >= 1, local_steps >= 0 and rate > 0, got {self}")


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """Trained operands of each site, float32, not yet rounded as the target stores them; and what it took."""

    operands: Mapping[str, Operands]
    loss_before: float
    """Mean over the validated stretches, before the first step."""
    loss_after: float
    """Of the weights that are kept; never above the first."""
    best_step: int
    """Step after which they were as they are kept, local steps counted; 0: nothing that was tried was better."""
    minutes: float
    plan: Plan


def save_adapted(adapted: Adapted, path: Path) -> None:
    """Write trained operands and what they took to a safetensors file, in one step."""
    from safetensors.torch import save_file  # late, as all of safetensors here: benchmarks of a card run without it

    tensors: dict[str, Tensor] = {}
    for site, held in adapted.operands.items():
        tensors[f"{site}.weight"] = held.weight.contiguous()
        if held.bias is not None:
            tensors[f"{site}.bias"] = held.bias.contiguous()
    told = {
        "loss_before": adapted.loss_before,
        "loss_after": adapted.loss_after,
        "best_step": adapted.best_step,
        "minutes": adapted.minutes,
        "plan": asdict(adapted.plan),
    }
    beside = path.with_name(f".{path.name}.part")
    save_file(tensors, beside, {"adapted": json.dumps(told, sort_keys=True)})
    beside.replace(path)


def load_adapted(path: Path) -> Adapted:
    """Read what `save_adapted` wrote.

    Raises:
        ValueError: the file is none of those.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("adapted", "null"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read ({error}); delete it, and --resume trains it again") from error
    if told is None:
        raise ValueError(f"{path}: holds no adapted weights; delete it, and --resume trains it again")
    sites = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    operands = {site: Operands(tensors[f"{site}.weight"], tensors.get(f"{site}.bias")) for site in sites}
    return Adapted(
        operands, told["loss_before"], told["loss_after"], told["best_step"], told["minutes"], Plan(**told["plan"])
    )


def adapted_file(digest: str) -> str:
    """Name of the file that holds the weights of a digest, in a study's folder."""
    return f"adapted-{digest}.safetensors"


@dataclass(slots=True)
class StoredAdaptations(Mapping[str, Mapping[str, Operands]]):
    """Digest -> site -> trained operands, of the files in a folder; each is read when it is first asked for."""

    folder: Path
    _held: dict[str, Mapping[str, Operands]] = field(default_factory=dict, repr=False)

    def __getitem__(self, digest: str) -> Mapping[str, Operands]:
        """Operands of a digest.

        Raises:
            KeyError: the folder has no such file.
        """
        if digest not in self._held:
            path = self.folder / adapted_file(digest)
            if not path.is_file():
                raise KeyError(f"{path}: not there, and a policy names these weights; run the recipe again")
            self._held[digest] = load_adapted(path).operands
        return self._held[digest]

    def __iter__(self) -> Iterator[str]:
        before, after = adapted_file("*").split("*")
        return (
            path.name.removeprefix(before).removesuffix(after) for path in sorted(self.folder.glob(adapted_file("*")))
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)
