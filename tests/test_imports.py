"""The house rules that a reader of the source can check: who imports whom, what stays lazy, what is never used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each package with those that it may import: pages -> workbench -> circuits -> probes. The entry of the browser app,
# which Streamlit runs and nothing imports, stands above the pages that it lists.
ENTRY = Path("workbench/app.py")
ORDER = ("pages", "workbench", "circuits", "probes")
HEAVY = ("torch", "transformer_lens", "transformers", "sentence_transformers")
# Modules that must open without a network library; saved runs, lists and exports rest on them.
LIGHT = (
    "circuits.circuit",
    "circuits.graph",
    "probes.errors",
    "probes.facts",
    "workbench.cli",
    "workbench.commands.reference",
    "workbench.doctor",
    "workbench.exports",
    "workbench.library",
    "workbench.pipeline",
    "workbench.runs",
    "workbench.settings",
    "workbench.storage",
)
# How a saved object could run code, or text become markup.
FORBIDDEN = re.compile(
    r"\b(?:import|from)\s+(?:pickle|cPickle|dill|marshal|shelve|cloudpickle)\b|allow_pickle\s*=\s*True|\btorch\.load\("
    r"|unsafe_allow_html|innerHTML|outerHTML|insertAdjacentHTML|document\.write\(|(?<![.\w])(?:eval|exec)\(|shell\s*=\s*True"
)


def list_sources(*packages: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    """Source files of these packages, relative to the repository."""
    return sorted(
        path.relative_to(ROOT)
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    )


SOURCES = list_sources(*ORDER)


def parse(path: Path) -> ast.Module:
    """Syntax tree of a source file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def list_imports(tree: ast.AST) -> Iterator[str]:
    """Names of the modules that a tree imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path: Path, library: str) -> bool:
    """Whether a file imports a library or anything in it."""
    return any(name == library or name.startswith(f"{library}.") for name in list_imports(parse(path)))


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    allowed = ORDER if path == ENTRY else ORDER[ORDER.index(path.parts[0]) :]
    wrong = {name for name in list_imports(parse(path)) if name.split(".")[0] in ORDER} - {
        name for name in list_imports(parse(path)) if name.split(".")[0] in allowed
    }
    assert not wrong
    assert not imports(path, "tests")
    assert not imports(path, "workbench.app")


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("streamlit", ("pages/", "workbench/app.py")),
        ("plotly", ("workbench/views/",)),
        ("transformer_lens", ("probes/models.py",)),
        ("rich", ("workbench/commands/terminal.py",)),
    ],
)
def test_a_library_stays_in_its_room(library: str, homes: tuple[str, ...]) -> None:
    assert [str(path) for path in SOURCES if imports(path, library) and not str(path).startswith(homes)] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_file_says_in_its_first_lines_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(parse(path))
    assert docstring
    assert docstring.split("\n")[0].endswith((".", ":", "?")), "the caption is one sentence on one line"


@pytest.mark.parametrize("path", list_sources(*ORDER, suffixes=(".py", ".js", ".html")), ids=str)
def test_nothing_runs_code_or_markup_from_data(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    found = [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]
    assert not found


def list_probed() -> set[str]:
    """Packages that transformers looks for by name and uses when it finds one, even one of ours."""
    found = find_spec("transformers")
    assert found is not None and found.origin is not None
    source = (Path(found.origin).parent / "utils" / "import_utils.py").read_text(encoding="utf-8")
    return set(re.findall(r'_is_package_available\(\s*"(\w+)"', source))


def test_transformers_probes_packages_by_name() -> None:
    assert {"datasets", "accelerate"} <= list_probed()


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] == "workbench"], ids=str)
def test_no_module_beside_the_app_hides_another(path: Path) -> None:
    if len(path.parts) == 2:
        assert path.stem not in sys.stdlib_module_names
        assert path.stem not in list_probed()
        assert path.stem not in ORDER


@pytest.mark.parametrize("module", LIGHT)
def test_opening_what_is_saved_imports_no_network_library(module: str) -> None:
    program = f"import sys, {module}; sys.exit(', '.join(set(sys.modules) & {set(HEAVY)}) or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_pages_rest_on_imports_no_network_library() -> None:
    scripts = {"ask", "circuit", "knowledge", "memory", "placement", "runs", "sweeps"}
    paths = [*list_sources("workbench/views"), *(path for path in list_sources("pages") if path.stem not in scripts)]
    modules = [".".join(path.with_suffix("").parts) for path in paths] + ["workbench.jobs", "workbench.serving"]
    program = f"import sys, {', '.join(modules)}; sys.exit(', '.join(set(sys.modules) & {set(HEAVY)}) or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", list_sources("pages"), ids=str)
def test_pages_import_no_network_library(path: Path) -> None:
    assert not [library for library in HEAVY if imports(path, library)]


def test_command_modules_import_no_network_library() -> None:
    for path in list_sources("workbench/commands"):
        assert not [library for library in HEAVY if imports(path, library)]


def test_every_data_file_goes_into_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = tuple(pattern.removeprefix("*") for pattern in settings["package-data"]["*"])
    listed = subprocess.run(["git", "ls-files", *ORDER], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    files = listed.split() or [str(path) for path in list_sources(*ORDER, suffixes=(".py", *shipped))]
    assert [name for name in files if not name.endswith((".py", *shipped))] == []
