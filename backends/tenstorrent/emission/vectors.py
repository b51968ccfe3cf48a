"""Vectors: operations on single numbers of tensors, and reductions along an axis."""

from collections.abc import Mapping

from backends.tenstorrent.emission.code import Call, Context, Emitted, dtype_of, memory_of, number
from backends.tenstorrent.geometry import divisors, tiles
from backends.tenstorrent.program import CardStep
from backends.tenstorrent.shards import TILE

BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
_SYMMETRIC = ("maximum", "minimum")
UNARY: Mapping[str, Mapping[str, str]] = {
    "relu": {},
    "silu": {},
    "sigmoid": {},
    "sin": {},
    "cos": {},
    "abs": {},
    "neg": {},
    "square": {},
    "reciprocal": {},
    "tanh": {"fast_and_approximate_mode": "False"},
    "exp": {"fast_and_approximate_mode": "False"},
    "log": {"fast_and_approximate_mode": "False"},
    "sqrt": {"fast_and_approximate_mode": "False"},
    "rsqrt": {"fast_and_approximate_mode": "False"},
    "softplus": {"beta": "1.0", "threshold": "20.0"},
}
"""Operations of one tensor and the arguments that are always the same."""
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "leaky_relu": {"slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "clamp": {"min": "min", "max": "max"},
}
"""Operations of one tensor with options of their own -> what ttnn calls those."""


def binary(step: CardStep, context: Context) -> Call:
    """An operation of two tensors, or of one and a number."""
    operands = [context.read(name) for name in step.inputs]
    if "scalar" in step.options:
        scalar = number(float(step.options["scalar"]))
        first = step.options.get("reversed") and step.op not in _SYMMETRIC
        operands = [scalar, *operands] if first else [*operands, scalar]
    return Call(f"ttnn.{step.op}", (*operands, f"dtype={dtype_of(step.result)}", _memory(step)))


def unary(step: CardStep, context: Context) -> Call:
    """An operation of one tensor."""
    fixed = [f"{name}={value}" for name, value in UNARY[step.op].items()]
    return Call(f"ttnn.{step.op}", (context.read(step.inputs[0]), *fixed, _memory(step)))


def with_options(step: CardStep, context: Context) -> Call:
    """An operation of one tensor and numbers."""
    given = []
    for option, name in _OPTIONS[step.op].items():
        value = step.options[option]
        given.append(f"{name}={None if value is None else number(float(value))}")
    return Call(f"ttnn.{step.op}", (context.read(step.inputs[0]), *given, _memory(step)))


def gelu(step: CardStep, context: Context) -> Call:
    """GELU; ttnn's fast one is a table of straight lines, so both of torch's are its accurate one."""
    return Call("ttnn.gelu", (context.read(step.inputs[0]), "fast_and_approximate_mode=False", _memory(step)))


def power(step: CardStep, context: Context) -> Call:
    """A power with a number as its exponent."""
    return Call("ttnn.pow", (context.read(step.inputs[0]), number(float(step.options["exponent"])), _memory(step)))


def reduction(step: CardStep, context: Context) -> Call:
    """A sum or mean along an axis, of fp32 in fp32."""
    assert step.compute is not None
    return Call(
        f"ttnn.{step.op}",
        (
            context.read(step.inputs[0]),
            f"dim={step.options['axis']}",
            f"keepdim={bool(step.options['keep'])}",
            _memory(step),
            f"compute_kernel_config={context.compute(step.compute)}",
            "scalar=1.0",
            "fast_and_approximate_mode=False",
        ),
    )


def cumsum(step: CardStep, context: Context) -> Call:
    """A running sum along an axis, compensated where it is in fp32."""
    return Call(
        "ttnn.cumsum",
        (
            context.read(step.inputs[0]),
            f"dim={step.options['axis']}",
            f"dtype={dtype_of(step.result)}",
            "reverse_order=False",
            _memory(step),
        ),
    )


def softmax(step: CardStep, context: Context) -> Call:
    """Softmax along the last axis, the largest taken off first."""
    assert step.compute is not None
    return Call(
        "ttnn.softmax",
        (
            context.read(step.inputs[0]),
            f"dim={step.options.get('axis', -1)}",
            _memory(step),
            f"compute_kernel_config={context.compute(step.compute)}",
            "numeric_stable=True",
        ),
    )


def norm(step: CardStep, context: Context) -> Call:
    """Layer and RMS norm along the last axis."""
    assert step.compute is not None
    x, weight, bias = (*(context.read(name) for name in step.inputs), "None", "None")[:3]
    config = context.named(
        "NORM", "ttnn.LayerNormDefaultProgramConfig(legacy_reduction=False, legacy_rsqrt=False, use_welford=False)"
    )
    return Call(
        f"ttnn.{step.op}",
        (
            x,
            f"epsilon={number(float(step.options['epsilon']))}",
            f"weight={weight}",
            f"bias={bias}",
            "residual_input_tensor=None",
            _memory(step),
            f"program_config={config}",
            f"compute_kernel_config={context.compute(step.compute)}",
        ),
    )


def group_norm(step: CardStep, context: Context) -> Call:
    """Group norm of one clip, [1, 1, positions, channels]; weight and bias are rows, [1, 1, channels / 32, 32].

    Raises:
        ValueError: what ttnn does not take: more than one clip, other channels than whole tiles, tiles of weights.
    """
    assert step.compute is not None
    shape, groups = step.result.shape, step.options["groups"]
    if shape[0] * shape[1] != 1 or shape[-1] % TILE or shape[-1] % groups:
        raise ValueError(
            f"group_norm of {shape} in {groups} groups: ttnn takes [1, 1, positions, channels] with channels in whole"
            f" tiles of {TILE} and in whole groups"
        )
    for name in step.inputs[1:]:
        if context.values[name].layout != "row_major" or context.values[name].shape[-1] != TILE:
            raise ValueError(f"{name}: a weight of group_norm is row_major, [1, 1, channels / {TILE}, {TILE}]")
    x, weight, bias = (*(context.read(name) for name in step.inputs), "None", "None")[:3]
    rows = max(part for part in divisors(tiles(shape[-2])) if part <= context.card.grid[1])
    return Call(
        "ttnn.group_norm",
        (
            x,
            f"num_groups={groups}",
            f"epsilon={number(float(step.options['epsilon']))}",
            "input_mask=None",
            f"weight={weight}",
            f"bias={bias}",
            _memory(step),
            f"dtype={dtype_of(step.result)}",
            f"core_grid=ttnn.CoreGrid(x=1, y={rows})",
            "inplace=False",
            "output_layout=ttnn.TILE_LAYOUT",
            "num_out_blocks=-1",
            f"compute_kernel_config={context.compute(step.compute)}",
            "negative_mask=None",
            "use_welford=False",
        ),
    )


def _memory(step: CardStep) -> str:
    return f"memory_config={memory_of(step.result)}"


VECTORS: Mapping[str, Emitted] = {
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(_OPTIONS, with_options),
    "gelu": gelu,
    "pow": power,
    "sum": reduction,
    "mean": reduction,
    "cumsum": cumsum,
    "softmax": softmax,
    "layer_norm": norm,
    "rms_norm": norm,
    "group_norm": group_norm,
}
