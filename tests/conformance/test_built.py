"""Layers and whole models: every site built as the policy says, by what the target's software makes of them.

All that asks the software lies here: files go to processes of their own, and each would ask it anew, for minutes.
"""

from collections import Counter

import onnx
import pytest

from backends.hopper.built import HopperBuilt
from precision.policy import Policy
from tests.conformance.conftest import Asked
from tests.conformance.models import MODELS
from tests.conformance.targets import Target, asked, targets
from voice.graph import site_nodes


@pytest.mark.slow
@pytest.mark.parametrize("target", asked())
def test_what_is_claimed_is_built_as_the_policy_says(target: Target, asked_of: Asked) -> None:
    built, policy = asked_of(target)["layers"]
    realized = built.realized()
    assert list(realized) == list(policy)
    assert {site: scheme for site, scheme in realized.items() if scheme != policy[site]} == {}


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
