"""Figures: one layout for screen and paper, charts whose marks stand where the numbers say, captions that tell all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.errors import UserError
from workbench.cli import main
from workbench.commands.specificity import save_table
from workbench.costs.formats import Usage, compare_formats
from workbench.costs.shapes import read_shape
from workbench.figures.axes import COLUMNS, Frame, Scale
from workbench.figures.charts import draw_costs, draw_faithfulness, draw_specificity, draw_waterfall
from workbench.figures.circuits import draw_circuit
from workbench.figures.kinds import KINDS, Wish, draw_figure
from workbench.figures.maps import draw_map
from workbench.figures.reading import read_svg
from workbench.figures.scene import Label, Scene, Shape, list_corners, trace_path
from workbench.figures.themes import THEMES
from workbench.figures.vector import write_scene
from workbench.importing import read_circuit
from workbench.ledgers.table import Entry, Ledger, save_ledgers
from workbench.lens_tables import LensTable
from workbench.library import find_shipped
from workbench.runs import Run
from workbench.view_files import SavedView, save_view
from workbench.views.curation import Curation, Group
from workbench.views.layout import lay_out
from workbench.views.style import NEGATIVE
from workbench.views.svg import view_run
from workbench.views.text import show_line


def list_labels(scene: Scene) -> list[str]:
    """Texts of a scene."""
    return [mark.text for mark in scene.marks if isinstance(mark, Label)]


def list_shapes(scene: Scene) -> list[Shape]:
    """Outlines of a scene."""
    return [mark for mark in scene.marks if isinstance(mark, Shape)]


def make_ledger(**changes: Any) -> Ledger:
    """A ledger of three formats."""
    entries = tuple(
        Entry(name, kind, f"label of {name}", share, share, share, (), 0, share, 0.0)
        for name, kind, share in (("anchor", "anchor", -1.5), ("memory 1", "explicit", 4.0), ("level 1", "bank", 0.5))
    )
    ledger = Ledger(
        "f<&>", "The capital is", " Paris", " Rome", "logit-diff", "logits", "renormalised", 3.0, 0.0, entries, (), (),
        True,
    )  # fmt: skip
    return replace(ledger, **changes)


def test_paths_become_absolute_steps_whose_curves_are_the_same() -> None:
    steps = trace_path("M1 2H5V8l1 1Q8 9 8 12C1 1 2 2 3 3Z")
    assert [letter for letter, _ in steps] == list("MLLLCCZ")
    assert steps[3][1] == ((6.0, 9.0),)
    # A quadratic curve at its middle is (start + 2 pull + end) / 4; a cubic one weighs 1 3 3 1.
    start, (one, two, end) = (6.0, 9.0), steps[4][1]
    middle = [(start[i] + 3 * one[i] + 3 * two[i] + end[i]) / 8 for i in (0, 1)]
    assert middle == pytest.approx([(6 + 2 * 8 + 8) / 4, (9 + 2 * 9 + 12) / 4])


def test_a_circle_of_two_arcs_goes_around() -> None:
    steps = trace_path("M-3 0A3 3 0 1 1 3 0A3 3 0 1 1 -3 0Z")
    ends = [points[-1] for letter, points in steps if letter != "Z"]
    assert ends == [pytest.approx(end) for end in ((-3, 0), (0, -3), (3, 0), (0, 3), (-3, 0))]


def test_the_figure_has_every_mark_of_the_screen(run: Run) -> None:
    drawing = lay_out(run.circuit, run.tokens, view_run(run))
    scene = draw_circuit(run, COLUMNS[2])
    texts = list_labels(scene)
    for glyph in drawing.glyphs:
        assert not glyph.label or show_line(glyph.label) in texts
    assert sum(not shape.fill and bool(shape.title) for shape in list_shapes(scene)) == len(drawing.lines)
    assert scene.width <= COLUMNS[2] + 1e-6


@pytest.mark.parametrize("columns", COLUMNS)
def test_nothing_leaves_the_paper(run: Run, columns: int) -> None:
    scene = draw_circuit(run, COLUMNS[columns])
    assert scene.width <= COLUMNS[columns] + 1e-6
    for mark in scene.marks:
        for x, y in list_corners(mark):
            assert -0.5 <= x <= scene.width + 0.5 and -0.5 <= y <= scene.height + 0.5


def test_a_scene_comes_back_from_its_svg(run: Run) -> None:
    scene = draw_circuit(run, COLUMNS[2])
    again = read_svg(write_scene(scene))
    assert list_labels(again) == [show_line(text) for text in list_labels(scene)]
    assert len(again.marks) == len(scene.marks)


def test_grey_has_no_colour_and_what_hurts_is_dashed_as_on_screen(run: Run) -> None:
    found = draw_figure("circuit", [(Path("r"), run)], Wish(theme="grey")).scene
    for mark in found.marks:
        for colour in (mark.colour,) if isinstance(mark, Label) else (mark.fill, mark.stroke):
            red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5)) if colour else (0, 0, 0)
            # The ink's own shade is close to grey.
            assert max(red, green, blue) - min(red, green, blue) <= 24
    plain = draw_figure("circuit", [(Path("r"), run)], Wish()).scene
    edges = [mark for mark in list_shapes(plain) if not mark.fill and " → " in mark.title]
    assert len(edges) == len(run.circuit.edges)
    assert all(bool(mark.dash) == (mark.stroke == NEGATIVE) for mark in edges)


def test_the_map_has_a_square_a_cell_and_strikes_negative_ones_in_grey(run: Run) -> None:
    from workbench.views.figures import sum_scores

    table = sum_scores(run)[0]
    cells = int((~np.isnan(table)).sum())
    squares = [shape for shape in list_shapes(draw_map(run, COLUMNS[1], THEMES["screen"])) if shape.title]
    assert len(squares) == cells
    struck = [shape for shape in list_shapes(draw_map(run, COLUMNS[1], THEMES["grey"])) if shape.stroke]
    assert len(struck) == int((table < -0.02 * np.nanmax(np.abs(table))).sum())
    assert "<image" not in write_scene(draw_map(run, COLUMNS[1], THEMES["screen"]))


def test_a_difference_is_drawn_with_every_edge_of_either(build_run: Callable[..., Run]) -> None:
    first, second = build_run(), build_run(seed=1)
    found = draw_figure("difference", [(Path("a"), first), (Path("b"), second)], Wish())
    union = {(e.writer, e.reader, e.role) for run in (first, second) for e in run.circuit.edges}
    assert sum(" → " in mark.title for mark in list_shapes(found.scene)) == len(union)
    both = len(first.circuit.edges) + len(second.circuit.edges) - len(union)
    assert f"{both} in both, {len(first.circuit.edges) - both} in the first alone" in found.caption
    assert any("larger in the second run" in text for text in list_labels(found.scene))


def test_what_is_on_the_screen_is_in_the_figure_and_in_the_viewer_s_file(
    run_folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned, *members = [node.id for node in run.circuit.nodes if node.component.layer in (0, 1)][:3]
    state = Curation(
        pinned=(pinned,), groups=(Group("group:1", "mine & <yours>", tuple(members)),), notes=((pinned, "look $here"),)
    )
    view = save_view(run_folder, SavedView(20, pinned, state))
    for name in ("c.tex", "c.svg"):
        assert main(["figure", "circuit", str(run_folder), "--view", view, "--out", str(tmp_path / name)]) == 0
    assert f"--view {view}" in (tmp_path / "c.svg.caption.txt").read_text()
    labels = list_labels(read_svg((tmp_path / "c.svg").read_text()))
    assert any("mine & <yours>" in text for text in labels) and any("look $here" in text for text in labels)
    assert r"look \$here" in (tmp_path / "c.tex").read_text()
    graph = tmp_path / "graphs" / "norland.json"
    words = ["export", str(run_folder), "--to", "attribution-graph", "--view", view, "--out", str(graph)]
    assert main(words) == 0
    found = read_circuit(graph.read_bytes())
    assert (found.pinned, found.groups) == ((pinned,), {"mine & <yours>": members})
    assert "supernodes=%5B%5B%22mine" in (graph.parent / "norland.query.txt").read_text()
    capsys.readouterr()
    assert main(["export", str(run_folder), "--to", "csv", "--view", view, "--out", str(tmp_path / "e.csv")]) == 2
    assert "--view is for pictures" in capsys.readouterr().err
    assert main(["figure", "circuit", str(run_folder), "--view", "0" * 12, "--out", str(tmp_path / "no.svg")]) == 2
    assert "no such saved view" in capsys.readouterr().err


def test_bars_of_the_waterfall_end_where_the_sum_does() -> None:
    scene = draw_waterfall(make_ledger(), COLUMNS[1])
    bars = [shape for shape in list_shapes(scene) if shape.title]
    spans = [sorted((shape.steps[0][1][0][0], shape.steps[1][1][0][0])) for shape in bars]
    per_logit = (spans[1][1] - spans[1][0]) / 4.0
    assert [round((right - left) / per_logit, 3) for left, right in spans] == [1.5, 4.0, 0.5, 3.0]
    # The margin's bar starts at 0, where the first one did, and ends where the last one does.
    assert spans[3] == pytest.approx([spans[0][1], spans[2][1]])


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0, 1).list_ticks(5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert Scale(0.1, 100, True).list_ticks(9) == [0.1, 1, 10, 100]
    assert Scale(-3, 16).list_ticks(4) == [0, 5, 10, 15]
    frame = Frame(10, 20, 100, 50, Scale(1, 100, True), Scale(0, 2))
    assert frame.place(10, 1) == (60, 45)


def test_curves_scatter_and_costs_draw_their_points() -> None:
    curve = {"shares": [0.001, 0.01, 1.0], "faithfulness": [0.1, 0.6, 1.0]}
    curves = {"absolute": curve, "signed": curve, "random": curve, "draws": 3}
    assert sum(len(shape.steps) > 5 for shape in list_shapes(draw_faithfulness(curves, COLUMNS[1]))) == 9
    rows = [{"component": f"a0.h{n}", "index": n / 4, "largest": n - 2.0, "label": "specific"} for n in range(4)]
    scene = draw_specificity([*rows, {"component": "m1", "index": None, "largest": 0.0, "label": "inert"}], COLUMNS[1])
    assert sum(": index" in shape.title for shape in list_shapes(scene)) == 4
    with pytest.raises(UserError, match="no component"):
        draw_specificity([{"component": "m1", "index": None, "largest": 0.0, "label": "inert"}], COLUMNS[1])
    formats = compare_formats(read_shape(find_shipped() / "model"), Usage(3, 3))
    low, high = formats.interval
    labels = list_labels(draw_costs(formats, COLUMNS[1]))
    assert {f"{low:.4g}", f"{high:.4g}"} <= set(labels)


def test_the_caption_says_what_a_reader_needs(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.svg"
    assert (
        main(["figure", "circuit", str(run_folder), "--edges", "9", "--columns", "1", "--out", str(out), "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    caption = (tmp_path / "c.svg.caption.txt").read_text().strip()
    assert caption == document["caption"]
    for needed in ("9 strongest of 30", "Faithfulness of all 30 edges: 0.870",
                   "n = 1 prompt pair", "Method: EAP", "ablation: Counterfactual", "in logits",
                   "sha256 000000000000", "sha256 111111111111", "sha256 222222222222",
                   "memory-circuits figure circuit", "--edges 9",
                   "memory-circuits trace --fact norland-capital"):  # fmt: skip
        assert needed in caption
    assert document["width_points"] <= COLUMNS[1] + 0.01


def prepare_figure(kind: str, folder: Path) -> list[str]:
    """Arguments of a kind of figure: a run's folder with all that any kind needs, or a table beside it."""
    about = {"model": {"name": "m", "sha256": "0" * 64}, "bank": "1" * 64, "memory": "2" * 64}
    save_ledgers([make_ledger()], about, folder / "ledger.json")
    curve = {"shares": [0.001, 1.0], "faithfulness": [0.1, 1.0], "edges": [1, 9], "cpr": 1.0, "cmd": 0.0}
    quality = {"format": "memory-circuits/quality", "version": 1,
               "curves": {"absolute": curve, "signed": curve, "random": curve, "draws": 3}}  # fmt: skip
    (folder / "quality.json").write_text(json.dumps(quality))
    table = folder.parent / "t.parquet"
    about |= {"facts": 5, "relations": 2, "items": 10, "method": "zero ablation, exact"}
    about |= {"metric": "log-odds", "unit": "nats", "command": "memory-circuits specificity"}
    save_table(table, [{"component": "a0.h0", "index": 0.5, "largest": 1.0, "label": "specific"}], about)
    return [str(table)] if kind == "specificity" else [str(folder)] * KINDS[kind].count


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].torch])
@pytest.mark.parametrize("suffix", [".svg", ".tex", ".html"])
def test_every_kind_is_drawn_twice_alike(kind: str, suffix: str, run_folder: Path, tmp_path: Path) -> None:
    names = prepare_figure(kind, run_folder)
    outs = [tmp_path / name / f"f{suffix}" for name in ("one", "two")]
    for out in outs:
        assert main(["figure", kind, *names, "--theme", "colour-blind", "--out", str(out)]) == 0
    texts = [out.read_text().replace("/one/", "/two/") for out in outs]
    assert texts[0] == texts[1] and len(texts[0]) > 500


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_whole_caption(
    kind: str, run_folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n, method, ablation, metric, hashes of model and memories, and the command that draws the figure again."""
    size = len(run.tokens)
    shares = ((0.5,) * size,) * 2
    table = LensTable(
        tuple(run.tokens), tuple(range(size)), (("x",) * size,) * 2, shares, "x", shares, ((1,) * size,) * 2
    )
    monkeypatch.setattr("workbench.lens_tables.read_run", lambda run, tick: table)
    out = tmp_path / "f.svg"
    assert main(["figure", kind, *prepare_figure(kind, run_folder), "--out", str(out)]) == 0
    caption = out.with_name("f.svg.caption.txt").read_text()
    for needed in (r"n = \d+", "Method: ", "ablation: ", "metric: ", *(f"sha256 {digit * 12}" for digit in "012"),
                   f"Drawn by: memory-circuits figure {kind} "):  # fmt: skip
        assert re.search(needed, caption), f"{needed} is not in: {caption}"
    assert "not stated" not in caption


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["circuit", "RUN", "--out", "x.gif"], "must end in one of"),
        (["difference", "RUN", "--out", "x.svg"], "1 arguments were given, 2 wanted"),
        (["ledger", "RUN", "--out", "x.svg"], "has no ledger.json: make it with"),
        (["faithfulness", "RUN", "--out", "x.svg"], "has no curves: measure them"),
        (["attention", "RUN", "--head", "m1", "--out", "x.svg"], "is no head of this model"),
        (["circuit", "nowhere", "--out", "x.svg"], "no run at"),
        (["circuit", "RUN", "--edges", "0", "--out", "x.svg"], "give 1 or more"),
        (["specificity", "TEXT", "--out", "x.svg"], "is not a table of"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    arguments: list[str],
    message: str,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no table")
    places = {"RUN": str(run_folder), "TEXT": str(tmp_path / "text.txt")}
    assert main(["figure", *(places.get(word, word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_notebooks_show_runs_circuits_and_ledgers_without_markup_of_tokens(build_run: Callable[..., Run]) -> None:
    run = build_run(tokens=("<script>", "<b>", " of", " x", " is"))
    shown = (run._repr_html_(), run.circuit._repr_html_(), make_ledger(prompt="<script>")._repr_html_())
    assert "<svg" in shown[0] and "<table>" in shown[1] and "<svg" in shown[2] and "<table>" in shown[2]
    assert not any("<script" in text or "<b>" in text for text in shown)
