"""Every block of the documents: commands are parsed, recipes are read, Python runs, and what is marked so is run."""

import ast
import contextlib
import importlib
import io
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from backends.devices import parse_devices
from precision.document import Document
from precision.recipe import RecipeError, load_recipe
from precision.schema import recipe_schema
from precision_search import wire
from precision_search.main import build_parser, main
from tests.docs.blocks import LANGUAGES, ROOT, Block, agrees, blocks, commands, pages

PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in pages()}
BLOCKS = {name: found for name, text in PAGES.items() if (found := blocks(text))}
MARKS = re.compile(r"|run|prints|each line|file [\w.]+|part of [\w.]+|not run: .{10,}|excerpt of .{10,}")
OTHERS = ("cd", "git", "open", "ray", "scp", ".")
"""Programs that are not ours."""
EXPORTED = ("run.py", "build.py")
"""What an exported folder has, where no page has to show it."""
PLACEHOLDER = re.compile(r"[A-Z_]+|[ab]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a page, from which its modules are imported."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if path)])
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", BLOCKS)
def test_blocks_are_of_a_kind_that_is_tested(page):
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, f"{page}:{block.line}: ```{block.language}"
        assert MARKS.fullmatch(block.mark), f"{page}:{block.line}: {block.mark}"
    for block, shown in zip([None, *BLOCKS[page]], BLOCKS[page], strict=False):
        if shown.mark == "prints":
            assert block is not None
            assert block.mark == "run" or block.language == "python", f"{page}:{shown.line}: nothing prints it"


@pytest.mark.parametrize("page", BLOCKS)
def test_commands_are_as_the_parser_has_them(page):
    for block in BLOCKS[page]:
        for command in commands(block.text) if block.language == "sh" else ():
            mistake = wrong(command, files_of(page))
            assert mistake is None, f"{page}:{block.line}: {command}: {mistake}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_are_as_the_parser_has_them(page):
    prose = re.sub(r"^ *(`{3,}).*?^ *\1$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"`(precision-search [^`]+)`", prose):
        mistake = wrong(re.sub(r"\[(--[^]]*)\]", r"\1", command), files_of(page))
        # A sentence may show a part of a command.
        assert mistake is None or "arguments are required" in mistake, f"{page}: {command}: {mistake}"


@pytest.mark.parametrize("page", BLOCKS)
def test_blocks_do_what_the_page_says(page, folder):
    space, printed = {"__name__": "page"}, ""
    for block in BLOCKS[page]:
        where = f"{page}:{block.line}"
        if block.mark.startswith("file "):
            (folder / block.mark.removeprefix("file ")).write_text(block.text)
        if block.mark == "prints":
            assert agrees(printed, block.text), f"{where}: printed was\n{printed}"
        elif block.mark.startswith(("not run", "excerpt")):
            if block.language == "python" and block.mark.startswith("not run"):
                names_exist(block.text, where)
        elif block.language == "python" and not block.mark.startswith("file "):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(block.text, where, "exec"), space)
            printed = said.getvalue()
        elif block.language == "sh" and block.mark == "run":
            printed = "".join(ran(command, where) for command in commands(block.text))
        elif block.language == "yaml":
            read(block, where)


def files_of(page):
    return {block.mark.removeprefix("file ") for block in BLOCKS.get(page, ()) if block.mark.startswith("file ")}


def studies():
    """Studies that commands of the pages write: those of the package's recipes, and where --out says so."""
    named = {match[1] for text in PAGES.values() for match in re.finditer(r"--out (studies/\w+)", text)}
    return named | {f"studies/{name}" for name in wire.packaged_recipes()}


def ran(command, where):
    """Run a command of ours, which must end well; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    assert ended.value.code == 0, f"{where}: {command}"
    return said.getvalue()


def wrong(command, written=frozenset()):
    """What is wrong with a command of ours, or None; of programs of others only that they are known."""
    words = shlex.split(command.replace("<this repository>", "URL"))
    if words[0] == "precision-search":
        return wrong_command(words[1:], written)
    if words[0] == "make":
        rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if set(words[1:]) <= set(rules) else f"the Makefile has {rules}"
    if words[0] == "pip":
        return wrong_install(words[1:])
    if words[0] in ("python", "python3.12"):
        return wrong_program(words[1:])
    return None if words[0] in OTHERS else f"no program is known as {words[0]}"


def wrong_install(words):
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    named = [match[1] for word in words if (match := re.match(r"(?:precision-search|\.)\[(\w[\w-]*)\]", word))]
    return next((f"there is no extra {extra}" for extra in named if extra not in extras), None)


def wrong_program(words):
    if words[0] == "-m":
        path = ROOT / words[1].replace(".", "/")
        there = words[1] == "venv" or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        return None if there else f"there is no module {words[1]}"
    there = words[0] in EXPORTED or (ROOT / words[0]).is_file()
    return None if there else f"there is no {words[0]}"


def wrong_command(words, written):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parsed = vars(build_parser().parse_args([word for word in words if word != "..."]))
    except SystemExit as ended:
        return None if ended.code == 0 else said.getvalue().splitlines()[-1]
    for override in parsed.get("set") or ():
        if (key := override.partition("=")[0]) and not known_key(key):
            return f"a recipe has no key {key}"
    if (card := parsed.get("device")) and card not in (*wire.devices(), "CARD"):
        return f"there is no card {card}"
    if (recipe := parsed.get("recipe")) and not recipe_exists(recipe, written):
        return f"there is no recipe {recipe}"
    named = [str(study) for study in (parsed.get("study"), *(parsed.get("studies") or ())) if study]
    missing = [study for study in named if not study_exists(study)]
    return f"no command makes {', '.join(missing)}" if missing else None


def known_key(key):
    """Whether a recipe may have a key; names of one's own stand where the schema has any."""
    schema = recipe_schema()
    node = schema
    for step in key.split("."):
        branches = [node, *node.get("anyOf", ()), *node.get("oneOf", ())]
        branches = [schema["$defs"][one["$ref"].rsplit("/", 1)[-1]] if "$ref" in one else one for one in branches]
        inner = [
            branch.get("properties", {}).get(step)
            or next(iter(branch.get("patternProperties", {}).values()), None)
            or (branch["additionalProperties"] if isinstance(branch.get("additionalProperties"), dict) else None)
            for branch in branches
        ]
        node = next((one for one in inner if one), None)
        if node is None:
            return False
    return True


def recipe_exists(recipe, written):
    # One of one's own is written by `init`, or by who reads the page.
    own = recipe.endswith(".yaml") and "/" not in recipe
    placeholder = PLACEHOLDER.fullmatch(recipe) is not None
    return placeholder or own or recipe in wire.packaged_recipes() or (ROOT / recipe).is_file() or recipe in written


def study_exists(study):
    placeholder = PLACEHOLDER.fullmatch(study.removeprefix("studies/")) is not None
    # `plan` and `export` take a recipe, too, for its baseline.
    return placeholder or study in studies() or study in wire.packaged_recipes()


def names_exist(code, where):
    """Hold a block that cannot run here against what it imports of ours."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (ROOT / str(node.module).partition(".")[0]).is_dir():
            module = importlib.import_module(str(node.module))
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{where}: {node.module} has no {missing}"


def read(block: Block, where: str) -> None:
    """Read YAML as what it is: cards, a recipe, a line of alternatives each, or a part of a recipe in a whole one."""
    parts = block.text.splitlines() if block.mark == "each line" else [block.text]
    for part in parts:
        data = yaml.safe_load(part)
        if "devices" in data:
            parse_devices(part)
            continue
        try:
            load_recipe(part if "version" in data else whole(block, part, data), wire.known_names())
        except RecipeError as error:
            pytest.fail(f"{where}: {error}")


def whole(block: Block, part: str, data: dict) -> str:
    """A packaged recipe with a part of it replaced: the keys of the part, or those below the section that it shows."""
    named = block.mark.removeprefix("part of ") if block.mark.startswith("part of ") else ""
    base = named if named in wire.packaged_recipes() else "tts_blackhole"
    recipe = yaml.safe_load((ROOT / "recipes" / f"{base}.yaml").read_text(encoding="utf-8"))
    assert not Document.parse(part).mistakes, part
    if named and named != base:
        recipe[named] |= data
    else:
        recipe |= data
    return yaml.safe_dump(recipe, sort_keys=False)


def test_a_page_that_says_what_is_not_so_is_told():
    assert wrong("precision-search run nowhere") == "there is no recipe nowhere"
    assert "invalid choice" in wrong("precision-search jump")
    assert "unrecognized arguments" in wrong("precision-search run tts_blackhole --loud")
    assert "no key" in wrong("precision-search run tts_blackhole --set serach.seed=1")
    assert "no command makes" in wrong("precision-search report studies/none")
    assert "no extra" in wrong("pip install 'precision-search[gpu]'")
    assert "no module" in wrong("python -m backends.nothing")
    assert not agrees("one\ntwo\n", "one\nthree\n")
    assert agrees("one\ntwo\nthree\n", "one\n...\nthree\n")


def test_marks_go_with_the_next_block():
    page = "<!-- test: run -->\n```sh\nls\n```\n\n<!-- test: run -->\nwords\n```text\nls\n```\n"
    assert [(block.line, block.mark) for block in blocks(page)] == [(3, "run"), (9, "")]
