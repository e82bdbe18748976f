"""The layout: imports go down the layers and never in circles, files stay readable, nothing from
outside is executed, and words are those of the field."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "main": 6,
    "synthetic": 5,
    "models": 4,
    "datasets": 4,
    "open_body": 4,
    "human_models": 3,
    "configs": 2,
    "utils": 1,
}
FILES = sorted(path for folder in LAYERS for path in (ROOT / folder).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def name(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_folders(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down(path):
    own = path.relative_to(ROOT).parts[0]
    for other in imported_folders(path):
        assert other not in {"tests", "benchmarks", "smplx", "anny"}, f"imports {other}"
        if other in LAYERS and other != own:
            assert LAYERS[other] < LAYERS[own], f"{own} (layer {LAYERS[own]}) imports {other}"
            assert other != "open_body", "imports what only builds files"


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_modules_import_each_other():
    """Those that are imported when a module is loaded, and not only for its types."""
    modules = {module_name(path): path for path in FILES}
    imports = {}
    for module, path in modules.items():
        found = imports.setdefault(module, set())
        for node in tree(path).body:
            if isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                found |= inner or ({node.module} & modules.keys())
    list(TopologicalSorter(imports).static_order())  # raises where there is a circle


TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "scripts/*.sh", "tests/**/*.py")
    for path in ROOT.glob(pattern)
    if path != Path(__file__)
)
OUR_OWN_WORDS = re.compile(
    r"\b(doors?|medium|courses?|told|tells|glances?|one_tells|companions?|sightings?)\b"
    r"|so-manieth|\ba (file|row|line) a \w+",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", FILES + BENCHMARKS + TEXTS, ids=name)
def test_words_are_those_of_the_field(path):
    """None of the words that this project once had for commands, sources, recipes and reports."""
    text = path.read_text(encoding="utf-8").replace('precision("medium")', "")
    text = text.replace('precision() == "medium"', "")
    assert not [match[0] for match in OUR_OWN_WORDS.finditer(text)]


@pytest.mark.parametrize("path", FILES + BENCHMARKS, ids=name)
def test_file_is_at_most_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


FORBIDDEN_CALLS = {"eval", "exec", "print", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {"cuda", "load_module", "system", "popen"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_executed_and_devices_are_passed_in(path):
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        where = f"{name(path)}:{node.lineno}"
        match node.func:
            case ast.Name(id=called):
                assert called not in FORBIDDEN_CALLS, f"{where} calls {called}"
            case ast.Attribute(attr=called, value=ast.Name(id="pickle")):
                assert called not in {"load", "loads"}, f"{where} unpickles without restriction"
            case ast.Attribute(attr=called):
                assert called not in FORBIDDEN_ATTRIBUTES, f"{where} calls .{called}()"
        for keyword in node.keywords:
            value = getattr(keyword.value, "value", None)
            assert (keyword.arg, value) not in {
                ("allow_pickle", True),
                ("weights_only", False),
                ("strict", False) if isinstance(node.func, ast.Attribute) else (),
            }, f"{where} says {keyword.arg}={value}"


@pytest.mark.parametrize("folder", LAYERS)
def test_every_code_folder_is_a_package(folder):
    if (ROOT / folder).is_dir():
        assert (ROOT / folder / "__init__.py").is_file()


SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script_is_short_and_posix(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 42
    assert text.startswith("#!/bin/sh\n")
    assert "[[" not in text
    assert "set -eu" in text
