"""A decoder on a card: the 7B against closed formulas, streams, first sound, speculation."""

import itertools
from dataclasses import replace

import pytest

from backends.cost import CostModel, Gemm
from backends.decoder_pass import FRAME_SECONDS, DecoderCost
from backends.decoding import Load, first_sound, served, state_bytes, streams_of
from backends.devices import load_devices
from backends.gemm_tables import GemmTable
from backends.serving import MEMORY_SHARE
from backends.speculation import Speculation, draft_config, expected_rows
from precision.policy import Scheme
from voice.decoder_config import SEVEN_B, SMALL
from voice.decoder_sites import on_paper, prefill_discovery, step_discovery

DEVICES = load_devices()
BF16 = Scheme("bf16", "bf16", "bf16")
FP8 = Scheme("fp8", "fp8_e4m3", "fp8_e4m3", weight_scale="tensor")
CASES = ("low", "middle", "high")


@pytest.fixture(scope="module")
def seven_b():
    return on_paper(SEVEN_B)


@pytest.fixture(scope="module")
def step(seven_b):
    return step_discovery(seven_b)


@pytest.fixture(scope="module")
def costed(seven_b, step):
    parameters = sum(weight.numel() for weight in seven_b.parameters())

    def make(layers=FP8, card="h100_sxm", case="middle", **changes):
        policy = {site.name: layers if site.name.startswith("layers.") else BF16 for site in step.sites}
        return DecoderCost(DEVICES[card], SEVEN_B, step.sites, policy, parameters, case, **changes)

    return make


@pytest.fixture(scope="module")
def draft():
    config = draft_config(SEVEN_B, 4, 1024)
    module = on_paper(config)
    sites = step_discovery(module).sites
    parameters = sum(weight.numel() for weight in module.parameters())
    return lambda cost: DecoderCost(cost.device, config, sites, cost.policy, parameters, cost.case)


class TestOnPaper:
    """32 layers of 4096, 32 heads of 128 that share 4, hidden 14336; 32000 text tokens, 8 codebooks of 2048."""

    LAYER = 4096 * (2 * 4096 + 2 * 512) + 3 * 4096 * 14336
    HEADS = 4096 * (32000 + 8 * 2048)
    TABLES = 4096 * (32001 + 8 * 2049)

    def test_weights_are_those_of_the_closed_formula(self, seven_b):
        codec = sum(weight.numel() for weight in seven_b.codec.parameters())
        norms = (2 * 32 + 1) * 4096
        found = sum(weight.numel() for weight in seven_b.parameters())
        assert found == 32 * self.LAYER + self.HEADS + self.TABLES + norms + codec
        assert found == pytest.approx(7.27e9, rel=0.01)
        assert all(weight.is_meta for weight in [*seven_b.parameters(), *seven_b.buffers()])

    def test_sites_of_a_step_are_all_that_multiplies(self, step):
        macs = {site.name: site.macs_per_second * FRAME_SECONDS for site in step.sites}
        transformer = sum(value for name, value in macs.items() if name.startswith("layers.") and "#" not in name)
        attention = sum(value for name, value in macs.items() if "#" in name)
        heads = sum(value for name, value in macs.items() if "_head" in name)
        assert transformer == pytest.approx(32 * self.LAYER)
        assert attention == pytest.approx(32 * 2 * 32 * 128 * SEVEN_B.max_rows)
        assert heads == pytest.approx(self.HEADS)
        assert step.covered_share == 1
        assert len(step.sites) == 32 * (4 + 2 + 3) + 9 + 14

    def test_a_prompt_goes_through_the_layers_row_by_row_and_through_the_heads_once(self, seven_b):
        rows = 7
        macs = {site.name: site.macs_per_second for site in prefill_discovery(seven_b, rows).sites}
        seconds = rows * FRAME_SECONDS
        assert macs["layers.0.feed_forward.up"] * seconds == pytest.approx(rows * 4096 * 14336)
        assert macs["layers.0.attention#qk"] * seconds == pytest.approx(rows * rows * 4096)
        assert macs["text_head"] * seconds == pytest.approx(4096 * 32000)
        assert not any(name.startswith("codec.") for name in macs)
        for wrong in (0, SEVEN_B.max_rows + 1):
            with pytest.raises(ValueError, match="a prompt of 1 to 4096 rows"):
                prefill_discovery(seven_b, wrong)

    @pytest.mark.parametrize(("layers", "bytes_"), [(BF16, 2), (FP8, 1)])
    def test_a_row_of_the_cache_is_two_times_layers_heads_and_bytes(self, costed, layers, bytes_):
        cost = costed(layers)
        assert cost.row_bytes == 2 * 32 * 4 * 128 * bytes_
        assert cost.weight_bytes == pytest.approx(cost.parameters * 2 - 32 * self.LAYER * (2 - bytes_))
        assert cost.weight_macs == pytest.approx(32 * self.LAYER + self.HEADS + codec_macs(cost))


def codec_macs(cost):
    return sum(site.macs_per_second for site in cost.sites if site.name.startswith("codec.")) * FRAME_SECONDS


class TestPass:
    def test_products_of_a_layer_are_four_launches_as_measured(self, costed):
        table = GemmTable.of("h100_sxm")
        shapes = ((6144 - 1024, 4096), (4096, 4096), (2 * 14336, 4096), (4096, 14336))
        whole = {dtype: 32 * sum(table.seconds(dtype, 32, n, k) for n, k in shapes) for dtype in ("bf16", "fp8")}
        assert costed(BF16).pass_cost(32, 1000).layers == pytest.approx(whole["bf16"], rel=0.01)
        alone = costed(FP8).pass_cost(32, 1000).layers
        assert 0.5 * whole["bf16"] < alone < 0.7 * whole["bf16"]
        quantizing = 32 * 4 * 9.5e-6
        assert alone == pytest.approx(whole["fp8"] - quantizing, rel=0.05)
        assert costed(FP8, case="high").pass_cost(32, 1000).layers > whole["fp8"], "nobody may quantize before"

    def test_weights_that_were_measured_in_the_cache_still_come_from_memory(self, costed):
        cost = costed(FP8, "l40s")
        least = 4096 * 4096 / (DEVICES["l40s"].memory_gb_per_s.value * 1e9)
        assert GemmTable.of("l40s").seconds("fp8", 1, 4096, 4096) < least
        assert least < cost.product_seconds(1, 4096, 4096, FP8) < 1.5 * least

    def test_where_nothing_was_measured_the_roofline_stands(self, costed):
        for cost in (costed(FP8, "h100_pcie"), costed(FP8, measured=False)):
            model = CostModel(cost.device, tables=False)
            roof = model.gemm_cost(Gemm(8, 4096, 4096, 1, 8 * 4096, True), FP8).seconds
            assert cost.product_seconds(8, 4096, 4096, FP8) == roof
            assert set(cost.pass_cost(8, 1000).evidence) == {"roofline"}

    def test_a_pass_says_what_it_rests_on(self, costed):
        found = costed(BF16).pass_cost(32, 1000)
        shares = found.evidence
        assert sum(shares.values()) == pytest.approx(1)
        assert 0.6 < shares["measured"] <= (found.layers + found.heads + found.codec) / found.seconds
        assert shares["roofline"] >= (found.attention + found.between) / found.seconds
        static = costed(FP8).pass_cost(32, 1000).evidence
        assert static["calibrated"] > 0.6 > static["measured"]

    def test_attention_reads_the_cache_of_every_stream_once(self, costed):
        cost = costed()
        once, twice = (cost.pass_cost(64, context).attention for context in (2000, 4000))
        speed = cost.device.memory_gb_per_s.value * 1e9 * cost.device.memory_efficiency.value
        read = 64 * 2000 * cost.row_bytes / speed
        assert read < twice - once < 1.1 * read, "the products hide behind it, but for a tenth"
        assert costed(BF16).pass_cost(64, 2000).attention > 1.8 * once

    def test_heads_that_take_schemes_of_their_own_are_launches_of_their_own(self, costed):
        cost = costed()
        parted = replace(cost, policy={**cost.policy, "text_head": FP8, "layers.0.attention.key": BF16})
        assert parted.pass_cost(1, 100).heads != cost.pass_cost(1, 100).heads
        assert parted.pass_cost(1, 100).layers > cost.pass_cost(1, 100).layers

    @pytest.mark.parametrize("card", ["h100_sxm", "l40s", "h100_pcie"])
    def test_cases_are_in_order_and_streams_share_a_pass(self, costed, card):
        low, middle, high = (costed(card=card, case=case).pass_cost(32, 1500).seconds for case in CASES)
        assert low < middle < high
        one, many = (costed(card=card).pass_cost(count, 1500).seconds for count in (1, 32))
        assert one < many < 32 * one

    def test_a_site_without_a_scheme_is_named(self, costed):
        cost = costed()
        policy = {name: scheme for name, scheme in cost.policy.items() if name != "text_head"}
        with pytest.raises(ValueError, match="none for text_head"):
            replace(cost, policy=policy)


class TestStreams:
    @pytest.mark.parametrize(("card", "layers"), [("h100_sxm", FP8), ("h100_sxm", BF16), ("l40s", BF16)])
    def test_one_more_stream_breaks_what_limits(self, costed, card, layers):
        cost, load = costed(layers, card), Load(context=1500)
        found = streams_of(cost, load)
        room = MEMORY_SHARE * cost.device.memory_gb.value * 1e9

        def fits(count):
            used = cost.weight_bytes + cost.live_bytes(count) + count * found.stream_bytes
            return cost.pass_cost(count, 1500).seconds <= 0.7 * FRAME_SECONDS, used <= room

        assert fits(found.streams) == (True, True)
        assert fits(found.streams + 1) == (found.limited_by != "time", found.limited_by != "memory")
        assert found.stream_bytes == 1500 * cost.row_bytes + state_bytes(SEVEN_B)
        assert found.utilization <= 0.7

    def test_batches_of_one_size_are_passes_one_after_another(self, costed):
        cost = costed()
        found = streams_of(cost, Load(batch=32))
        assert found.streams == 32 * int(0.7 * FRAME_SECONDS / cost.pass_cost(32, 1500).seconds)
        assert found.passes == found.streams // 32
        assert found.limited_by == "time"

    def test_more_is_asked_fewer_are_carried(self, costed):
        cost = costed()
        usual = streams_of(cost).streams
        for load in (Load(held=4096), Load(context=3000), Load(utilization=0.3), Load(passes_a_row=9)):
            assert streams_of(cost, load).streams < usual
        assert streams_of(cost, Load(utilization=0.001)).streams == 0
        assert streams_of(cost, Load(context=4_000_000)).limited_by == "memory"
        assert streams_of(cost, Load(context=4_000_000)).streams == 0

    @pytest.mark.parametrize("wrong", [{"context": 0}, {"utilization": 0}, {"batch": -1}, {"passes_a_row": 0}])
    def test_a_load_of_nothing_is_refused(self, wrong):
        with pytest.raises(ValueError, match="must hold"):
            Load(**wrong)

    def test_serving_has_the_streams_of_every_case(self, costed):
        costs = {case: costed(case=case) for case in CASES}
        serving = served(costs, "fp8", Load(batch=32))
        assert serving.low.streams_per_card > serving.middle.streams_per_card > serving.high.streams_per_card
        assert serving.middle.weight_bytes == costs["middle"].weight_bytes
        assert serving.chunk_seconds == FRAME_SECONDS
        assert sum(serving.middle.evidence.values()) == pytest.approx(1)


class TestFirstSound:
    def test_it_is_a_frame_a_prompt_and_one_pass_more_than_the_delay(self, costed):
        cost = costed()
        found = first_sound(cost, 125, 32, 1500)
        assert found.frame == FRAME_SECONDS
        assert found.prefill == cost.pass_cost(1, 125, rows=125, answers=1).transformer
        assert found.passes + found.codec == pytest.approx(8 * cost.pass_cost(32, 1500).seconds)
        assert found.seconds == found.frame + found.prefill + found.passes + found.codec
        assert first_sound(cost, 125, 32, 1500, speech=False).frame == 0
        # A prompt of ten seconds costs about as much as a pass: both read the weights once.
        assert found.prefill < 1.2 * cost.pass_cost(1, 125).seconds


class TestSpeculation:
    def test_rows_of_a_pass_are_those_of_leviathan(self):
        for acceptance, drafted in itertools.product((0.0, 0.3, 0.9), (1, 3, 8)):
            closed = (1 - acceptance ** (drafted + 1)) / (1 - acceptance)
            assert expected_rows(acceptance, drafted) == pytest.approx(closed)
        assert expected_rows(1.0, 4) == 5

    def test_a_draft_is_scaled_down_and_shares_rows(self):
        draft = draft_config(SEVEN_B, 4, 1024)
        assert (draft.layers, draft.heads, draft.kv_heads, draft.head_size, draft.hidden) == (4, 8, 1, 128, 3584)
        assert draft_config(SEVEN_B, 32, 4096) == SEVEN_B
        assert draft_config(SMALL, 1, 128).kv_heads == 1
        for layers, width in ((0, 1024), (33, 1024), (4, 1000), (4, 8192), (4, 64)):
            with pytest.raises(ValueError, match="a draft has 1 to 32 layers"):
                draft_config(SEVEN_B, layers, width)

    def test_it_helps_one_stream_and_not_a_full_card(self, costed, draft):
        cost = costed()
        guess = Speculation(draft(cost), 0.5, 3)
        assert guess.token_acceptance**9 == pytest.approx(0.5)
        for count, helps in ((1, True), (1299, False)):
            without = cost.pass_cost(count, 1500).transformer
            assert (guess.row_seconds(cost, count, 1500) < without) == helps
            needed = guess.needed_acceptance(cost, count, 1500)
            assert (needed < 0.5) == helps
            even = replace(guess, acceptance=needed)
            assert even.row_seconds(cost, count, 1500) == pytest.approx(without, rel=1e-3)

    def test_a_draft_as_dear_as_the_large_one_never_pays(self, costed):
        cost = costed()
        assert Speculation(cost, 1.0, 3).needed_acceptance(cost, 1, 1500) is None
        for acceptance, drafted in ((1.1, 3), (-0.1, 3), (0.5, 0)):
            with pytest.raises(ValueError, match="acceptance"):
                Speculation(cost, acceptance, drafted)
