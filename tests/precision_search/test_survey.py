"""What is proposed for a model: a rule for every site, and none that is idle."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from backends.hopper.support import refuses as hopper
from precision.document import dump
from precision.policy import Scheme
from precision.recipe import Known, load_recipe
from precision.site import Op, Site
from precision.space import resolve_space
from precision_search.survey import Proposal, Refuses, propose

FP32 = Scheme("fp32", "fp32", "fp32")
BF16 = Scheme("bf16", "bf16", "bf16")
WEIGHTS = Scheme("weights", "fp8_e4m3", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3")
SCHEMES = (FP32, BF16, WEIGHTS, FP8)


def site(name: str, op: Op = "linear", group: str | None = None, rows: float = 100.0, channels: int = 32) -> Site:
    shape = () if op == "matmul" else (channels, channels) if op == "linear" else (channels, channels, 3)
    return Site(name, op, shape, channels, channels, rows, group=group)


def able(_: Site, __: Scheme) -> str | None:
    return None


def proposed(
    sites: Sequence[Site], protected: Mapping[str, str] | None = None, refuses: Refuses = able
) -> tuple[Proposal, ...]:
    """Proposals, held against what a recipe with these rules comes to."""
    rules = propose(sites, SCHEMES, BF16, protected or {}, refuses)
    written = [
        {"match": rule.match, **({"op": rule.op} if rule.op else {}), "allow": [s.name for s in rule.allow]}
        for rule in rules
    ]
    recipe = load_recipe(
        dump(
            {
                "version": 1,
                "name": "tiny",
                "model": {"name": "tiny"},
                "target": {"device": "card"},
                "data": {"search": 1, "held_back": 1},
                "calibrate": {"method": "amax"},
                "schemes": {s.name: {"weight": s.weight, "activation": s.activation} for s in SCHEMES},
                "baseline": "bf16",
                "space": written,
                "gates": [{"metric": "stoi", "min": 0.9}],
                "search": {"minimize": "seconds", "candidates": 1, "evaluations": 1, "seed": 0},
            }
        ),
        Known(("tiny",), ("card",), ("stoi",), {}),
    )
    meant = {site.name: rule.allow for rule in rules for site in rule.sites}
    assert resolve_space(recipe, sites) == {site.name: meant[site.name] for site in sites}
    return rules


def told(rules: Sequence[Proposal]) -> list[tuple[str, str | None, str]]:
    return [(rule.match, rule.op, " ".join(scheme.name for scheme in rule.allow)) for rule in rules]


def test_a_model_is_told_apart_by_what_matters() -> None:
    sites = (
        site("pitch.first"),
        site("pitch.second"),
        site("text.embed"),
        site("text.attention#matmul0", "matmul"),
        site("text.out"),
        site("wave.0.up", "conv_transpose1d", rows=1000.0),
        site("wave.0.mix", "conv1d", rows=1000.0),
        site("wave.1.mix", "conv1d", rows=1000.0),
        site("wave.head.project", "conv1d"),
        site("wave.head", "conv_transpose1d"),
    )
    rules = proposed(sites, {"pitch.*": "it decides timing"}, hopper)
    assert told(rules) == [
        ("pitch.*", None, "bf16"),
        ("text.embed", None, "fp32 bf16 weights"),
        ("wave.head*", None, "fp32 bf16 weights"),
        ("*", "matmul", "bf16 fp8"),
        ("text.*", None, "bf16 weights fp8"),
        ("wave.0.*", "conv_transpose1d", "bf16 weights"),
        ("wave.0.*", "conv1d", "bf16 weights fp8"),
        ("wave.1.*", None, "bf16 weights fp8"),
    ]
    assert rules[0].why == "protected: it decides timing"
    assert rules[5].refused == (
        "fp8 is refused: TensorRT: no FP8 transposed convolution is known; use bf16 or fp16."
        " GEMM path: only linear layers have FP8 there; use bf16 or fp16",
    )


def test_operations_are_told_apart_where_the_card_tells_them_apart() -> None:
    sites = [
        site("first"),
        *(site(f"body.{n}", op) for n in range(3) for op in ("linear",)),
        site("body.up", "conv_transpose1d"),
        site("last"),
    ]
    assert told(proposed(sites, refuses=hopper))[2:] == [
        ("body.*", "linear", "bf16 weights fp8"),
        ("body.*", "conv_transpose1d", "bf16 weights"),
    ]
    assert told(proposed(sites))[2:] == [("body.*", None, "bf16 weights fp8")]


def test_what_some_sites_cannot_run_is_counted() -> None:
    def refuses(where: Site, scheme: Scheme) -> str | None:
        return f"{where.name} cannot" if scheme is FP8 and where.name[-1] in "12" else None

    rule = proposed([site("a"), *(site(f"body.{n}") for n in range(4)), site("z")], refuses=refuses)[-1]
    assert rule.allow == (BF16, WEIGHTS, FP8)
    assert rule.refused == ("fp8 is refused at 2 of 4 sites: body.1 cannot (and 1 more like it)",)


def test_what_computes_together_may_choose_the_same() -> None:
    sites = (
        site("q", group="qkv"),
        site("k", group="qkv"),
        site("body.up", "conv_transpose1d", "branch"),
        site("other.v", group="branch"),
        site("z"),
    )
    rules = {rule.match: rule for rule in proposed(sites, refuses=hopper)}
    assert rules["q"].allow == rules["k"].allow == (FP32, BF16, WEIGHTS)
    assert rules["k"].why == "computed together with q"
    assert rules["body.*"].allow == rules["other.*"].allow == (BF16, WEIGHTS, FP8)


def test_many_modules_leave_the_small_ones_to_the_last_rule() -> None:
    sites = [site("first"), *(site(f"m{n}", rows=100.0 + n) for n in range(30)), site("last")]
    rules = proposed(sites)
    assert [rule.match for rule in rules] == ["first", "last", *(f"m{n}" for n in range(19, 30)), "*"]
    assert len(rules[-1].sites) == 19


names = st.lists(st.sampled_from(["a", "b", "[c]", "d*", "a#op0"]), min_size=1, max_size=3).map(".".join)
ops = st.sampled_from(["linear", "conv1d", "conv_transpose1d", "matmul"])
models = st.lists(
    st.builds(
        site,
        names,
        ops,
        st.sampled_from([None, None, "g", "h"]),
        st.sampled_from([1.0, 1e4]),
        st.sampled_from([16, 32]),
    ),
    min_size=1,
    max_size=14,
    unique_by=lambda found: found.name,
)


@given(models, st.sampled_from([able, hopper]), st.sampled_from([{}, {"a*": "why"}, {"x": "why", "*": "all"}]))
def test_every_site_has_a_rule_and_every_rule_a_site(
    sites: list[Site], refuses: Refuses, protected: dict[str, str]
) -> None:
    rules = proposed(sites, protected, refuses)
    assert sorted(taken.name for rule in rules for taken in rule.sites) == sorted(found.name for found in sites)
    assert all(BF16 in rule.allow for rule in rules)
