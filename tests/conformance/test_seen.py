"""That the suite would see it: programs that are other than their policies say are shown as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.tenstorrent.built import TenstorrentBuilt, plan_builds
from precision.policy import Policy
from tests.conformance.layers import layers_graph
from tests.conformance.targets import TARGETS

BLACKHOLE = next(target for target in TARGETS if target.name == "blackhole_p150")
CHANGES: tuple[dict[str, Any], ...] = (
    {"weight": "bfp4_b"},
    {"activation": "bf16"},
    {"accumulate": "bf16"},
    {"fidelity": "hifi2"},
    {"packer_l1_acc": True},
    {"in0_block_w": 1, "activation": "bf16"},
    {"activation": "fp32", "bias_apart": True},
)
WEIGHTS_ONLY = ({"weight": "bfp4_b"}, {"activation": "fp32", "bias_apart": True})
"""What means nothing at a product of two activations."""


@pytest.mark.tenstorrent
def test_what_departs_from_the_policy_is_shown(tmp_path: Path) -> None:
    missing = BLACKHOLE.no_software()
    if missing is not None:
        pytest.skip(missing)
    weighted = ("linear", "conv", "transposed")
    copies = dict.fromkeys(weighted, len(CHANGES)) | {"product": len(CHANGES) - len(WEIGHTS_ONLY)}
    graph, sites = layers_graph(copies)
    changes = [*CHANGES] * len(weighted) + [change for change in CHANGES if change not in WEIGHTS_ONLY]
    said = BLACKHOLE.everyday[0]
    made = {site.name: replace(said, **change) for site, change in zip(sites, changes, strict=True)}
    built = BLACKHOLE.builder.build(graph, Policy.of(made), sites)
    assert isinstance(built, TenstorrentBuilt)
    told = TenstorrentBuilt(graph, Policy.uniform(list(made), said), built.program)
    plan_builds([told], tmp_path)
    assert told.realized() == made
