"""Products: linear layers, products of two activations, fused attention."""

import math

from backends.tenstorrent.emission.code import Call, Context, called, dtype_of, memory_of
from backends.tenstorrent.geometry import Blocks, Product, batched_blocks, linear_blocks, tiles
from backends.tenstorrent.program import CardStep, Compute


def linear(step: CardStep, context: Context) -> Call:
    """`ttnn.linear` of rows that share the weight."""
    x, weight, *bias = (context.values[name] for name in step.inputs)
    transposed = bool(step.options.get("transpose_b"))
    k, n = weight.shape[-2:] if not transposed else weight.shape[:-3:-1]
    compute = computed(step)
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
    compute = computed(step)
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


def computed(step: CardStep) -> Compute:
    """How a step computes; ValueError where nothing says so."""
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
    arguments += [f"fuse_batch={blocks.fuse_batch}", "fused_activation=None"]
    if blocks.kind == "grid":
        return called("ttnn.MatmulMultiCoreReuseMultiCastProgramConfig", [*arguments, "transpose_mcast=False"])
    arguments += [f"mcast_in0={blocks.kind == 'columns'}", "gather_in0=False"]
    return called("ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig", arguments)


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
            f"compute_kernel_config={context.compute(computed(step))}",
        ),
    )
