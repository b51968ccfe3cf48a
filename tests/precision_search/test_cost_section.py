"""Prices and cards of a recipe's own: what is read, what is refused, and what a digest tells apart."""

from pathlib import Path

import pytest
import yaml

from precision.recipe import RecipeError
from precision_search.cards import cards_of
from precision_search.wire import read_recipe, read_text

QUOTE = "{value: 7000, source: a quote, date: 2026-11-20}"
FIGURES = {
    "sram_mb": 150,
    "memory_gb": 16,
    "memory_gb_per_s": 400,
    "memory_efficiency": 0.8,
    "gemm_efficiency": 0.7,
    "overhead_us": 8,
    "power_w": 200,
    "price_usd": 800,
    "tflops_per_core_ghz": 4.096,
    "cores": 100,
    "clock_ghz": 1.0,
    "sram_bytes_per_core_clock": 64,
}


def card(**changes: object) -> dict[str, object]:
    figures = {key: {"value": value, "source": "its label", "date": "2026-11"} for key, value in FIGURES.items()}
    return {"title": "My card", "architecture": "blackhole", "backend": "tenstorrent", **figures, **changes}


@pytest.fixture
def cards(tmp_path) -> Path:
    path = tmp_path / "cards.yaml"
    path.write_text(yaml.safe_dump({"devices": {"mine": card()}}), encoding="utf-8")
    return path


def read(*overrides: str):
    return read_recipe("tts_blackhole", overrides)


def mistakes(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read(*overrides)
    return "\n".join(caught.value.lines)


class TestPrices:
    def test_one_of_the_recipe_goes_before_the_table_with_its_source_and_date(self):
        recipe = read(
            f"cost.prices.l40s={QUOTE}", "cost.cloud_prices.p150a={low: 0.4, high: 0.6, source: s, date: 2026-11}"
        )
        table, found = cards_of(read()), cards_of(recipe)
        quoted = found["l40s"].price_usd
        assert (quoted.low, quoted.value, quoted.high, quoted.source, quoted.date) == (
            *[7000] * 3,
            "a quote",
            "2026-11-20",
        )
        assert found["p150a"].cloud_usd_per_hour.value == pytest.approx(0.5)
        assert table["p150a"].cloud_usd_per_hour is None
        assert found["p150a"].price_usd == table["p150a"].price_usd
        assert recipe.digest != read().digest

    def test_what_is_not_changed_keeps_the_digest(self):
        same = read("cost.pue=1.2", "cost.rent=false", "cost.chunk_ms=500.0", "cost.fleet_streams=550")
        assert same.digest == read().digest
        assert read("cost.fleet_streams=100").digest != read().digest

    def test_every_mistake_is_named_at_once(self):
        told = mistakes(
            "cost.prices={l40s: {value: 5, source: q}, l40z: {value: 5, source: q, date: soon}}",
            "cost.cloud_prices={p150a: {source: s, date: 2026-11}, n150: {low: 5, high: 3, source: s, date: 2026-13}}",
            "cost.characters_per_second={value: -1, date: 2026-11}",
            "cost.pue=0.5",
        )
        for line in (
            "cost.prices.l40s.date (--set): missing, must be given",
            "cost.prices.l40z (--set): got 'l40z', must be a known card",
            "did you mean 'l40s'?",
            "cost.prices.l40z.date (--set): got 'soon', must be a date, as 2026-11 or 2026-11-20",
            "cost.cloud_prices.p150a (--set): has neither a value nor low and high",
            "cost.cloud_prices.n150 (--set): got low 5, high 3, must be low <= value <= high",
            "cost.cloud_prices.n150.date (--set): got '2026-13'",
            "cost.characters_per_second.value (--set): got -1, must be more than 0",
            "cost.characters_per_second.source (--set): missing, must be given",
            "cost.pue (--set): got 0.5, must be at least 1",
        ):
            assert line in told, line

    @pytest.mark.parametrize(
        ("date", "fits"),
        [
            ("2026", True),
            ("2026-11-20", True),
            ("2025-12 to 2026-01", True),
            ("2026 to 2026-11", True),
            ("2026-02-30", False),
            ("2026-11-20 to 2026-01-01", False),
            ("2026-11 to soon", False),
        ],
    )
    def test_a_date_is_one_that_the_calendar_has_and_ends_after_it_begins(self, date, fits):
        price = f"cost.prices={{l40s: {{value: 5, source: q, date: '{date}'}}}}"
        if fits:
            assert read(price).cost.prices["l40s"].date == date
        else:
            assert f"cost.prices.l40s.date (--set): got '{date}', must be a date" in mistakes(price)


class TestCards:
    def test_a_card_of_ones_own_is_named_priced_and_kept_in_the_recipe(self, cards):
        recipe = read(f"target.cards={cards}", "target.device=mine", "cost.against.device=mine")
        found = cards_of(recipe)["mine"]
        assert (found.title, found.price_usd.value, found.backend) == ("My card", 800, "tenstorrent")
        assert found.rates_tflops["lofi"].value == pytest.approx(409.6)
        again = read_text(recipe.to_yaml())
        cards.unlink()
        assert again == read_text(recipe.to_yaml()) == recipe
        assert again.digest == recipe.digest

    def test_its_content_and_not_its_file_is_what_the_digest_tells_apart(self, cards, tmp_path):
        named = read(f"target.cards={cards}")
        moved = cards.rename(tmp_path / "elsewhere.yaml")
        assert read(f"target.cards={moved}").digest == named.digest != read().digest
        moved.write_text(yaml.safe_dump({"devices": {"mine": card(title="Another")}}), encoding="utf-8")
        assert read(f"target.cards={moved}").digest != named.digest

    def test_every_mistake_names_the_file_and_the_key(self, cards):
        wrong = card(sram_mb={"value": -1, "source": "s", "date": "2026"}, colour=3)
        del wrong["price_usd"], wrong["cores"]
        unpriced = card()
        del unpriced["price_usd"]
        table = {"mine": wrong, "l40s": card(), "poor": unpriced, "none": 5}
        cards.write_text(yaml.safe_dump({"devices": table}), encoding="utf-8")
        told = mistakes(f"target.cards={cards}", "target.device=mime")
        for line in (
            f"{cards}: mine.sram_mb: a figure is positive",
            f"{cards}: mine.colour: unknown key",
            f"{cards}: mine.cores: missing",
            f"{cards}: l40s is a card of the package; take another name",
            f"{cards}: poor.price_usd: missing",
            "target.cards.none (--set): got 5, must be a mapping",
            "target.device (--set): got 'mime', must be a known card",
            "did you mean 'mine'?",
        ):
            assert line in told, line

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("devices: {", "not YAML"),
            ("cards: {}", "must be a mapping with the key devices"),
            ("devices: {a: &b {}, c: *b}", "an alias"),
            ("devices: {mine: {title: a, title: b}}", "stands twice"),
        ],
    )
    def test_a_file_that_is_none_is_told(self, cards, text, said):
        cards.write_text(text, encoding="utf-8")
        assert said in mistakes(f"target.cards={cards}")
        assert str(cards) in mistakes(f"target.cards={cards}")

    def test_no_file_and_no_mapping_are_told(self, tmp_path):
        assert "cannot be read: No such file" in mistakes(f"target.cards={tmp_path}/none.yaml")
        assert "target.cards (--set): got 5, must be a mapping" in mistakes("target.cards=5")
