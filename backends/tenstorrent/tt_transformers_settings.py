"""Settings of tt_transformers by our words: formats, kernel configs, and which sites its groups hold.

Source: tt-metal, models/tt_transformers/tt/model_config.py as of commit 0039cbf: the enums TensorGroup,
PrecisionSetting, OpGroup and MathFidelitySetting, and the kernel configs in ModelArgs.
"""

import re
from collections.abc import Iterator, Mapping

from backends.tenstorrent.program import Compute
from precision.policy import Scheme

DTYPES: Mapping[str, str] = {"BFP4": "bfp4_b", "BFP8": "bfp8_b", "BF16": "bf16"}
"""Our formats by its PrecisionSetting."""
FIDELITIES: Mapping[str, Compute] = {
    "LOFI": Compute("lofi", fp32_accumulation=False, packer_l1_acc=True),
    "HIFI2": Compute("hifi2", fp32_accumulation=True, packer_l1_acc=True, approximate=True),
    "HIFI2_FP16": Compute("hifi2", fp32_accumulation=False, packer_l1_acc=True),
    "HIFI2_NA": Compute("hifi2", fp32_accumulation=False, packer_l1_acc=False),
    "HIFI4": Compute("hifi4", fp32_accumulation=True, packer_l1_acc=True),
    "HIFI4_FP32": Compute("hifi4", fp32_accumulation=True, packer_l1_acc=True, approximate=True),
}
"""Kernel configs by its MathFidelitySetting. Its FP16 is a 16-bit accumulator, bf16 for these types. HIFI4_FP32 leaves
`math_approx_mode` to ttnn, whose default is true, and is HIFI4 otherwise. Approximate are functions fused behind a
product, never the product."""

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("query", "q_proj", "wq"), "query"),
    **dict.fromkeys(("key", "k_proj", "wk"), "key"),
    **dict.fromkeys(("value", "v_proj", "wv"), "value"),
    **dict.fromkeys(("qkv", "qkv_proj", "wqkv"), "qkv"),
    **dict.fromkeys(("out", "o_proj", "wo"), "out"),
    **dict.fromkeys(("gate", "gate_proj", "w1"), "gate"),
    **dict.fromkeys(("up", "up_proj", "w3"), "up"),
    **dict.fromkeys(("gate_up", "gate_up_proj"), "gate_up"),
    **dict.fromkeys(("down", "down_proj", "w2"), "down"),
    **dict.fromkeys(("qk", "matmul0"), "qk"),
    **dict.fromkeys(("pv", "matmul1"), "pv"),
}
"""What a site does, by the last part of its name: ours, Hugging Face's, Meta's; attention fused or written out."""
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "FF1_FF3": ("gate", "up", "gate_up"),
    "FF2": ("down",),
    "WQKV": ("query", "key", "value", "qkv"),
    "WO": ("out",),
}
"""Roles by the TensorGroup of their weights."""
FUSED: Mapping[str, tuple[str, ...]] = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}
"""What one matrix holds."""
PARTS = frozenset(("query", "key", "value", "qk", "pv", "out", "gate", "up", "down"))
"""What every decoder layer of tt_transformers has."""
PRODUCTS = ("qk", "pv")
"""Their operands are the KV_CACHE."""
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "LI_FF1_FF3": WEIGHTS["FF1_FF3"],
    "LI_FF2": WEIGHTS["FF2"],
    "LI_QKV_DECODE": WEIGHTS["WQKV"],
    "LI_QKV_PREFILL": WEIGHTS["WQKV"],
    "LI_O_DECODE": WEIGHTS["WO"],
    "LI_O_PREFILL": WEIGHTS["WO"],
    "SDPA_DECODE": PRODUCTS,
    "SDPA_PREFILL": PRODUCTS,
}
"""Roles by OpGroup: one scheme serves decoding and prefill."""

NAME = re.compile(r"(?:(?P<stack>.*)\.)?(?P<layer>\d+)\.(?:attention|attn|self_attn|feed_forward|mlp)[.#](?P<last>\w+)")


def fidelity_setting(scheme: Scheme) -> str | None:
    """The setting of a scheme; where it does not matter how the packer adds up, the first that there is."""
    wanted = (scheme.fidelity, scheme.accumulate == "fp32")
    fitting = [name for name, c in FIDELITIES.items() if (c.fidelity, c.fp32_accumulation) == wanted]
    exact = [name for name in fitting if FIDELITIES[name].packer_l1_acc == scheme.packer_l1_acc]
    return next(iter([*exact, *fitting]), None)


def unsaid(scheme: Scheme, role: str) -> Iterator[str]:
    """What a scheme asks for that has no setting."""
    if fidelity_setting(scheme) is None:
        having = dict.fromkeys(f"{c.fidelity} {'fp32' if c.fp32_accumulation else 'bf16'}" for c in FIDELITIES.values())
        yield (
            f"scheme {scheme.name}: no setting is {scheme.fidelity} with sums in {scheme.accumulate}; allow one of"
            f" {', '.join(having)}"
        )
    if scheme.bias_apart:
        yield f"scheme {scheme.name}: bias_apart has no setting, biases are fused; allow a scheme without"
    if scheme.in0_block_w is not None:
        yield f"scheme {scheme.name}: in0_block_w has no setting; leave it out, blocks are tt_transformers' own"
    if role not in PRODUCTS and "col_tilize" in scheme.levers:
        yield f"scheme {scheme.name}: blocks of exponents lie along rows there; drop the lever col_tilize"
    if role not in (*PRODUCTS, *WEIGHTS["WQKV"]) and "bias_correction" in scheme.levers:
        yield f"scheme {scheme.name}: only q, k and v may have a bias there; drop the lever bias_correction elsewhere"
