"""What an engine made of each site, read from accounts written here in the form of TensorRT's.

The form is that of listings which people published: TensorRT 10's `Format/Datatype` and layers of convolutions
(NVIDIA/TensorRT issues 3737 and 4020), Myelin's `gemm`, `fusion` and `kgen` with tactics and metadata (issue 4397),
TensorRT 11's `Datatype` (its migration guide). No account here came from a card.
"""

import copy
import json

import pytest

from backends.hopper.exported import inspected
from backends.hopper.exported.departures import SCALAR_ONLY, mismatches, report
from backends.hopper.realized import (
    UninspectableError,
    realized_mismatches,
    realized_report,
    realized_schemes,
)
from tests.backends.hopper.three_sites import POLICY, three_sites

FP8_GEMM = "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize128x128x128_cgasize1x2x1_stage4"
BF16_GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x128x64_stage5"
FP16_GEMM = "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_by_fusion_tactic"


def tensor(name, kind, *dimensions):
    """As TensorRT 10 writes one."""
    return {"Name": name, "Location": "Device", "Dimensions": list(dimensions), "Format/Datatype": kind}


def layer(name, kind, nodes, inputs=(), tactic="", **more):
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": list(inputs),
        "Outputs": [],
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": metadata,
        **more,
    }


def roles(site, *names):
    return [f"site/{site}/{name}" for name in names]


def good():
    """Each site as the policy has it: a convolution of TensorRT's own, a gemm and a fusion of Myelin's."""
    conv = layer(
        "site/pre/dequantize_weight + site/pre/compute",
        "CaskConvolution",
        roles("pre", "dequantize_input", "dequantize_weight", "compute"),
        [tensor("site/pre/quantize_input", "Channel major FP8 format where channel % 16 == 0", 1, 32, 24)],
        "sm90_xmma_fprop_implicit_gemm_e4m3e4m3_e4m3f32_f32_nhwckrsc_nhwc_tilesize128x128x64",
        ParameterType="Convolution",
        Weights={"Type": "FP8", "Count": 6144},
        Bias={"Type": "Float", "Count": 64},
    )
    quantize = layer("__myl_DivClip_myl0_0", "kgen", roles("pre", "quantize_input"), [tensor("x", "Float", 1, 32, 24)])
    mid = layer(
        "site/mid/compute_myl0_2",
        "gemm",
        roles("mid", "dequantize_input", "dequantize_weight", "compute"),
        [tensor("__mye12_q", "FP8", 1, 24, 64), tensor("__mye116_dconst", "FP8", 64, 48)],
        FP8_GEMM,
    )
    head = layer(
        "__myl_Fc_myl0_3",
        "fusion",
        roles("head", "compute", "bias", "cast_back"),
        [tensor("__myln_k_arg__bb1_2", "BFloat16", 1, 24, 48), tensor("__mye117_dconst", "BFloat16", 48, 16)],
        BF16_GEMM,
    )
    return {"Layers": [quantize, conv, mid, head]}


def found(info, *calls):
    return inspected.found(info, calls or ("pre", "mid", "head"))


def sites(**changed):
    held = {
        "pre": {"activation": "fp8_e4m3", "weight": "fp8_e4m3", "op": "Conv", "weight_scale": "channel"},
        "mid": {"activation": "fp8_e4m3", "weight": "fp8_e4m3", "op": "MatMul", "weight_scale": "channel"},
        "head": {"activation": "bf16", "weight": "bf16", "op": "MatMul", "weight_scale": "channel"},
    }
    return {site: {**wanted, **changed.get(site, {})} for site, wanted in held.items()}


def version_11(info):
    """The same account as TensorRT 11 writes it: `Format/Datatype` in two."""
    changed = copy.deepcopy(info)
    for held in changed["Layers"]:
        for one in held["Inputs"]:
            one["Datatype"], one["Format"] = one.pop("Format/Datatype"), "N/A due to dynamic shapes"
    return changed


@pytest.mark.parametrize("account", [good(), version_11(good())], ids=["TensorRT 10", "TensorRT 11"])
def test_an_engine_that_keeps_to_the_policy_is_the_policy(account):
    lowered = three_sites()
    assert realized_schemes(account, lowered) == dict(POLICY)
    assert list(realized_schemes(account, lowered)) == ["pre", "mid", "head"]
    assert realized_mismatches(account, lowered) == ()
    assert realized_report(account, lowered).splitlines()[-1] == "all of 3 sites got what the policy says"


def test_a_product_that_ran_in_fp16_is_told_with_its_layer_its_tactic_and_why():
    account = good()
    account["Layers"][2] = layer(
        "__myl_Fc_myl0_2", "gemm", roles("mid", "compute"), [tensor("a", "Half", 1, 24, 64)], FP16_GEMM
    )
    dequantize = roles("mid", "dequantize_input", "dequantize_weight")
    account["Layers"].append(layer("__myl_CastMul_myl0_9", "kgen", dequantize, [tensor("q", "FP8", 1, 24, 64)]))
    lowered = three_sites()
    wrong = realized_mismatches(account, lowered)
    assert [(one.site, one.field, one.wanted, one.got) for one in wrong] == [
        ("mid", "activation", "fp8_e4m3", "fp16"),
        ("mid", "weight", "fp8_e4m3", "fp16"),
        ("mid", "sums", "fp32", "fp16"),
    ]
    assert "dequantize_input, dequantize_weight ran apart, in __myl_CastMul_myl0_9" in wrong[0].why
    assert SCALAR_ONLY in wrong[0].why
    assert FP16_GEMM in wrong[0].why
    realized = realized_schemes(account, lowered)
    assert (realized["mid"].activation, realized["mid"].weight) == ("fp16", "fp16")
    assert (realized["pre"], realized["head"]) == (POLICY["pre"], POLICY["head"])
    text = realized_report(account, lowered)
    assert "1 of 3 sites did not get what the policy says:" in text
    assert "mid: activation fp16 in place of fp8_e4m3" in text


def test_a_scale_per_tensor_is_not_blamed_for_being_one_per_channel():
    account = good()
    account["Layers"][2]["TacticName"] = BF16_GEMM
    wrong = mismatches(found(account), sites(mid={"weight_scale": "tensor"}))
    assert [one.field for one in wrong] == ["activation", "weight"]
    assert SCALAR_ONLY not in wrong[0].why


def test_a_convolution_tells_what_its_weights_and_input_are():
    account = good()
    conv = account["Layers"][1]
    conv["TacticName"], conv["Weights"]["Type"] = "", "Half"
    conv["Inputs"][0]["Format/Datatype"] = "Channel major FP16 format where channel % 8 == 0"
    wrong = mismatches(found(account), sites())
    assert [(one.site, one.field, one.got) for one in wrong] == [
        ("pre", "activation", "fp16"),
        ("pre", "weight", "fp16"),
    ]
    assert "FP8 convolutions are built only for some channels" in wrong[0].why


def test_a_site_that_no_layer_names_is_told_and_keeps_its_scheme():
    account = good()
    del account["Layers"][3]
    lowered = three_sites()
    (wrong,) = realized_mismatches(account, lowered)
    assert (wrong.site, wrong.got) == ("head", "nothing")
    assert "site/head/compute" in wrong.why
    assert realized_schemes(account, lowered)["head"] == POLICY["head"]


def test_what_moves_a_sites_numbers_does_not_count_as_what_computes_it():
    account = good()
    account["Layers"].append(
        layer("__myl_MoveConc", "kgen", roles("mid", "compute"), [tensor("a", "Float", 1, 24, 48)])
    )
    account["Layers"].append(
        layer(
            "Reformatting CopyNode for Input Tensor 0 to site/pre/compute", "Reformat", [], [tensor("x", "Half", 4, 4)]
        )
    )
    got = found(account)
    assert [one.name for one in got["mid"].layers] == ["site/mid/compute_myl0_2"]
    assert got["pre"].reformats == 1
    assert mismatches(got, sites()) == ()


def test_a_generated_kernel_alone_is_what_computes_the_site():
    account = {"Layers": [layer("__myl_MulSum_myl0_0", "kgen", roles("mid", "compute"), [tensor("x", "Float", 10, 1)])]}
    assert found(account, "mid")["mid"].read("activation") == "fp32"


def test_sites_that_one_layer_computes_name_each_other():
    nodes = [f"site/{name}/compute" for name in ("q", "k", "v#op0")]
    account = {"Layers": [layer("__myl_Fc_myl0_1", "gemm", nodes, [tensor("x", "FP8", 4, 64)], FP8_GEMM)]}
    got = inspected.found(account, ["q", "k", "v#op0"])
    assert got["k"].fused == ("q", "v#op0")
    assert got["k"].layers == got["q"].layers


def test_of_two_calls_the_one_that_departs_is_told_once():
    first = layer("a", "gemm", roles("mid", "compute"), [tensor("x", "FP8", 4, 64)], FP8_GEMM)
    second = layer("b", "gemm", roles("mid#2", "compute"), [tensor("x", "BFloat16", 4, 64)], BF16_GEMM)
    got = inspected.found({"Layers": [first, second]}, ["mid", "mid#2"])
    only = {"mid": sites()["mid"]}
    wrong = mismatches(got, only)
    assert [(one.site, one.field, one.got) for one in wrong] == [
        ("mid", "activation", "bf16"),
        ("mid", "weight", "bf16"),
    ]
    assert "1 of 1 sites" in report(got, only)


def test_tf32_in_place_of_fp32_is_seen_in_the_kernels_name():
    tactic = "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x16"
    account = {"Layers": [layer("a", "gemm", roles("mid", "compute"), [tensor("x", "Float", 4, 64)], tactic)]}
    wanted = {"mid": {"activation": "fp32", "weight": "fp32", "op": "MatMul", "weight_scale": None}}
    wrong = mismatches(inspected.found(account, ["mid"]), wanted)
    assert [one.got for one in wrong] == ["tf32", "tf32"]
    assert "TF32 was allowed" in wrong[0].why


def test_a_weight_dequantized_at_build_is_told_as_bytes_that_are_not_saved():
    account = {"Layers": [layer("a", "gemm", roles("mid", "compute"), [tensor("x", "Half", 4, 64)], BF16_GEMM)]}
    wanted = {"mid": {"activation": "bf16", "weight": "fp8_e4m3", "op": "MatMul", "weight_scale": "channel"}}
    (wrong,) = mismatches(inspected.found(account, ["mid"]), wanted)
    assert (wrong.field, wrong.got) == ("weight", "bf16")
    assert "no bytes saved" in wrong.why


def test_scales_and_biases_are_not_taken_for_weights():
    inputs = [tensor("x", "FP8", 4, 64), tensor("__mye1_dconst", "Float", 1), tensor("__mye2_dconst", "Float", 1, 48)]
    account = {"Layers": [layer("a", "gemm", roles("mid", "compute"), inputs)]}
    got = found(account, "mid")["mid"]
    assert (got.read("activation"), got.read("weight")) == ("fp8_e4m3", None)
    assert mismatches({"mid": got}, {"mid": sites()["mid"]}) == ()


def test_what_the_parser_adds_to_a_name_and_constants_of_scales_do_not_matter():
    account = good()
    account["Layers"][2]["Metadata"] = "[ONNX Layer: site/mid/compute | outer (function) | more]"
    scale = layer("mid.input_scale", "Constant", roles("mid", "dequantize_input"))
    account["Layers"].append(scale)
    got = found(account)
    assert [one.name for one in got["mid"].layers] == ["site/mid/compute_myl0_2"]
    assert got["mid"].apart == {}


def test_metadata_with_control_characters_and_layers_without_metadata_are_read():
    account = good()
    account["Layers"][2]["Metadata"] = "\x1f".join(f"[ONNX Layer: {node}]" for node in roles("mid", "bias", "compute"))
    account["Layers"][1]["Metadata"] = ""  # as of TensorRT 8: names joined by +
    text = json.dumps(account).replace("\\u001f", "\x1f")  # TensorRT writes the bare character
    assert mismatches(found(json.loads(text, strict=False)), sites()) == ()


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, "no `Layers`"),
        ({"Layers": []}, "no `Layers`"),
        (
            {"Layers": ["site/pre/compute"], "Bindings": []},
            "only names of layers: build with profiling verbosity DETAILED",
        ),
    ],
)
def test_an_account_that_says_too_little_is_refused(info, said):
    with pytest.raises(UninspectableError, match=said):
        realized_schemes(info, three_sites())


def test_names_of_types_are_known_in_every_spelling():
    spelled = {
        "Row major linear FP8 format": "fp8_e4m3",
        "FP8": "fp8_e4m3",
        "E4M3": "fp8_e4m3",
        "Half": "fp16",
        "Row major linear FP16 format": "fp16",
        "Two wide channel vectorized row major BFloat16 format": "bf16",
        "BFloat16": "bf16",
        "Row major linear FP32": "fp32",
        "Float": "fp32",
        "Int64": None,
        "Row major linear BOOL": None,
    }
    for text, fmt in spelled.items():
        account = {"Layers": [layer("a", "gemm", roles("mid", "compute"), [tensor("x", text, 4, 4)])]}
        assert found(account, "mid")["mid"].read("activation") == fmt, text
