"""Convolutions: conv1d, and its transpose as a conv_transpose2d of height 1."""

from typing import Any

from backends.tenstorrent.conv_geometry import Convolution, Shards, convolution_shards
from backends.tenstorrent.emission.code import Call, Context, called, dtype_of, memory_of
from backends.tenstorrent.emission.products import computed
from backends.tenstorrent.program import DTYPES, CardStep


def conv1d(step: CardStep, context: Context) -> Call:
    """`ttnn.conv1d`; it gives the weights back as it prepared them, which are then those of the next call."""
    options = step.options
    return Call(
        "ttnn.conv1d",
        (
            *_operands(step, context),
            f"input_length={options['length']}",
            f"kernel_size={options['kernel']}",
            f"stride={options['stride']}",
            f"padding={tuple(options['padding'])}",
            *_convolved(step, context),
            f"slice_config={_slices(step, context)}",
            "return_output_dim=False",
            "return_weights_and_bias=True",
        ),
        assigned=_prepared(step, context),
    )


def conv_transpose1d(step: CardStep, context: Context) -> Call:
    """`ttnn.conv_transpose2d` of height 1."""
    options = step.options
    left, right = options["padding"]
    return Call(
        "ttnn.conv_transpose2d",
        (
            *_operands(step, context),
            "input_height=1",
            f"input_width={options['length']}",
            f"kernel_size=(1, {options['kernel']})",
            f"stride=(1, {options['stride']})",
            f"padding=(0, 0, {left}, {right})",
            f"output_padding=(0, {options.get('output_padding', 0)})",
            *_convolved(step, context),
            f"dram_slice_config={_slices(step, context)}",
            "mirror_kernel=True",
            "return_output_dim=False",
            "return_weights_and_bias=True",
        ),
        assigned=_prepared(step, context),
    )


def _operands(step: CardStep, context: Context) -> tuple[str, ...]:
    x, weight, *bias = (context.read(name) for name in step.inputs)
    return (
        f"input_tensor={x}",
        f"weight_tensor={weight}",
        f"bias_tensor={bias[0] if bias else None}",
        "device=device",
        f"in_channels={step.options['in_channels']}",
        f"out_channels={step.options['out_channels']}",
        f"batch_size={step.options['batch']}",
    )


def _convolved(step: CardStep, context: Context) -> tuple[str, ...]:
    dilation, groups = step.options["dilation"], step.options["groups"]
    return (
        f"dilation={dilation if step.op == 'conv1d' else (1, dilation)}",
        f"groups={groups}",
        f"dtype={dtype_of(step.result)}",
        f"conv_config={_conv_config(step, context)}",
        f"compute_config={context.compute(computed(step))}",
        f"memory_config={memory_of(step.result)}",
    )


def _prepared(step: CardStep, context: Context) -> str:
    weight, *bias = (context.read(name) for name in step.inputs[1:])
    return f"{step.result.name}, ({weight}, {bias[0] if bias else '_'})"


def _conv_config(step: CardStep, context: Context) -> str:
    weights, shards = context.values[step.inputs[1]].dtype, _shards(step, context)
    stem, cores = f"CONV_{weights.upper()}", "None"
    if shards.grid is not None:
        columns, rows = shards.grid
        stem += f"_{columns}X{rows}"
        cores = f"ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord({columns - 1}, {rows - 1}))])"
    fields: dict[str, Any] = {
        "weights_dtype": f"ttnn.{DTYPES[weights]}",
        "activation": None,
        "deallocate_activation": False,
        "reallocate_halo_output": True,
        "config_tensors_in_dram": False,
        "act_block_h_override": 0 if shards.grid is None else 32,
        "act_block_w_div": 1,
        "reshard_if_not_optimal": False,
        "override_sharding_config": shards.grid is not None,
        "shard_layout": f"ttnn.TensorMemoryLayout.{shards.layout.upper()}_SHARDED",
        "core_grid": cores,
        "transpose_shards": False,
        "output_layout": "ttnn.TILE_LAYOUT",
        "enable_act_double_buffer": False,
        "enable_weights_double_buffer": False,
        "full_inner_dim": False,
        "enable_kernel_stride_folding": False,
        "enable_activation_reuse": False,
        "force_split_reader": False,
    }
    return context.named(stem, called("ttnn.Conv2dConfig", [f"{name}={value}" for name, value in fields.items()]))


def _shards(step: CardStep, context: Context) -> Shards:
    options, compute = step.options, computed(step)
    transposed = step.op == "conv_transpose1d"
    convolution = Convolution(
        taps=options["kernel"],
        in_channels=options["in_channels"],
        out_channels=options["out_channels"],
        length=step.result.shape[-2],
        reach=options["dilation"] * (options["kernel"] - 1) + 1,
        stride=1 if transposed else options["stride"],
        activation=context.values[step.inputs[0]].dtype,
        weight=context.values[step.inputs[1]].dtype,
        result=step.result.dtype,
        bias=len(step.inputs) > 2,
        sums_in_l1=compute.packer_l1_acc and compute.fp32_accumulation,
    )
    return convolution_shards(convolution, context.card, options.get("in0_block_w"))


def _slices(step: CardStep, context: Context) -> str:
    slices = _shards(step, context).slices
    if slices is None:
        return "None"
    if slices == 1:
        return "ttnn.Conv2dL1FullSliceConfig"
    return context.named(
        f"SLICES_{slices}",
        f"ttnn.Conv2dSliceConfig(slice_type=ttnn.Conv2dDRAMSliceWidth, num_slices={slices})",
    )
