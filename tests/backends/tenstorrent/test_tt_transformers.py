"""A decoder's policy as tt_transformers' JSON: every group said, read back as it was, and all that it cannot say."""

import json
from dataclasses import replace

import pytest

from backends.tenstorrent.tt_transformers import (
    PrecisionCfgError,
    has_decoder,
    precision_cfg,
    read_precision_cfg,
    remarks,
)
from backends.tenstorrent.tt_transformers_settings import DTYPES, FIDELITIES
from precision.policy import Policy, Scheme
from voice.decoder import DecoderVoice
from voice.sites import discover

BF16 = Scheme("bf16", "bf16", "bf16", fidelity="hifi4")
HIFI2 = Scheme("bfp8_hifi2", "bfp8_b", "bf16", fidelity="hifi2")
SHORT = Scheme("bfp8_hifi2_short", "bfp8_b", "bf16", "bf16", "hifi2", packer_l1_acc=True)
RELOADED = replace(SHORT, name="reloaded", packer_l1_acc=False)
LOFI = Scheme("bfp4_lofi", "bfp4_b", "bf16", "bf16", "lofi", levers=("error_feedback",))
CACHED = Scheme("cached", "bfp8_b", "bfp8_b", fidelity="hifi4")
OURS = {
    "attention.query": BF16, "attention.key": BF16, "attention.value": BF16, "attention#qk": CACHED,
    "attention#pv": CACHED, "attention.out": HIFI2, "feed_forward.gate": LOFI, "feed_forward.up": LOFI,
    "feed_forward.down": SHORT,
}  # fmt: skip
HUGGING_FACE = dict(
    zip(
        OURS,
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn#qk", "self_attn#pv", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        strict=True,
    )
)  # fmt: skip


def policy_of(*layers: dict[str, Scheme], prefix: str = "layers") -> Policy:
    """Layers, and sites that belong to none."""
    sites = {f"{prefix}.{index}.{site}": scheme for index, layer in enumerate(layers) for site, scheme in layer.items()}
    return Policy.of({**sites, "text_head": BF16, "codec.stages.0.up": BF16, "codec.stages.0.units.0.point": BF16})


def conflicts(*layers: dict[str, Scheme], prefix: str = "layers") -> tuple[str, ...]:
    with pytest.raises(PrecisionCfgError) as error:
        precision_cfg(policy_of(*layers, prefix=prefix))
    assert all(conflict in str(error.value) for conflict in error.value.conflicts)
    return error.value.conflicts


def test_every_group_of_every_layer_is_said():
    cfg = precision_cfg(policy_of(OURS, dict.fromkeys(OURS, RELOADED)))
    assert cfg == {
        "decoders": {
            "0": {
                "precision_cfg": {
                    "FF1_FF3": "BFP4",
                    "FF2": "BFP8",
                    "WQKV": "BF16",
                    "WO": "BFP8",
                    "KV_CACHE": "BFP8",
                    "ACTIVATION": "BF16",
                },
                "fidelity_cfg": {
                    "LI_FF1_FF3": "LOFI",
                    "LI_FF2": "HIFI2_FP16",
                    "LI_QKV_DECODE": "HIFI4",
                    "LI_QKV_PREFILL": "HIFI4",
                    "LI_O_DECODE": "HIFI2",
                    "LI_O_PREFILL": "HIFI2",
                    "SDPA_DECODE": "HIFI4",
                    "SDPA_PREFILL": "HIFI4",
                },
            },
            "1": {
                "precision_cfg": {
                    "FF1_FF3": "BFP8",
                    "FF2": "BFP8",
                    "WQKV": "BFP8",
                    "WO": "BFP8",
                    "KV_CACHE": "BF16",
                    "ACTIVATION": "BF16",
                },
                "fidelity_cfg": dict.fromkeys(cfg["decoders"]["0"]["fidelity_cfg"], "HIFI2_NA"),
            },
        }
    }


@pytest.mark.parametrize("scheme", [BF16, HIFI2, SHORT, RELOADED, LOFI, CACHED], ids=lambda scheme: scheme.name)
def test_what_is_read_back_is_what_the_policy_says(scheme):
    policy = policy_of(*[dict.fromkeys(OURS, scheme)] * 3)
    found = read_precision_cfg(json.loads(json.dumps(precision_cfg(policy))))
    assert list(found) == [0, 1, 2]
    for layer in found.values():
        for group, fmt in layer.tensors.items():
            assert fmt == (scheme.activation if group in ("KV_CACHE", "ACTIVATION") else scheme.weight)
        assert len(layer.tensors) == 6
        assert len(layer.operations) == 8
        for compute in layer.operations.values():
            assert (compute.fidelity, compute.fp32_accumulation) == (scheme.fidelity, scheme.accumulate == "fp32")
            if scheme.accumulate == "bf16" and scheme.fidelity == "hifi2":
                assert compute.packer_l1_acc == scheme.packer_l1_acc


def test_sites_are_known_by_the_names_of_others():
    ours = precision_cfg(policy_of(OURS, OURS))
    theirs = {HUGGING_FACE[site]: scheme for site, scheme in OURS.items()}
    assert precision_cfg(policy_of(theirs, theirs, prefix="model.layers")) == ours
    written_out = {site.replace("#qk", "#matmul0").replace("#pv", "#matmul1"): s for site, s in theirs.items()}
    assert precision_cfg(policy_of(written_out, written_out, prefix="model.layers")) == ours
    fused = {
        "self_attn.qkv_proj": BF16, "self_attn#qk": CACHED, "self_attn#pv": CACHED, "self_attn.o_proj": HIFI2,
        "mlp.gate_up_proj": LOFI, "mlp.down_proj": SHORT,
    }  # fmt: skip
    assert precision_cfg(policy_of(fused, fused, prefix="model.layers")) == ours


def test_the_small_decoder_has_all_that_is_asked_for():
    voice = DecoderVoice.seeded()
    (clip,) = voice.clips(1)
    sites = discover(voice.module, lambda: voice.render(clip), clip.seconds).sites
    policy = Policy.uniform([site.name for site in sites], SHORT)
    assert has_decoder(policy)
    assert len(precision_cfg(policy)["decoders"]) == voice.module.config.layers
    assert any(line.startswith("23 sites have no group") for line in remarks(policy))


def test_all_that_cannot_be_said_is_named_at_once():
    lofi = replace(LOFI, name="lofi_fp32", accumulate="fp32")
    tf32 = replace(BF16, name="fp32", weight="fp32", activation="fp32", bias_apart=True)
    wrong = {
        **OURS,
        "attention.key": HIFI2,
        "attention#pv": BF16,
        "attention.out": replace(HIFI2, name="hifi3", fidelity="hifi3"),
        "feed_forward.gate": lofi,
        "feed_forward.up": lofi,
        "feed_forward.down": tf32,
    }
    found = conflicts(OURS, wrong, wrong)
    for said in (
        "WQKV: has one setting and its sites differ (query bf16, key bfp8_b, value bf16)",
        "KV_CACHE: has one setting and its sites differ (attention#qk bfp8_b, attention#pv bf16)",
        "LI_QKV_DECODE: has one setting and its sites differ (query HIFI4, key HIFI2, value HIFI4)",
        "FF2: no setting is fp32; allow its sites bfp4_b, bfp8_b, bf16",
        "ACTIVATION: has one setting and its sites differ",
        "scheme lofi_fp32: no setting is lofi with sums in fp32; allow one of lofi bf16, hifi2 fp32, hifi2 bf16, hifi4",
        "scheme hifi3: no setting is hifi3 with sums in fp32",
        "scheme fp32: bias_apart has no setting",
    ):
        (line,) = [conflict for conflict in found if said in conflict]
        assert line.startswith("layer 1, 2: "), "a conflict that layers share is told once"
    assert not any(line.startswith("layer 0") for line in found)


@pytest.mark.parametrize(
    ("site", "change", "said"),
    [
        ("attention.out", {"in0_block_w": 2}, "scheme bfp8_hifi2: in0_block_w has no setting"),
        ("attention.out", {"levers": ("col_tilize",)}, "drop the lever col_tilize"),
        ("feed_forward.down", {"levers": ("bias_correction",)}, "only q, k and v may have a bias"),
        ("attention#qk", {"activation": "fp32"}, "KV_CACHE: has one setting"),
    ],
)
def test_a_scheme_that_no_setting_says_is_refused(site, change, said):
    layer = {**OURS, site: replace(HIFI2, **change)}
    assert any(said in conflict for conflict in conflicts(layer))


def test_bias_correction_of_q_k_and_v_goes_with_the_weights():
    corrected = replace(BF16, levers=("bias_correction",))
    policy = policy_of({**OURS, **{f"attention.{part}": corrected for part in ("query", "key", "value")}})
    assert precision_cfg(policy) == precision_cfg(policy_of(OURS))
    assert any("the weights of 5 sites were changed" in line for line in remarks(policy))


def test_queries_follow_the_activations():
    small = {site: replace(scheme, activation="bfp8_b") for site, scheme in OURS.items()}
    assert precision_cfg(policy_of(small))["decoders"]["0"]["precision_cfg"]["ACTIVATION"] == "BFP8"
    (said,) = conflicts({**small, "attention#qk": BF16, "attention#pv": BF16})
    assert "queries are stored as ACTIVATION, BFP8" in said
    assert any(line.startswith("queries are stored as ACTIVATION says") for line in remarks(policy_of(OURS)))


def test_models_of_another_kind_are_refused():
    assert not has_decoder(Policy.of({"vocoder.pre": BF16, "encoder.0.attention.query": BF16, "text_head": BF16}))
    with pytest.raises(PrecisionCfgError, match="no decoder layers"):
        precision_cfg(Policy.of({"vocoder.pre": BF16}))
    ungated = {site: scheme for site, scheme in OURS.items() if site != "feed_forward.gate"}
    assert any("no site is gate" in conflict for conflict in conflicts(OURS, ungated))
    odd = {**OURS, "attention.sink": BF16}
    assert any("sink: no part" in conflict for conflict in conflicts(odd))
    both = Policy.of({**dict(policy_of(OURS)), **dict(policy_of(OURS, prefix="other.layers"))})
    with pytest.raises(PrecisionCfgError, match=r"2 stacks of layers, layers, other\.layers"):
        precision_cfg(both)
    later = Policy.of({site.replace("layers.0", "layers.3"): scheme for site, scheme in policy_of(OURS).items()})
    with pytest.raises(PrecisionCfgError, match="layers are numbered 3; must be 0 to 0"):
        precision_cfg(later)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "decoders: missing or empty"),
        ({"decoders": {"first": {}}}, "decoders.first: must be the number of a layer"),
        ({"decoders": {"0": {"precision_cfg": {"FF1_FF3": "BFP2"}}}}, "decoders.0.precision_cfg.FF1_FF3: BFP2; must"),
        ({"decoders": {"0": {"fidelity_cfg": {"LI_FF9": "LOFI"}}}}, "decoders.0.fidelity_cfg.LI_FF9: LOFI; must"),
    ],
)
def test_what_tt_transformers_would_not_read_is_not_read(data, said):
    with pytest.raises(PrecisionCfgError, match=said):
        read_precision_cfg(data)


def test_what_a_file_leaves_out_is_left_out():
    # The form of the files that tt-metal brings: some groups of some layers.
    text = '{"decoders": {"36": {"precision_cfg": {"FF1_FF3": "BFP8"}, "fidelity_cfg": {"LI_FF1_FF3": "HIFI2_FP16"}}}}'
    (index, layer), *others = read_precision_cfg(json.loads(text)).items()
    assert (index, dict(layer.tensors), others) == (36, {"FF1_FF3": "bfp8_b"}, [])
    assert layer.operations["LI_FF1_FF3"] == FIDELITIES["HIFI2_FP16"]
    assert set(DTYPES.values()) == {"bfp4_b", "bfp8_b", "bf16"}
