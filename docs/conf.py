"""How the documentation site is built: `make site`. Pages are Markdown, the reference comes from the docstrings."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

project = "memory-circuits"
author = "the authors of memory-circuits"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "images"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# `ref.python`: a type of a signature by a name that two modules have is linked to the first of them.
suppress_warnings = ["myst.header", "ref.python"]
autodoc_default_options = {"members": True, "ignore-module-all": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = "memory-circuits"
html_copy_source = False
html_show_copyright = False

PACKAGES = ("probes", "circuits", "workbench")
# Scripts that Streamlit runs: importing them draws.
SCRIPTS = ("workbench.app",)
CODE = re.compile(r"`+([^`]+)`+")
MARKUP = re.compile(r"([*|_\\])")
LIST = re.compile(r"\s*(?:[-*]|\d+\.)\s")


def translate(text: str) -> str:
    """A line of a docstring, where single backticks are code and all else is plain, as reStructuredText."""
    pieces = CODE.split(text)
    return "".join(
        f"\\ ``{piece}``\\ " if place % 2 else MARKUP.sub(r"\\\1", piece) for place, piece in enumerate(pieces)
    )


def read_docstring(app, what, name, obj, options, lines) -> None:
    """Translate a docstring: indented blocks are shown as they stand, inline code and plain text as such."""
    found, literal = [], False
    for place, line in enumerate(lines):
        previous = next((one for one in reversed(lines[:place]) if one.strip()), "")
        begins = line.startswith("    ") and (not place or not lines[place - 1].strip())
        if begins and not literal and not LIST.match(previous):
            found += ["::", ""]
            literal = True
        elif line.strip() and not line.startswith("    "):
            literal = False
        found.append(line if literal else translate(line))
    # Code over a line break would be code without an end: such spans are joined before they are translated.
    lines[:] = found


def join_spans(app, what, name, obj, options, lines) -> None:
    """Join lines between which a span of code is open."""
    joined: list[str] = []
    for line in lines:
        if joined and joined[-1].count("`") % 2:
            joined[-1] = f"{joined[-1]} {line.strip()}"
        else:
            joined.append(line)
    lines[:] = joined


def list_modules(package: str) -> list[str]:
    """Modules of a package, by name."""
    root = Path(str(files(package)))
    names = [".".join((package, *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.py")]
    return sorted(name for name in names if not name.endswith("__init__") and name not in SCRIPTS)


def write_reference(app) -> None:
    """A page a package below `reference/`, from the modules that there are."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", ""]
        for name in list_modules(package):
            lines += [name, "-" * len(name), "", f".. automodule:: {name}", ""]
        page, text = folder / f"{package}.rst", "\n".join(lines)
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def setup(app) -> None:
    """Connect what is above."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", join_spans, priority=400)
    app.connect("autodoc-process-docstring", read_docstring)
