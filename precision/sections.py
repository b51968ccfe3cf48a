"""RecipeFile: a recipe as it is written, section by section."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Strict, Tag

from precision.cost_section import CostSection
from precision.decoding_section import DecodingSection
from precision.gates import Over
from precision.model_section import ModelSection
from precision.policy import Accumulate, Fidelity, Granularity, Lever, ScaleMode
from precision.section_values import FORBID, Count, Name, Number, Text, Whole
from precision.site import Op

Share = Annotated[Number, Field(gt=0, le=4)]
Goal = Literal["cheapest", "best_audio"]
WrittenCards: TypeAlias = Annotated[
    Annotated[Text, Tag("<file>")] | Annotated[dict[Text, dict[Text, Any]], Tag("<cards>")],
    Discriminator(lambda cards: "<file>" if isinstance(cards, str) else "<cards>"),
]
"""A file of cards, or the cards themselves."""
Minimized = Literal["seconds", "passes", "joules", "usd", "weight_bytes"]
Method = Literal["exact", "exhaustive", "tpe", "nsga2"]


@dataclass(frozen=True, slots=True)
class TargetSection:
    """What the model is to run on."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    device: Annotated[Text, Field(title="Card")]
    """A card of devices.yaml; the backend follows from it."""
    route: Annotated[Literal["tensorrt", "gemm"] | None, Field(title="Route")] = None
    """What runs all of the model on a Hopper card: one TensorRT engine, or torch with scaled GEMMs; left out, each site
    may be what either of them takes."""
    slow_fp8: Annotated[Literal["refuse", "allow"], Field(title="Slow FP8")] = "refuse"
    """What becomes of FP8 at a layer where NVIDIA measured it slower than bf16, with the rows of the recipe's streams.
    What was measured finds a scale and quantizes the activation before each product. An engine of static scales finds
    none, and may quantize in the operation before, so FP8 may be faster there all the same: allow it, and measure."""
    measured: Annotated[Text | None, Field(title="Results of the card at hand")] = None
    """File that benchmarks/hopper_gpu.py wrote on the card: what is in it, static scales applied within the time, goes
    before NVIDIA's measurements."""
    cards: Annotated[WrittenCards | None, Field(title="Cards of one's own")] = field(default=None, hash=False)
    """File in the layout of devices.yaml, or its mapping of cards by name: these may be named here and in cost.against
    beside the package's own. A study's recipe holds the cards themselves."""


@dataclass(frozen=True, slots=True)
class DataSection:
    """The clips that a search hears, and those that judge it."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    search: Annotated[Count, Field(title="Clips of the search")]
    """Number of clips that calibrate and that damage is measured on."""
    held_back: Annotated[Count, Field(title="Clips held back")]
    """Number of clips the search does not see, on which the gates must hold."""
    audio: Annotated[Text | None, Field(title="Folder of audio")] = None
    """Folder of WAV or FLAC files to use in place of the model's own clips."""
    seconds: Annotated[Number | None, Field(title="Seconds of a clip", ge=0.5)] = None
    """Longest part of each recording that is used, from its beginning; all of it where left out."""


@dataclass(frozen=True, slots=True)
class CalibrateSection:
    """How the range of an activation is turned into a scale."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    method: Annotated[Literal["amax", "percentile", "mse"], Field(title="Method")]
    """The largest magnitude, a percentile of the magnitudes, or the scale of least squared error."""
    percentile: Annotated[Number | None, Field(title="Percentile", gt=0, le=100)] = None
    """Percent of the magnitudes that the scale covers; with the method percentile, and only there."""


@dataclass(frozen=True, slots=True)
class SchemeEntry:
    """How a site may compute."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    weight: Annotated[Text, Field(title="Weight format")]
    """Format the weights are stored in."""
    activation: Annotated[Text, Field(title="Activation format")]
    """Format the activations arrive in."""
    accumulate: Annotated[Accumulate, Field(title="Accumulator")] = "fp32"
    """Format sums are kept in."""
    fidelity: Annotated[Fidelity | None, Field(title="Math fidelity")] = None
    """Passes of a Tensix multiplication; left out for targets without such a choice."""
    weight_scale: Annotated[Granularity, Field(title="Weight scale")] = "channel"
    """What one scale of a scaled weight format covers."""
    activation_scale: Annotated[ScaleMode, Field(title="Activation scale")] = "static"
    """Whether the scale of a scaled activation format is calibrated or taken from each tensor."""
    levers: Annotated[tuple[Lever, ...], Field(title="Levers")] = ()
    """What is done to the weights beforehand, at no cost at run time."""
    packer_l1_acc: Annotated[bool, Strict(), Field(title="L1 accumulation")] = False
    """Whether the Tensix packer adds the partial sums of K blocks in memory, instead of reloading them."""
    in0_block_w: Annotated[Count | None, Field(title="K block")] = None
    """Tiles of K (32 each) between two spills of a partial sum; left out: all of K at once."""
    bias_apart: Annotated[bool, Strict(), Field(title="Bias apart")] = False
    """Whether the bias is added by an operation of its own: ttnn's fused one cuts an fp32 sum first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which schemes the sites of a name and kind may choose from; the first rule that matches a site holds."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    match: Annotated[Text, Field(title="Sites")]
    """Name of a site, or a shell pattern of names; upper and lower case differ."""
    allow: Annotated[tuple[Text, ...], Field(title="Schemes allowed", min_length=1)]
    """Names of schemes, and of presets of the recipe for all of theirs."""
    op: Annotated[Op | None, Field(title="Operation")] = None
    """Only sites of this operation; left out for all of them."""
    agree: Annotated[Literal["module", "rule"] | None, Field(title="Agree")] = None
    """Its sites that take one scheme together: those of one module, as q, k and v of a fused attention; or all of the
    rule, as the branches of a residual sum."""


@dataclass(frozen=True, slots=True)
class GateEntry:
    """A promise: a metric over the clips is at least `min` or at most `max`; exactly one of the two."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    metric: Annotated[Text, Field(title="Metric")]
    """Name of a metric."""
    over: Annotated[Over, Field(title="Over the clips")] = "mean"
    """The mean of the clips, the worst, their 5 % quantile on the bad side, or a one-sided 95 % bound of the mean."""
    min: Annotated[Number | None, Field(title="Minimum")] = None
    """The least value that keeps the promise, in the metric's unit."""
    max: Annotated[Number | None, Field(title="Maximum")] = None
    """The greatest value that keeps the promise, in the metric's unit."""


@dataclass(frozen=True, slots=True)
class GatesSection:
    """A profile of gates, with changes."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    profile: Annotated[Text, Field(title="Profile")]
    """Name of a profile, such as transparent."""
    add: Annotated[tuple[GateEntry, ...], Field(title="Added gates")] = ()
    """Gates the profile does not have."""
    replace: Annotated[tuple[GateEntry, ...], Field(title="Replaced gates")] = ()
    """New thresholds for gates of the profile: the same metric, over and side."""


@dataclass(frozen=True, slots=True)
class WithinSection(Mapping[str, float]):
    """What a policy may take at most; as a mapping, the limits that are given and no others."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    seconds: Annotated[Share | None, Field(title="Seconds")] = None
    """Seconds of the card, as a share of what the baseline takes."""
    passes: Annotated[Share | None, Field(title="Passes")] = None
    """Passes of a Tensix multiplier, as a share of what the baseline takes."""
    joules: Annotated[Share | None, Field(title="Energy")] = None
    """Energy of the card, as a share of what the baseline takes."""
    usd: Annotated[Share | None, Field(title="Dollars")] = None
    """Dollars a stream of speech costs, as a share of what the baseline costs."""
    weight_bytes: Annotated[Share | None, Field(title="Weight bytes")] = None
    """Bytes that the weights take in memory, as a share of what they take at the baseline."""
    effective_bits: Annotated[Number | None, Field(title="Effective bits", ge=1, le=32)] = None
    """Bits a weight is stored in, mean over the weights of all sites; not a share."""

    def __getitem__(self, resource: str) -> float:
        """Give a limit; KeyError where none is set for the resource."""
        if resource not in tuple(self):
            raise KeyError(resource)
        return float(getattr(self, resource))

    def __iter__(self) -> Iterator[str]:
        """Names of the resources that are limited, in the order of the layout."""
        return (key.name for key in fields(self) if getattr(self, key.name) is not None)

    def __len__(self) -> int:
        """Count the limits."""
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSection:
    """What is looked for, how, and how much is tried."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    goal: Annotated[Goal, Field(title="Goal")] = "cheapest"
    """The cheapest policy that keeps the gates, or the one of best audio among those `within` their limits."""
    minimize: Annotated[Minimized, Field(title="Minimize")]
    """What is made small: seconds of the card per second of audio, passes of a Tensix multiplier per product, the
    card's energy, what a stream costs, or the bytes of the weights."""
    within: Annotated[WithinSection, Field(title="Within")] = field(default_factory=WithinSection)
    """What a policy may take at most; needed where the goal is best_audio."""
    method: Annotated[Method, Field(title="Method")] = "exact"
    """How: exact solutions of the measured damages, corrected by every evaluation; every policy of a small space; or
    Optuna's TPE or NSGA-II, begun from the exact solutions, for what does not add."""
    candidates: Annotated[Count, Field(title="Candidates")]
    """Number of evaluations in a row that may better nothing before the search ends."""
    evaluations: Annotated[Count, Field(title="Evaluations")]
    """Number of policies that the search hears, at most; repairs and the proof that no site can be lowered come on
    top."""
    seed: Annotated[Whole, Field(title="Seed", ge=0)]
    """Seed of everything random."""


@dataclass(frozen=True, slots=True)
class AdaptSection:
    """Training of weights for a policy that is a little too cheap, by the sound of the model on its own clips."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    steps: Annotated[Whole, Field(title="Steps", ge=1, le=100_000)] = 300
    """Number of training steps by sound, each on 1.5 s of a clip; 300 take some minutes on a processor."""
    local_steps: Annotated[Whole, Field(title="Local steps", ge=0, le=100_000)] = 20
    """Number of steps before, in which every site learns its own output."""
    rate: Annotated[Number, Field(title="Rate", gt=0, le=0.01)] = 4e-4
    """Size of a step relative to the weights."""


def _gates_form(gates: object) -> str | None:
    if isinstance(gates, list | tuple):
        return "<list>"
    return "<profile>" if isinstance(gates, Mapping | GatesSection) else None


WrittenGates: TypeAlias = Annotated[
    Annotated[tuple[GateEntry, ...], Field(title="Gates", min_length=1), Tag("<list>")]
    | Annotated[GatesSection, Tag("<profile>")],
    Field(title="Gates"),
    Discriminator(_gates_form),
]
"""A list of gates, or a profile with changes."""


@dataclass(frozen=True, slots=True)
class GatesFile:
    """Gates alone, for clips that no recipe made."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    gates: WrittenGates
    """What must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFile:
    """One search: a model, a card, what may be chosen, and what must still hold."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    version: Annotated[Literal[1], Field(title="Version")]
    """Version of this layout."""
    name: Annotated[Name, Field(title="Name")]
    """Name of the recipe, and of its study folder."""
    model: Annotated[ModelSection, Field(title="Model")]
    """The voice model under search."""
    target: Annotated[TargetSection, Field(title="Target")]
    """What the model is to run on."""
    data: Annotated[DataSection, Field(title="Data")]
    """The clips that a search hears, and those that judge it."""
    calibrate: Annotated[CalibrateSection, Field(title="Calibration")]
    """How the range of an activation is turned into a scale."""
    presets: Annotated[tuple[Text, ...], Field(title="Presets")] = ()
    """Named sets of schemes to begin with; `precision-search presets` lists them."""
    schemes: Annotated[dict[Name, SchemeEntry], Field(title="Schemes")] = field(default_factory=dict, hash=False)
    """Ways to compute, each named once and used by name; one of a preset's name takes its place."""
    baseline: Annotated[Text, Field(title="Baseline")]
    """The scheme that is the yardstick."""
    space: Annotated[tuple[Rule, ...], Field(title="Space", min_length=1)]
    """Which site may choose what: the first rule that matches holds, every site matches one, every rule is used."""
    gates: WrittenGates
    """What must hold on the clips held back."""
    search: Annotated[SearchSection, Field(title="Search")]
    """What is looked for, how, and how much is tried."""
    cost: Annotated[CostSection | None, Field(title="Cost")] = None
    """What a stream is priced at; left out for the defaults."""
    adapt: Annotated[AdaptSection | None, Field(title="Adaptation")] = None
    """Training of weights for a policy that is a little too cheap; left out, none are trained. `adapt: {}` will do."""
    decoding: Annotated[DecodingSection | None, Field(title="Decoding")] = None
    """What `precision-search cost` assumes of the streams of a decoder; left out for the defaults. No search reads
    it."""
