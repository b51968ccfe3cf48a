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
