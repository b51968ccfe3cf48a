"""Products: linear layers, products of two activations, convolutions, fused attention."""

import math
from typing import Any

from backends.tenstorrent.emission.code import Call, Context, called, dtype_of, memory_of
from backends.tenstorrent.geometry import Blocks, Product, batched_blocks, convolution_shards, linear_blocks, tiles
from backends.tenstorrent.program import DTYPES, CardStep, Compute


def linear(step: CardStep, context: Context) -> Call:
    """`ttnn.linear` of rows that share the weight."""
    x, weight, *bias = (context.values[name] for name in step.inputs)
    transposed = bool(step.options.get("transpose_b"))
    k, n = weight.shape[-2:] if not transposed else weight.shape[:-3:-1]
    compute = _computed(step)
    product = Product(
        m=x.shape[-2],
        k=k,
        n=n,
        batch=math.prod(x.shape[:-2]),
        left=x.dtype,
        right=weight.dtype,
        result=step.result.dtype,
        bias=bool(bias),
        fp32_accumulation=compute.fp32_accumulation,
        packer_l1_acc=compute.packer_l1_acc,
        full_sync=compute.full_sync,
    )
    blocks = linear_blocks(product, context.card, step.options.get("in0_block_w"))
    arguments = [context.read(name) for name in step.inputs[:2]]
    arguments.append(f"bias={context.read(step.inputs[2]) if bias else None}")
    return Call("ttnn.linear", (*arguments, *_product_arguments(step, context, compute, product, blocks, transposed)))


def matmul(step: CardStep, context: Context) -> Call:
    """`ttnn.matmul` of two activations, one product for each of the leading axes."""
    a, b = (context.values[name] for name in step.inputs)
    compute = _computed(step)
    product = Product(
        m=a.shape[-2],
        k=a.shape[-1],
        n=b.shape[-1],
        batch=math.prod(a.shape[:-2]),
        left=a.dtype,
        right=b.dtype,
        result=step.result.dtype,
        fp32_accumulation=compute.fp32_accumulation,
        packer_l1_acc=compute.packer_l1_acc,
        full_sync=compute.full_sync,
    )
    shared = math.prod(b.shape[:-2]) == 1
    place = linear_blocks if shared else batched_blocks
    blocks = place(product, context.card, step.options.get("in0_block_w"))
    arguments = tuple(context.read(name) for name in step.inputs)
    return Call("ttnn.matmul", (*arguments, *_product_arguments(step, context, compute, product, blocks, False)))


def _computed(step: CardStep) -> Compute:
    if step.compute is None:
        raise ValueError(f"{step.op} {step.result.name} has no compute; every product needs one")
    return step.compute


def _product_arguments(
    step: CardStep, context: Context, compute: Compute, product: Product, blocks: Blocks, transposed: bool
) -> tuple[str, ...]:
    shape = "X".join(str(extent) for extent in (product.m, product.k, product.n))
    stem = f"BLOCKS_{product.batch}X{shape}" if product.batch > 1 else f"BLOCKS_{shape}"
    return (
        "transpose_a=False",
        f"transpose_b={transposed}",
        f"dtype={dtype_of(step.result)}",
        f"memory_config={memory_of(step.result)}",
        f"program_config={context.named(stem, program_config(blocks))}",
        "activation=None",
        f"compute_kernel_config={context.compute(compute)}",
    )


def program_config(blocks: Blocks) -> str:
    """Text of a program config, with all that it takes on a whole grid."""
    columns, rows = blocks.grid
    arguments = [
        f"compute_with_storage_grid_size=({columns}, {rows})",
        f"in0_block_w={blocks.in0_block_w}",
        f"out_subblock_h={blocks.out_subblock_h}",
        f"out_subblock_w={blocks.out_subblock_w}",
    ]
    per_core = [f"per_core_M={blocks.per_core_m}", f"per_core_N={blocks.per_core_n}"]
    if blocks.kind == "batched":
        return called("ttnn.MatmulMultiCoreReuseProgramConfig", [*arguments, *per_core])
    arguments += [f"out_block_h={blocks.out_block_h}", f"out_block_w={blocks.out_block_w}", *per_core]
    arguments += ["fuse_batch=True", "fused_activation=None"]
    if blocks.kind == "grid":
        return called("ttnn.MatmulMultiCoreReuseMultiCastProgramConfig", [*arguments, "transpose_mcast=False"])
    arguments += [f"mcast_in0={blocks.kind == 'columns'}", "gather_in0=False"]
    return called("ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig", arguments)


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
            "slice_config=None",
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
            "dram_slice_config=None",
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
        f"compute_config={context.compute(_computed(step))}",
        f"memory_config={memory_of(step.result)}",
    )


def _prepared(step: CardStep, context: Context) -> str:
    weight, *bias = (context.read(name) for name in step.inputs[1:])
    return f"{step.result.name}, ({weight}, {bias[0] if bias else '_'})"


def _conv_config(step: CardStep, context: Context) -> str:
    options = step.options
    weights = context.values[step.inputs[1]].dtype
    shards = convolution_shards(
        options["kernel"], options["in_channels"], step.result.shape[-2], context.card, options.get("in0_block_w")
    )
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
        "act_block_h_override": 0,
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


def attention(step: CardStep, context: Context) -> Call:
    """`ttnn.transformer.scaled_dot_product_attention` in chunks of one tile of queries, all keys that fit."""
    q, k, v = (context.read(name) for name in step.inputs)
    columns, rows = context.card.grid
    length = context.values[step.inputs[1]].shape[-2]
    chunk = 32 * math.gcd(tiles(length), 8)
    config = called(
        "ttnn.SDPAProgramConfig",
        (
            f"compute_with_storage_grid_size=({columns}, {rows})",
            "q_chunk_size=32",
            f"k_chunk_size={chunk}",
            "exp_approx_mode=False",
        ),
    )
    return Call(
        "ttnn.transformer.scaled_dot_product_attention",
        (
            q,
            k,
            v,
            "attn_mask=None",
            f"is_causal={bool(step.options.get('causal', False))}",
            f"scale={step.options.get('scale')}",
            f"memory_config={memory_of(step.result)}",
            f"program_config={context.named(f'ATTENTION_{length}', config)}",
            f"compute_kernel_config={context.compute(_computed(step))}",
        ),
    )
