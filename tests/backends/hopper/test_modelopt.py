import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from backends.base import BuildError
from backends.hopper import modelopt
from backends.hopper.numerics import HopperArithmetic, activation_scale, quantize_fp8, round_fp8
from calibrate.calibration import Calibration
from precision.policy import Policy, Scheme
from precision.site import Site
from voice.checkpoint import CheckpointError
from voice.hifigan import V2, Generator
from voice.intercept import intercept
from voice.mel import MelConfig
from voice.sites import discover

# modelopt 0.47.0 says at its first use that it will export no Hugging Face model, which is not asked of it.
pytestmark = pytest.mark.filterwarnings("ignore:Cannot find transformers package:UserWarning")

BF16 = Scheme("bf16", "bf16", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
TURNS = (
    FP8,
    replace(FP8, weight_scale="tensor"),
    BF16,
    replace(FP8, activation_scale="dynamic"),
    Scheme("fp32", "fp32", "fp32"),
    Scheme("stored", "fp8_e4m3", "bf16"),
)


def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(replace(V2, channels=16, rates=(4, 4), kernels=(8, 8), mel=MelConfig(16000, 8, 64, 16, 64))).eval()


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sites(mel: torch.Tensor) -> tuple[Site, ...]:
    module = generator()
    return discover(module, lambda: module(mel), 0.012).sites


@pytest.fixture(scope="module")
def policy(sites: tuple[Site, ...]) -> Policy:
    return Policy.of({site.name: TURNS[index % len(TURNS)] for index, site in enumerate(sites)})


def quantized(config: dict, mel: torch.Tensor, module: nn.Module | None = None) -> nn.Module:
    modelopt._tensor_quantizer()  # its first import warns of its own, and is quiet there
    import modelopt.torch.quantization as mtq

    return mtq.quantize(generator() if module is None else module, config, lambda model: model(mel))


@pytest.fixture(scope="module")
def model(policy: Policy, sites: tuple[Site, ...], mel: torch.Tensor) -> nn.Module:
    return quantized(modelopt.quant_cfg(policy, sites), mel)


def test_exactly_the_sites_of_the_policy_are_quantized(
    model: nn.Module, policy: Policy, sites: tuple[Site, ...]
) -> None:
    enabled = {name: quantizer for name, quantizer in modelopt._quantizers(model) if quantizer.is_enabled}
    weights = {site for site, scheme in policy.items() if scheme.weight == "fp8_e4m3"}
    inputs = {site for site, scheme in policy.items() if scheme.activation == "fp8_e4m3"}
    assert set(enabled) == {f"{site}.weight_quantizer" for site in weights} | {f"{s}.input_quantizer" for s in inputs}
    assert {quantizer.num_bits for quantizer in enabled.values()} == {(4, 3)}
    ups = [site for site in sites if site.op == "conv_transpose1d"]
    assert ups
    for site in sites:
        if site.name in weights:
            channel = policy[site.name].weight_scale == "channel"
            assert enabled[f"{site.name}.weight_quantizer"].axis == ((site in ups) if channel else None)
    modelopt.check(model, policy, sites)


def test_a_layer_that_modelopt_passes_over_is_named(
    policy: Policy, sites: tuple[Site, ...], mel: torch.Tensor, model: nn.Module
) -> None:
    class Unknown(nn.Module):
        def __init__(self, layer: nn.Conv1d) -> None:
            super().__init__()
            self.weight, self.bias = layer.weight, layer.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv1d(x, self.weight, self.bias, padding=3)

    module = generator()
    module.conv_pre = Unknown(module.conv_pre)
    partly = quantized(modelopt.quant_cfg(policy, sites), mel, module)
    with pytest.raises(BuildError, match=r"conv_pre\.weight_quantizer: not there, or off\nconv_pre\.input_quantizer"):
        modelopt.check(partly, policy, sites)
    with pytest.raises(BuildError, match=r"conv_pre\.weight_quantizer: on, and the policy has no FP8 there"):
        modelopt.check(model, policy.replace("conv_pre", BF16), sites)
    with pytest.raises(BuildError, match=r"conv_pre\.weight_quantizer: must be .*'axis': None.* is .*'axis': 0"):
        modelopt.check(model, policy.replace("conv_pre", replace(FP8, weight_scale="tensor")), sites)


def test_its_ranges_come_back_as_a_calibration(model: nn.Module, policy: Policy, mel: torch.Tensor, tmp_path) -> None:
    largest: dict[str, float] = {}

    def watch(call):
        largest[call.site] = max(largest.get(call.site, 0.0), float(call.x.abs().amax()))
        return call.compute()

    plain = generator()
    with intercept(plain, watch), torch.no_grad():
        plain(mel)
    static = [
        s for s, scheme in policy.items() if scheme.activation == "fp8_e4m3" and scheme.activation_scale == "static"
    ]
    expected = Calibration.of("amax", {site: {"input": largest[site]} for site in static})
    found = modelopt.calibration_of(model)
    assert dict(found.to_dict()) == {"method": "amax", "ranges": expected.to_dict()["ranges"]}
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert modelopt.calibration_from(tmp_path / "state.pt") == found
    import modelopt.torch.opt as mto

    mto.save(model, tmp_path / "modelopt.pt")
    assert modelopt.calibration_from(tmp_path / "modelopt.pt") == found


def test_the_config_is_loaded_from_its_file_in_two_lines(
    model: nn.Module, policy: Policy, sites: tuple[Site, ...], mel: torch.Tensor, tmp_path
) -> None:
    modelopt.write_quant_cfg(tmp_path / "quant_cfg.json", policy, sites)
    again = quantized(json.loads((tmp_path / "quant_cfg.json").read_text()), mel)
    modelopt.check(again, policy, sites)
    assert torch.equal(again(mel), model(mel))


@pytest.mark.parametrize(("amax", "share"), [(448 / 2**8, 1.0), (1.7, 0.999)])
def test_its_codes_are_ours(amax: float, share: float) -> None:
    values = torch.randn(1 << 16, generator=torch.Generator().manual_seed(2))
    quantizer = modelopt._tensor_quantizer()()
    quantizer.set_from_attribute_config({"num_bits": (4, 3)})
    quantizer.amax = torch.tensor(amax)
    scale = activation_scale("s", "input", FP8, Calibration.of("amax", {"s": {"input": amax}}))
    ours = quantize_fp8(values, scale, "fp8_e4m3").to(torch.float32)
    theirs = round_fp8(quantizer(values) / scale, "fp8_e4m3")  # back on the grid of codes
    equal = ours == theirs
    assert float(equal.double().mean()) >= share
    # What differs lay between two codes to within rounding, and went to the other one.
    middles = (ours + theirs)[~equal] / 2
    assert torch.allclose(middles, (values / scale)[~equal], rtol=1e-6)


def test_a_quantized_layer_computes_what_we_emulate(model: nn.Module, policy: Policy, mel: torch.Tensor) -> None:
    arithmetic, calls = HopperArithmetic(), []
    plain = generator()
    with intercept(plain, lambda call: calls.append(call) or call.compute()), torch.no_grad():
        plain(mel)
    ranges = modelopt.calibration_of(model)
    compared = 0
    for call in calls:
        scheme = policy[call.site]
        if scheme.activation != "fp8_e4m3":
            continue
        ours = arithmetic.compute(call, scheme, arithmetic.prepare(call, scheme), ranges)
        theirs = model.get_submodule(call.site)(call.x).detach()
        # Ours is stored in bf16; and a code that fell to the other side moves a sum a little.
        assert torch.allclose(ours, theirs, rtol=2**-7, atol=2**-7 * float(theirs.abs().amax()))
        compared += 1
    assert compared > 10


def site(name: str, op="linear", shape=(32, 32), groups=1) -> Site:
    return Site(name, op, shape, 32, 32, 1.0, groups)


def test_all_that_cannot_be_said_is_named_at_once() -> None:
    sites = [
        site("ok"),
        site("wide"),
        site("wrong_format"),
        site("attention#qk", "matmul", ()),
        site("projection#in_proj_weight"),
        site("up", "conv_transpose1d", (32, 16, 4), groups=2),
        site("trained"),
        site("block"),
    ]
    policy = Policy.of(
        {
            "ok": FP8,
            "wide": BF16,
            "wrong_format": replace(FP8, activation="fp8_e5m2"),
            "attention#qk": FP8,
            "projection#in_proj_weight": FP8,
            "up": FP8,
            "trained": replace(BF16, adapted="0123"),
            "block": Scheme("b", "bfp8_b", "bf16"),
            "absent": BF16,
        }
    )
    with pytest.raises(BuildError) as caught:
        modelopt.quant_cfg(policy, sites)
    reasons = dict(line.removeprefix("site ").split(": ", 1) for line in str(caught.value).splitlines()[1:])
    assert list(reasons) == [repr(name) for name in policy if name not in ("ok", "wide")]
    for name, said in {
        "wrong_format": "E5M2",
        "attention#qk": "product of two activations",
        "projection#in_proj_weight": "part of one",
        "up": "weight_scale tensor",
        "trained": "weights were trained",
        "block": "bfp8_b",
        "absent": "no such site",
    }.items():
        assert said in reasons[repr(name)]
    per_tensor = Policy.of({"up": replace(FP8, weight_scale="tensor"), "attention#qk": BF16})
    assert len(modelopt.quant_cfg(per_tensor, sites)["quant_cfg"]) == 3


def test_names_are_names_and_no_patterns() -> None:
    config = modelopt.quant_cfg(Policy.of({"blocks[0]": FP8}), [site("blocks[0]")])
    assert config["quant_cfg"][1]["quantizer_name"] == "blocks[[]0].weight_quantizer"


def test_ranges_that_are_no_use_are_refused(tmp_path) -> None:
    state = {
        "a.input_quantizer._amax": torch.tensor([1.0, 2.0]),
        "b.input_quantizer._amax": torch.tensor(torch.inf),
        "c.input_quantizer._amax": torch.tensor(1.0),
        "c.input_quantizer._pre_quant_scale": torch.ones(4),
        "d.input_quantizer._amax": torch.tensor(1.0),
    }
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"(?s)'a': its input has 2 ranges.*'b': its range is inf.*'c': its input was"):
        modelopt.calibration_from(tmp_path / "state.pt")
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="no calibrated input quantizer"):
        modelopt.calibration_from(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        modelopt.calibration_from(tmp_path / "state.pt")


def test_without_modelopt_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization.nn", None)
    with pytest.raises(ImportError, match=r"precision-search\[hopper\]"):
        modelopt.calibration_of(nn.Linear(2, 2))
