"""Whole models: every site built as the policy says, and sounding as the emulation does."""

from collections import Counter
from collections.abc import Callable

import onnx
import pytest

from backends.hopper.built import HopperBuilt
from backends.tolerance import snr_db
from precision.policy import Policy
from tests.conformance.conftest import Asked
from tests.conformance.models import MODELS, Model, measured, near_db
from tests.conformance.targets import Target, asked, targets
from voice.graph import site_nodes


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", asked())
def test_every_site_is_built_as_a_mixed_policy_says(target: Target, asked_of: Asked, which: str) -> None:
    built, policy = asked_of(target)[which]
    realized = built.realized()
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}
    assert realized.keys() == set(policy)


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", [target for target in targets() if target.id.startswith("hopper")])
def test_an_onnx_model_is_valid_and_quantizes_what_the_policy_says_and_nothing_else(
    target: Target, asked_of: Asked, which: str
) -> None:
    built, policy = asked_of(target)[which]
    assert isinstance(built, HopperBuilt)
    model = built.model
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    wanted: Counter[tuple[str, str]] = Counter()
    for call in site_nodes(built.lowered.graph):
        scheme = policy[call.site]
        scaled = (2 if call.is_product else 1) if scheme.activation.startswith("fp8") else 0
        stored = 1 if scheme.weight.startswith("fp8") and not call.is_product else 0
        wanted["QuantizeLinear", call.site] += scaled
        wanted["DequantizeLinear", call.site] += scaled + stored
    found = Counter(
        (node.op_type, _site_of(node.name, policy))
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    )
    assert found == +wanted
    assert sum(found.values()) > 20


def _site_of(name: str, policy: Policy) -> str:
    """The site whose island a node belongs to; all of the name where it belongs to none."""
    call = name.removeprefix("site/").rpartition("/")[0]
    return next((site for site in (call, call.rpartition("#")[0]) if site in policy), name)


@pytest.mark.slow
@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("target", targets())
def test_a_built_model_computes_what_is_emulated(target: Target, model: Callable[[str], Model], which: str) -> None:
    held = model(which)
    exact = dict(zip(held.graph.parts, held.graph.run(), strict=False))
    schemes = (target.everyday[0], *target.narrow, target.widest)
    policies = {scheme.name: target.uniform(held.sites, scheme, held.streaming) for scheme in schemes}
    below = {}
    for name, policy in {**policies, "of all": target.mixed(held.sites, held.streaming)}.items():
        built = target.builder.build(held.graph, policy, held.sites, measured(held.graph))
        (parts,) = built.compute([held.graph.examples])
        wanted = held.emulated(policy, target.backend.exact or target.backend.arithmetic)
        assert parts.keys() == wanted.keys()
        for part, emulation in wanted.items():
            own, apart = snr_db(exact[part], emulation), snr_db(emulation, parts[part])
            if apart < near_db(own):
                below[name, part] = (own, apart)
    assert below == {}
