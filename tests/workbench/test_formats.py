"""Each format is opened by its own reader, with tokens that try to break out of it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import networkx
import pyarrow.parquet
import pydot
import pytest
from lxml import etree

from probes.errors import UserError
from workbench.exports import EXPORTS
from workbench.exports_tables import TABLES
from workbench.figures.tikz import escape_tex, write_tikz
from workbench.formats.graphs import MOST_EDGES
from workbench.frames import to_networkx, to_pandas, to_polars
from workbench.runs import Run

HOSTILE = [
    "a\\b{}$&#%_~^",
    "\x00\x1b[31m\ud800日本語é",
    "<script>alert(1)</script>&\"']]>",
    '"];n0-->x;%%{init}%%`',
    "--``,,<<?`\\end{document}\\input{/etc/passwd}",
]
# CSV holds tokens as they are: its readers are not to be escaped from, but by a formula (`test_exports.py`).
NOT_PLAIN = ("pdf", "png", *(f"{kind}{table}" for kind in ("parquet", "csv") for table in ("", "-nodes", "-parts")))


@pytest.fixture(scope="module")
def hostile(build_run: Callable[..., Run]) -> Run:
    """A run whose every token is an attack."""
    return build_run(tokens=HOSTILE, edges=60, parts=2)


@pytest.mark.parametrize("name", [name for name in sorted(EXPORTS) if name not in NOT_PLAIN])
def test_text_formats_are_utf8_and_hold_no_control_character(hostile: Run, name: str) -> None:
    text = EXPORTS[name].write(hostile).decode("utf-8")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", text)


def test_pictures_hold_no_script_and_parse_as_xml(hostile: Run) -> None:
    root = etree.fromstring(EXPORTS["svg"].write(hostile), etree.XMLParser(resolve_entities=False))
    tags = {etree.QName(element).localname for element in root.iter()}
    assert "script" not in tags and "image" not in tags


def test_gexf_opens_in_networkx_and_has_no_date(hostile: Run) -> None:
    data = EXPORTS["gexf"].write(hostile)
    assert b"lastmodifieddate" not in data
    graph = networkx.read_gexf(io.BytesIO(data))
    assert {node.id for node in hostile.circuit.nodes} <= set(graph.nodes)
    scores = sorted(data["score"] for *_, data in graph.edges(data=True) if data.get("relation") == "edge")
    assert scores == sorted(edge.score for edge in hostile.circuit.edges)


def test_node_link_opens_in_networkx(hostile: Run) -> None:
    graph = networkx.node_link_graph(json.loads(EXPORTS["node-link"].write(hostile)), edges="links")
    mine = to_networkx(hostile)
    assert set(graph.nodes) == set(mine.nodes) and graph.number_of_edges() == mine.number_of_edges()


# pydot calls names of pyparsing that the newest one warns of.
@pytest.mark.filterwarnings("ignore:.*deprecated - use:DeprecationWarning")
def test_dot_opens_in_pydot_with_exactly_our_nodes_and_edges(hostile: Run) -> None:
    (graph,) = pydot.graph_from_dot_data(EXPORTS["dot"].write(hostile).decode())
    names = {node.get_name().strip('"') for node in graph.get_nodes()} - {"node"}
    assert names == {node.id for node in hostile.circuit.nodes}
    scores = sorted(float(edge.get("score").strip('"')) for edge in graph.get_edges() if edge.get("score"))
    assert scores == sorted(edge.score for edge in hostile.circuit.edges)


def test_mermaid_has_only_lines_that_we_wrote(hostile: Run, build_run: Callable[..., Run]) -> None:
    head, *lines = EXPORTS["mermaid"].write(hostile).decode().splitlines()
    assert head == "flowchart BT"
    label = r'"(?:[^"`<>&;#]|#\d+;)*"'
    form = re.compile(rf"  n\d+\[{label}\]|  n\d+ -->\|{label}\| n\d+|  n\d+ -\.-> n\d+")
    assert all(form.fullmatch(line) for line in lines)
    large = EXPORTS["mermaid"].write(build_run(edges=700)).decode()
    assert large.count("-->") + large.count("-.->") <= MOST_EDGES


@pytest.mark.parametrize("table", sorted(TABLES))
def test_parquet_and_frames_hold_what_the_csv_holds(build_run: Callable[..., Run], table: str) -> None:
    run = build_run(parts=2)
    suffix = "" if table == "edges" else f"-{table}"
    rows = list(csv.DictReader(io.StringIO(EXPORTS[f"csv{suffix}"].write(run).decode(), newline="")))
    read = pyarrow.parquet.read_table(io.BytesIO(EXPORTS[f"parquet{suffix}"].write(run)))
    for frame in (read.to_pandas(), to_pandas(run, table), to_polars(run, table).to_pandas()):
        assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows)
        assert [float(row["score"]) for row in rows] == frame["score"].tolist()


def test_frames_hold_half_a_character_as_its_escape(hostile: Run) -> None:
    for frame in (to_pandas(hostile, "nodes"), to_polars(hostile, "nodes").to_pandas()):
        assert any("\\ud800" in token for token in frame["token"])
    with pytest.raises(UserError, match="no table 'neurons'"):
        to_pandas(hostile, "neurons")


class Tags(HTMLParser):
    """Collects tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def test_the_page_needs_nothing_and_runs_nothing(hostile: Run) -> None:
    page = EXPORTS["html"].write(hostile).decode()
    found = Tags()
    found.feed(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not {name for name in found.names if name.startswith("on") or name in ("src", "href")}
    assert "default-src 'none'" in page
    assert found.tags.count("tr") >= len(hostile.circuit.edges) + len(hostile.circuit.nodes)


def test_pdf_is_vector_with_its_font_and_png_has_pixels(hostile: Run) -> None:
    pytest.importorskip("typst")
    pdf, png = EXPORTS["pdf"].write(hostile), EXPORTS["png"].write(hostile)
    assert pdf.startswith(b"%PDF") and b"/Subtype/Image" not in pdf.replace(b" ", b"") and b"FontFile" in pdf
    assert b"CreationDate" not in pdf
    width = int.from_bytes(png[16:20], "big")
    # Two columns, 6.75 inches, 300 pixels to the inch.
    assert png.startswith(b"\x89PNG") and 0 < width <= 2026


def test_without_typst_the_message_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "typst", None)
    with pytest.raises(UserError, match=r"memory-circuits\[figures\]"):
        EXPORTS["pdf"].write(run)
    assert EXPORTS["tikz"].write(run)


def test_tex_escapes_leave_nothing_that_tex_obeys() -> None:
    text = escape_tex("".join(HOSTILE))
    bare = re.sub(
        r"\\(?:sign\{[0-9A-F]+\}\{.\}|[a-z]+\{[^{}]*\}|[a-z]+\{\\[a-z]+\}|[{}$&#%_ ])", "", text, flags=re.DOTALL
    )
    bare = re.sub(r"\{[-,!?\[\]=*;:]\}", "", bare)
    assert not set(bare) & set("\\{}$&#%_~^`'\"<>|")


def compile_tex(program: str, source: bytes, folder: Path) -> None:
    """Compile a document; fails with TeX's own error line."""
    (folder / "paper.tex").write_bytes(source)
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=240, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, "\n".join(line for line in log.splitlines() if line.startswith("!")) or log[-800:]
    assert (folder / "paper.pdf").stat().st_size > 1000


@pytest.mark.parametrize("program", ["pdflatex", pytest.param("lualatex", marks=pytest.mark.slow)])
def test_tikz_and_tables_compile_with_hostile_tokens(hostile: Run, program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    compile_tex(program, EXPORTS["tikz"].write(hostile), tmp_path)
    fonts = rb"\usepackage[T1]{fontenc}\usepackage{textcomp}" if program == "pdflatex" else rb"\usepackage{fontspec}"
    tables = b"\n".join(EXPORTS[name].write(hostile) for name in ("latex", "latex-nodes", "latex-parts"))
    paper = rb"\documentclass{article}" + fonts + rb"\usepackage{booktabs}\begin{document}" + b"\n" + tables
    compile_tex(program, paper + rb"\end{document}", tmp_path)


def test_a_caption_cannot_leave_its_comment(run: Run) -> None:
    from workbench.figures.scene import Scene

    text = write_tikz(Scene(10, 10, ()), "one\ntwo\r\\input{x}\u2028\\input{y}")
    lines = text.split("\\documentclass")[0].strip().splitlines()
    assert lines and all(line.startswith("%") for line in lines)
