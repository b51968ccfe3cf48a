"""A model by hand, as an emission writes them: one operation of each kind, and one that ttnn refuses."""

from pathlib import Path

import numpy as np
import runtime
import ttnn

DRAM = ttnn.DRAM_MEMORY_CONFIG
LOFI = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.LoFi,
    math_approx_mode=False,
    fp32_dest_acc_en=True,
    packer_l1_acc=False,
    dst_full_sync_en=False,
)
HIFI2 = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.HiFi2,
    math_approx_mode=True,
    fp32_dest_acc_en=False,
    packer_l1_acc=True,
    dst_full_sync_en=False,
)
CONV = ttnn.Conv2dConfig(
    weights_dtype=ttnn.bfloat8_b, shard_layout=ttnn.TensorMemoryLayout.HEIGHT_SHARDED, deallocate_activation=False
)
WHOLE_K = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
    compute_with_storage_grid_size=(8, 8),
    in0_block_w=2,
    out_subblock_h=1,
    out_subblock_w=1,
    out_block_h=2,
    out_block_w=1,
    per_core_M=2,
    per_core_N=1,
    fuse_batch=True,
    fused_activation=None,
    mcast_in0=True,
)
PIECES_OF_K = ttnn.MatmulMultiCoreReuseProgramConfig(
    compute_with_storage_grid_size=(8, 8), in0_block_w=1, out_subblock_h=1, out_subblock_w=1, per_core_M=2, per_core_N=2
)
ON_CARD = ("proj_weight",)
ON_HOST = ("conv_weight", "conv_bias", "up_weight")


def load(device, folder):
    weights = {}
    for name in (*ON_CARD, *ON_HOST):
        tensor = ttnn.load_tensor(str(Path(folder) / "weights" / f"{name}.tensorbin"))
        weights[name] = ttnn.to_device(tensor, device, memory_config=DRAM) if name in ON_CARD else tensor
    return weights


def forward(device, weights, inputs, state):
    import host

    x = runtime.upload(np.asarray(inputs["x"]).reshape(1, 1, 64, 64), ttnn.bfloat16, ttnn.TILE_LAYOUT, device)
    normed = ttnn.layer_norm(x, epsilon=1e-5, memory_config=DRAM, compute_kernel_config=LOFI)
    blocks = ttnn.typecast(normed, ttnn.bfloat8_b, memory_config=DRAM)
    y = ttnn.linear(
        blocks,
        weights["proj_weight"],
        dtype=ttnn.bfloat16,
        memory_config=DRAM,
        program_config=WHOLE_K,
        compute_kernel_config=LOFI,
    )
    ttnn.deallocate(blocks)
    shares = ttnn.softmax(y, dim=-1, memory_config=DRAM, compute_kernel_config=LOFI)
    turned = ttnn.permute(y, (0, 1, 3, 2), memory_config=DRAM)
    mixed = ttnn.matmul(
        shares,
        turned,
        dtype=ttnn.bfloat16,
        memory_config=DRAM,
        program_config=PIECES_OF_K,
        compute_kernel_config=HIFI2,
    )
    wrong = ttnn.linear(y, weights["proj_weight"], dtype=ttnn.bfloat16, compute_kernel_config=LOFI)
    ttnn.deallocate(wrong)
    narrow, (weights["conv_weight"], weights["conv_bias"]) = ttnn.conv1d(
        input_tensor=mixed,
        weight_tensor=weights["conv_weight"],
        bias_tensor=weights["conv_bias"],
        device=device,
        in_channels=64,
        out_channels=32,
        batch_size=1,
        input_length=64,
        kernel_size=7,
        stride=1,
        padding=(3, 3),
        dilation=1,
        groups=1,
        dtype=ttnn.bfloat16,
        conv_config=CONV,
        compute_config=LOFI,
        memory_config=DRAM,
        return_weights_and_bias=True,
    )
    longer, (weights["up_weight"], _) = ttnn.conv_transpose2d(
        input_tensor=narrow,
        weight_tensor=weights["up_weight"],
        bias_tensor=None,
        device=device,
        in_channels=32,
        out_channels=32,
        batch_size=1,
        input_height=1,
        input_width=64,
        kernel_size=(1, 4),
        stride=(1, 2),
        padding=(0, 0, 1, 1),
        output_padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        dtype=ttnn.bfloat16,
        conv_config=CONV,
        compute_config=LOFI,
        memory_config=DRAM,
        return_weights_and_bias=True,
    )
    channels = runtime.download(longer).reshape(128, 32)
    (waveform,) = host.host_0(channels)
    ttnn.copy(normed, state["kept"])
    return {"waveform": waveform}
