"""The notebook in docs/ runs from top to bottom, and every cell that ends in a value shows one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; the value of a last expression, None without one."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_cell_runs_and_shows_its_value() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "kept outputs grow old"
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in cells:
        value = run_cell("".join(cell["source"]), names)
        if "main([" in "".join(cell["source"]) and isinstance(value, int):
            assert value == 0
        shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else str(value))
    assert all(text and text != "None" for text in shown)
    assert sum("<svg" in text for text in shown) == 3 and sum("<table" in text for text in shown) >= 3
