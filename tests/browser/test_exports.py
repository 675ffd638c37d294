"""Pictures and pages that are handed on, opened in Chromium without a server: nothing fetched, run or complained of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.exports import EXPORTS
from workbench.figures.kinds import Wish, draw_figure
from workbench.figures.vector import write_scene
from workbench.formats.page import write_page
from workbench.runs import Run

HOSTILE = ["<script>alert(1)</script>", "\"'><img src=http://a.test/x onerror=alert(1)>", "]]>&amp;", "日本語é", "\x00"]


def list_files(run: Run, folder: Path) -> list[Path]:
    """Every picture and page of a run, as `export` and `figure` write them."""
    files = [(f"export.{name}", EXPORTS[name].write(run)) for name in ("svg", "html")]
    for kind in ("circuit", "map", "attention"):
        figure = draw_figure(kind, [(folder, run)], Wish(command="memory-circuits figure"))
        picture = write_scene(figure.scene, figure.caption)
        files += [(f"{kind}.svg", picture.encode()), (f"{kind}.html", write_page(kind, picture, figure.caption))]
    for name, data in files:
        (folder / name).write_bytes(data)
    return [folder / name for name, _ in files]


@pytest.mark.parametrize("tokens", [None, HOSTILE])
def test_what_is_handed_on_opens_by_itself(
    browser: Any, build_run: Callable[..., Run], tokens: list[str] | None, tmp_path: Path
) -> None:
    """No request but for the file, no message of the console, no dialog; a picture is drawn."""
    run = build_run(tokens=tokens) if tokens else build_run()
    for path in list_files(run, tmp_path):
        page, seen, said = browser.new_page(), list[str](), list[str]()
        page.on("request", lambda request, seen=seen: seen.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        assert (seen, said) == ([path.as_uri()], []), path.name
        assert page.locator("svg path").first.bounding_box() is not None, path.name
        assert page.locator("script").count() == 0
        page.close()
