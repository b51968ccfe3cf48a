"""The JSON schema of a recipe: current, and worth reading in an editor."""

import subprocess
import sys
from pathlib import Path

from precision.schema import recipe_schema, schema_text

ROOT = Path(__file__).parents[2]


def test_the_schema_file_is_current(tmp_path: Path) -> None:
    assert (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8") == schema_text(), (
        "run python -m precision.schema"
    )
    path = tmp_path / "schema.json"
    subprocess.run([sys.executable, "-m", "precision.schema", str(path)], check=True, cwd=ROOT, capture_output=True)
    assert path.read_text(encoding="utf-8") == schema_text()


def test_every_key_of_the_schema_is_titled_and_described() -> None:
    schema = recipe_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        for key, entry in section["properties"].items():
            assert entry.get("title"), key
            # pydantic leaves a description to the section where the two are the same.
            section_named = schema["$defs"].get(entry.get("$ref", "").rsplit("/", 1)[-1], {})
            assert entry.get("description") or section_named.get("description"), key


def test_an_editor_is_offered_the_names_there_are() -> None:
    known = {
        "model": ("embedded",),
        "card": ("p150a", "l40s"),
        "format": ("bf16",),
        "metric": ("stoi",),
        "preset": ("lofi",),
    }
    schema = recipe_schema(known)
    sections = {name: section["properties"] for name, section in schema["$defs"].items()}
    assert sections["ModelSection"]["name"]["anyOf"][0]["enum"] == ["embedded"]
    assert (
        sections["TargetSection"]["device"]["enum"] == sections["AgainstSection"]["device"]["enum"] == ["p150a", "l40s"]
    )
    assert sections["SchemeEntry"]["weight"]["enum"] == sections["SchemeEntry"]["activation"]["enum"] == ["bf16"]
    assert sections["GateEntry"]["metric"]["enum"] == ["stoi"]
    assert schema["properties"]["presets"]["items"]["enum"] == ["lofi"]
    assert "enum" not in sections["GatesSection"]["profile"]
    assert "enum" not in recipe_schema()["$defs"]["ModelSection"]["properties"]["name"]["anyOf"][0]
