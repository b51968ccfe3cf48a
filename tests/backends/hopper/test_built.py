"""Builds: what is refused, what a model is read back as, and what it computes."""

from dataclasses import replace
from functools import cache

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from backends.base import NOTHING_MEASURED, BuildError, Measured
from backends.hopper.backend import HopperBackend
from backends.hopper.built import MODEL, build
from backends.hopper.lower import lowering
from backends.tolerance import snr_db
from calibrate.calibration import Calibration
from precision.policy import Policy
from tests.backends.hopper.three_sites import ThreeSites
from tests.backends.hopper.tiny_exports import BF16, CHANNELS, E5M2, FP8, FP32, POLICY, STORED, Mixed
from tests.conformance.models import emulated, measured
from voice.graph import graph_of
from voice.sites import discover


@pytest.fixture(scope="module", autouse=True)
def _traced_once():
    """A graph goes through torch's ONNX exporter once, whatever the number of policies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "site_model", cache(lowering.site_model))
        yield


@pytest.fixture(scope="module")
def mixed():
    """A graph with a site called twice, products and convolutions; its sites; and a policy of all formats."""
    torch.manual_seed(1)
    model, rows = Mixed(), torch.randn(1, 12, CHANNELS)
    sites = discover(model, lambda: model(rows), 1.0).sites
    return graph_of(model, {"rows": rows}, parts=("sound", "score")), sites, Policy.of(POLICY)


@pytest.fixture(scope="module")
def step():
    """A graph with state, and its sites."""
    model, x, past = ThreeSites(), torch.randn(1, 32, 24), torch.zeros(1, 1, 16)
    return graph_of(model, {"x": x}, {"past": past}, parts=("y",)), discover(model, lambda: model(x, past), 1.0).sites


@pytest.fixture(scope="module")
def built(mixed):
    graph, sites, policy = mixed
    return build(graph, policy, sites, measured(graph), "tensorrt")


def changed(built, change):
    """The build with another model, for `change` was done to it."""
    model = onnx.ModelProto()
    model.CopyFrom(built.model)
    change({node.name: node for node in model.graph.node}, {held.name: held for held in model.graph.initializer})
    return replace(built, lowered=replace(built.lowered, model=model), _session=None)


def departed(built):
    policy = dict(built.lowered.policy.schemes)
    return {site: scheme for site, scheme in built.realized().items() if scheme != policy[site]}


def test_what_is_realized_is_read_from_the_model(built, mixed):
    _, sites, policy = mixed
    assert list(built.realized()) == [site.name for site in sites]
    assert built.realized() == dict(policy.schemes)
    assert {site: len(calls) for site, calls in built.shown().items()} == {
        site: 2 if site == "project" else 1 for site in policy
    }
    # Of another policy the model shows what it is, not what is asked for.
    told = replace(built, lowered=replace(built.lowered, policy=Policy.uniform(list(policy), FP32)))
    formats = {site: (scheme.weight, scheme.activation) for site, scheme in told.realized().items()}
    assert formats == {
        site: ("fp32" if "#" in site else scheme.weight, scheme.activation) for site, scheme in policy.schemes
    }


def test_a_site_left_unquantized_in_one_of_its_calls_is_shown(built):
    def leave_out(nodes, _):
        nodes["site/project#2/compute"].input[0] = nodes["site/project#2/quantize_input"].input[0]

    assert departed(changed(built, leave_out)) == {"project": replace(FP8, activation="fp32")}


def test_one_side_of_a_product_left_unquantized_is_shown(built):
    def leave_out(nodes, _):
        nodes["site/#matmul0/compute"].input[1] = nodes["site/#matmul0/quantize_right"].input[0]

    assert departed(changed(built, leave_out)) == {"#matmul0": replace(FP8, activation="fp32")}


def test_other_weights_scales_and_casts_are_shown(built):
    def change(nodes, constants):
        constants["mix.weight"].data_type = TensorProto.FLOAT8E5M2
        constants["conv.weight_scale"].CopyFrom(numpy_helper.from_array(torch.ones(()).numpy(), "conv.weight_scale"))
        held = nodes["site/conv/dequantize_weight"]
        del held.attribute[:]

    assert departed(changed(built, change)) == {
        "mix": replace(STORED, weight="fp8_e5m2"),
        "conv": replace(FP8, weight_scale="tensor"),
    }


@pytest.mark.parametrize("route", ["tensorrt", "gemm"])
def test_it_computes_what_is_emulated(mixed, route):
    graph, sites, policy = mixed
    backend, scales = HopperBackend(route), measured(graph)
    policy = Policy.of(
        {site.name: scheme if backend.refuses(site, scheme := policy[site.name]) is None else FP32 for site in sites}
    )
    found = backend.build(graph, policy, sites, scales)
    (parts,) = found.compute([graph.examples])
    wanted = emulated(graph, policy, backend.arithmetic)
    assert found.realized() == dict(policy.schemes)
    assert parts.keys() == {"sound", "score"}
    # A value at the edge of two roundings may go the other way, which FP8 makes 2**-4 of.
    assert all(snr_db(wanted[part], parts[part]) > 40 for part in wanted)


def test_state_is_zero_at_first_and_carried_on(step):
    graph, sites = step
    built = build(graph, Policy.uniform(["pre", "mid", "head"], FP32), sites)
    x = [torch.randn(1, 32, 24) for _ in range(3)]
    found = [run["y"] for run in built.compute({"x": given} for given in x)]
    past = torch.zeros(1, 1, 16)
    for given, y in zip(x, found, strict=True):
        wanted, past = graph.run({"x": given}, states={"past": past})
        assert torch.allclose(y, wanted, atol=1e-5)
    again = next(built.compute([{"x": x[0]}]))["y"]
    assert torch.equal(again, found[0]), "every stream begins anew"


def test_a_run_is_asked_for_only_when_the_one_before_was_computed(step):
    graph, sites = step
    asked = []

    def runs():
        for number in range(2):
            asked.append(number)
            yield {"x": torch.zeros(1, 32, 24)}

    computed = build(graph, Policy.uniform(["pre", "mid", "head"], FP32), sites).compute(runs())
    next(computed)
    assert asked == [0]


def test_inputs_that_do_not_fit_are_told(built):
    with pytest.raises(ValueError, match="reads rows, got nothing"):
        list(built.compute([{}]))
    with pytest.raises(ValueError, match="Got: 3 Expected: 12"):
        list(built.compute([{"rows": torch.zeros(1, 3, CHANNELS)}]))


def test_what_is_written_is_the_model_and_the_digest_is_of_it(built, mixed, tmp_path):
    graph, sites, policy = mixed
    built.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]
    assert onnx.load(tmp_path / MODEL) == built.model
    calibration = measured(graph).calibration
    louder = Calibration(calibration.method, tuple((name, side, 2 * amax) for name, side, amax in calibration.ranges))
    digests = {
        built.digest,
        build(graph, policy, sites, Measured(calibration=louder)).digest,
        build(graph, policy.replace("out", BF16), sites, measured(graph)).digest,
    }
    assert len(digests) == 3
    assert build(graph, policy, sites, measured(graph)).digest == built.digest


def test_e5m2_and_dynamic_scales_are_for_gemms_and_are_refused_for_tensorrt_by_name(mixed):
    graph, sites, policy = mixed
    wide = Policy.uniform(list(policy), BF16).replace("project", E5M2)
    built = HopperBackend("gemm").build(graph, wide, sites)
    assert built.realized() == dict(wide.schemes)
    assert len(list(built.compute([graph.examples]))) == 1
    static = replace(E5M2, activation_scale="static")
    for scheme, reason in ((static, "no E5M2"), (replace(FP8, activation_scale="dynamic"), "dynamic")):
        with pytest.raises(BuildError, match=rf"(?s)Hopper \(tensorrt\).*\n  project: TensorRT: .*{reason}"):
            HopperBackend("tensorrt").build(graph, wide.replace("project", scheme), sites, measured(graph))
    with pytest.raises(BuildError, match=r"\n  up: .*no FP8 transposed convolution"):
        HopperBackend("tensorrt").build(graph, Policy.uniform(list(policy), BF16).replace("up", FP8), sites)


def test_without_a_route_it_is_tensorrt_where_that_takes_all(mixed):
    graph, sites, policy = mixed
    backend, wide = HopperBackend(), Policy.uniform(list(policy), BF16)
    assert backend.build(graph, wide, sites).lowered.route == "tensorrt"
    assert backend.build(graph, wide.replace("project", E5M2), sites).lowered.route == "gemm"
    with pytest.raises(BuildError, match=r"(?s)Hopper \(gemm\).*\n  conv: .*only linear layers"):
        backend.build(graph, wide.replace("project", E5M2).replace("conv", FP8), sites, measured(graph))


def test_static_scales_that_were_not_measured_are_named_all_at_once(mixed):
    graph, sites, policy = mixed
    with pytest.raises(BuildError, match=r"(?s)conv: a static activation scale, and no.*project: a static"):
        build(graph, policy, sites, NOTHING_MEASURED, "tensorrt")
    some = Calibration.of("amax", {"project": {"input": 1.0}, "#matmul0": {"left": 1.0}})
    with pytest.raises(
        BuildError, match=r"(?s)#matmul0: no calibrated range of its right.*conv: no calibrated"
    ) as caught:
        build(graph, policy, sites, Measured(calibration=some), "tensorrt")
    assert "project" not in str(caught.value)


def test_a_stream_is_refused_dynamic_scales(step):
    graph, sites = step
    policy = Policy.of({"pre": BF16, "mid": E5M2, "head": BF16})
    with pytest.raises(BuildError, match=r"\n  mid: activation_scale dynamic: the scale of a chunk is not that"):
        HopperBackend("gemm").build(graph, policy, sites)


def test_what_a_scheme_has_no_place_for_is_left_to_it(mixed):
    """Levers mean nothing at a product, and are no node of the model."""
    graph, sites, policy = mixed
    scheme = replace(FP8, name="another", levers=("error_feedback",))
    built = build(graph, policy.replace("#matmul0", scheme), sites, measured(graph))
    assert built.realized()["#matmul0"] == scheme


@pytest.mark.parametrize("scheme", [STORED, BF16])
def test_weights_that_are_not_finite_are_refused_by_name(scheme):
    model, rows = Mixed(), torch.randn(1, 12, CHANNELS)
    sites = discover(model, lambda: model(rows), 1.0).sites
    model.out.weight[0, 0, 0] = torch.inf
    graph = graph_of(model, {"rows": rows}, parts=("sound", "score"))
    with pytest.raises(ValueError, match=r"\n  out: the weight has Inf or NaN"):
        build(graph, Policy.uniform([site.name for site in sites], scheme), sites)
