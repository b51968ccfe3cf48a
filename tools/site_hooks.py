"""Hooks of mkdocs: pages that the code writes, and files of the repository that the documents link to."""

import re
import sys
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of a checkout that is not installed

from tools import site_pages, site_python, site_recipe  # noqa: E402 - found only now

OUTSIDE = "repository"
"""Folder of the site that holds what lies outside docs/ and is linked from there."""
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "audio_eval/suite.py": "reference/metrics.md",
    "backends/devices.yaml": "reference/cards.md",
    "docs/decisions": "decisions/index.md",
    "precision/formats.py": "reference/formats.md",
    "precision_search/main.py": "reference/commands.md",
    "precision_search/reading.py": "reference/python/precision_search.md",
    "recipes/presets.yaml": "reference/formats.md",
    "recipes/recipe.schema.json": "reference/recipe.md",
    "voice/model.py": "reference/python/voice.md",
}
"""What the documents link to in the repository -> the page of the site that is made of it."""
_LINK = re.compile(r"(?<=\]\()([^()\s#:]+)(#[^()\s]*)?(?=\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written by the code, and those of the repository that the documents link to."""
    generated = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "decisions/index.md": site_pages.decisions(ROOT / "docs" / "decisions"),
        "reference/index.md": site_pages.overview(),
        "reference/commands.md": site_pages.commands(),
        "reference/recipe.md": site_recipe.recipe(),
        "reference/metrics.md": site_pages.metrics(),
        "reference/formats.md": site_pages.formats(),
        "reference/cards.md": site_pages.cards(),
        **{f"reference/python/{name}": page for name, page in site_python.pages().items()},
    }
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()} | generated
    linked = {target for page, text in pages.items() for target in outside(page, text)}
    generated |= {_address(target): _shown(target) for target in sorted(linked) if target not in PAGES}
    for address, text in generated.items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the copies in the site; in the repository they are right as they stand."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        target = _outside(here, link[1])
        return link[0] if target is None else relpath(_address(target), dirname(here) or ".") + (link[2] or "")

    return _LINK.sub(moved, markdown)


def outside(page: str, text: str) -> list[str]:
    """Files of the repository, outside docs/, that a page links to; paths from the repository's root."""
    return [target for link in _LINK.finditer(text) if (target := _outside(page, link[1])) is not None]


def _outside(page: str, link: str) -> str | None:
    """Where a link leads from the repository's root; None where it stays in docs/, or there is no such file."""
    if page.startswith(f"{OUTSIDE}/"):
        page = f"../{page.removeprefix(f'{OUTSIDE}/')}"
    target = normpath(f"docs/{dirname(page)}/{link}")
    if target in PAGES:
        return target
    inside = target.startswith(("../", "docs/", "/"))
    return None if inside or not (ROOT / target).is_file() else target


def _address(target: str) -> str:
    if target in PAGES:
        return PAGES[target]
    return f"{OUTSIDE}/{target}" if target.endswith(".md") else f"{OUTSIDE}/{target}.md"


def _shown(target: str) -> str:
    """A file as a page; what is no Markdown stands there as it is, and is not searched."""
    text = (ROOT / target).read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(target).suffix, "text")
    return f"---\nsearch: {{exclude: true}}\n---\n\n# {target}\n\n````{language}\n{text.rstrip()}\n````\n"
