"""Products whose blocks of K fill the L1 of a core: one takes what convolutions need, one takes more than there is."""

import runtime
import ttnn

LOFI = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.LoFi, math_approx_mode=False, fp32_dest_acc_en=True, packer_l1_acc=False
)


def load(device, folder):
    return {}


def product(device, inputs, name):
    a = runtime.upload(inputs[name], ttnn.bfloat16, ttnn.TILE_LAYOUT, device)
    return a, runtime.upload(inputs[name].swapaxes(2, 3), ttnn.bfloat16, ttnn.TILE_LAYOUT, device)


def blocks(tensor):
    return ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=(8, 8),
        in0_block_w=tensor.shape[-1] // 32,
        out_subblock_h=1,
        out_subblock_w=1,
        per_core_M=2,
        per_core_N=1,
        fuse_batch=True,
        mcast_in0=True,
    )


def forward(device, weights, inputs, state):
    a, b = product(device, inputs, "tight")
    tight = ttnn.matmul(a, b, dtype=ttnn.bfloat16, program_config=blocks(a), compute_kernel_config=LOFI)
    a, b = product(device, inputs, "over")
    over = ttnn.matmul(a, b, dtype=ttnn.bfloat16, program_config=blocks(a), compute_kernel_config=LOFI)
    return {"tight": runtime.download(tight), "over": runtime.download(over)}
