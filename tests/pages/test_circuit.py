"""The Circuit and Runs pages: links restore the view, bad ones are told, nothing of it needs a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from circuits.assembly import assemble
from circuits.graph import Kind
from circuits.parts import WEIGHED
from circuits.selection import Goal, select_top
from pages import graph
from tests.pages.reading import list_linked, texts
from workbench import checks, interventions, quality, size_curves
from workbench.runs import Recording, Run, save_run
from workbench.views import links
from workbench.views.drawing import View
from workbench.views.folding import find_rank
from workbench.views.layout import lay_out

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]


def find_node(run: Run, kind: Kind) -> str:
    """A node of a kind."""
    return next(node.id for node in run.circuit.nodes if node.component.kind is kind)


def test_a_link_restores_the_view(open_page: OpenPage, saved: str, run: Run) -> None:
    node = find_node(run, Kind.HEAD)
    app = open_page("circuit", run=saved, node=node, edges="12")
    assert not app.exception
    assert "Oskarville" in app.title[0].value
    assert app.slider[0].value == 12
    assert app.subheader[0].value.startswith("Head ")
    assert "Showing 12 of 30 edges" in texts(app)
    assert list_linked(app, "node") == [node]


def test_faithfulness_says_how_it_was_measured(open_page: OpenPage, saved: str) -> None:
    app = open_page("circuit", run=saved)
    assert [metric.value for metric in app.metric][:2] == ["0.870", "0.125"]
    page = texts(app)
    for words in ("EAP", "counterfactual ablation", "in logits", "n = 5", "One of many possible circuits"):
        assert words in page


@pytest.mark.parametrize("kept", ["nothing", "no random circuits"])
def test_what_a_run_did_not_measure_is_not_shown_as_a_number(
    open_page: OpenPage, build_run: Callable[..., Run], runs: Path, kept: str
) -> None:
    run = build_run()
    measured = {key: value for key, value in run.about["faithfulness"].items() if key != "random"}
    save_run(replace(run, about=run.about | {"faithfulness": {} if kept == "nothing" else measured}), runs / "bare")
    app = open_page("circuit", run="bare")
    assert not app.exception
    assert [metric.value for metric in app.metric][:1] == ([] if kept == "nothing" else ["0.870"])
    assert ("not measured** with the run" in texts(app)) == (kept == "nothing")
    assert "random baseline" not in texts(app)
    assert "One of many possible circuits" in texts(app)


@pytest.mark.parametrize("name", ["nowhere", "../saved/norland", "/etc", "<img src=x>"])
def test_a_run_that_is_not_listed_is_told(open_page: OpenPage, saved: str, name: str) -> None:
    app = open_page("circuit", run=name)
    assert not app.exception
    assert "no saved run" in app.error[0].value
    assert app.selectbox[0].options == [saved]


def test_a_broken_run_is_told(open_page: OpenPage, saved: str, runs: Path) -> None:
    (runs / saved / "scores.npz").unlink()
    app = open_page("circuit", run=saved)
    assert not app.exception
    assert "cannot read" in app.error[0].value


def test_bad_values_are_told_and_left_out(open_page: OpenPage, saved: str) -> None:
    app = open_page("circuit", run=saved, node="a9.h9@99", edges="many")
    assert not app.exception
    assert len(app.warning) == 2
    assert app.slider[0].value == 30


def test_a_click_in_the_graph_selects(open_page: OpenPage, saved: str, run: Run) -> None:
    app = open_page("circuit", run=saved, node=find_node(run, Kind.HEAD))
    clicked = find_node(run, Kind.MLP)
    app.session_state[f"graph-{saved}"] = {"selected": clicked, "pinned": []}
    app.run()
    assert app.subheader[0].value.startswith("MLP of layer")
    assert list_linked(app, "node") == [clicked]


def test_a_click_in_the_map_selects(open_page: OpenPage, saved: str, run: Run) -> None:
    app = open_page("circuit", run=saved)
    node = find_node(run, Kind.MLP)
    app.session_state[f"map-{saved}"] = {"selection": {"points": [{"customdata": [node]}]}}
    app.run()
    assert list_linked(app, "node") == [node]


def test_a_circuit_of_too_many_edges_is_thinned_with_the_count(
    open_page: OpenPage, saved: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the slider, by a link that asks for more, and by a search for a node beyond it."""
    monkeypatch.setattr(links, "EDGES_AT_MOST", 10)
    app = open_page("circuit", run=saved, edges="1000000")
    assert not app.exception
    assert (app.slider[0].value, app.slider[0].max) == (10, 10)
    assert "Showing 10 of 30 edges" in texts(app)
    assert "the 10 strongest of 30 edges can be drawn" in texts(app)
    far = max(find_rank(run.circuit).items(), key=lambda item: item[1])[0]
    act(app, saved, ("reveal", [far], ""))
    assert not app.exception
    assert app.slider[0].value == 10


def test_the_slider_writes_the_link(open_page: OpenPage, saved: str) -> None:
    app = open_page("circuit", run=saved)
    app.slider[0].set_value(5).run()
    assert list_linked(app, "edges") == ["5"]
    assert "Showing 5 of 30 edges" in texts(app)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_node_can_be_inspected(
    open_page: OpenPage, runs: Path, build_run: Callable[..., Run], kind: Kind
) -> None:
    plan = build_run().circuit.plan
    if kind is Kind.LEARNED:
        plan = replace(plan, learned_layers=(2,), learned=1)
    run = build_run(edges=200, plan=plan)
    block = {"id": "d-1", "text": "a", "tokens": ["a", "*b*"], "kept": [[[0, 1, 1, 1, 1, 1]] * 2]}
    run.about["memories"]["explicit"] = {"layers": [1], "blocks": [block, block]}
    save_run(run, runs / "large")
    app = open_page("circuit", run="large", node=find_node(run, kind))
    assert not app.exception
    assert not app.warning
    assert len(app.subheader) == 1


def test_a_node_is_checked_exactly(open_page: OpenPage, settle: Settle, saved: str, run: Run, fake: Any) -> None:
    node = find_node(run, Kind.HEAD)
    app = open_page("circuit", run=saved, node=node)
    next(button for button in app.button if button.label == "Check exactly").click()
    app.run()
    settle(app, f"check-node-{saved}")
    assert not app.exception
    assert fake.calls[-1] == ("check", node)
    assert {"+0.500", "+0.250"} <= {metric.value for metric in app.metric}


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (Kind.MLP, "Strongest FFN units"),
        (Kind.BANK, "Strongest units of the block"),
        (Kind.EXPLICIT, "Strongest slots"),
        (Kind.HEAD, "Strongest source positions"),
    ],
)
def test_a_node_lists_its_parts_and_checks_one(
    open_page: OpenPage,
    settle: Settle,
    runs: Path,
    build_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    title: str,
) -> None:
    """Each kind with its tokens, estimates, unit, method and ablation; one of them is measured."""
    run = build_run(edges=200, parts=3)
    block = {"id": "d-1", "text": "a", "tokens": ["a", "*b*"], "kept": [[[0, 1, 1, 1, 1, -1]] * 2]}
    run.about["memories"]["explicit"] = {"layers": [1], "blocks": [block, block]}
    save_run(run, runs / "large")
    node = next(n.id for n in run.circuit.nodes if n.component.kind is kind and n.position > 1)
    assert run.parts is not None
    parts = run.parts.list_of(node)
    asked: list[str] = []

    def check_part(engine: Any, run: Run, part: str, reader: str = "", tick: Any = None) -> checks.PartCheck:
        asked.append(part)
        ways = (checks.Measured("contribution", None, 0.25), checks.Measured("renormalised", 0.5, 0.125))
        return checks.PartCheck(part, reader, ways, "logits", "eap", "counterfactual", False)

    monkeypatch.setattr(checks, "check_part", check_part)
    app = open_page("circuit", run="large", node=node)
    assert not app.exception
    page = texts(app)
    assert title in page and "Estimated by EAP" in page and "in logits" in page and "counterfactual ablation" in page
    tables = [frame.value for frame in app.dataframe if "part" in frame.value]
    assert list(tables[0]["part"]) == [part.component.name for part in parts]
    assert list(tables[0]["ablated"]) == [part.score for part in parts]
    assert ("renormalised" in tables[0]) == (kind in WEIGHED) == ("token" in tables[0])
    (box,) = [box for box in app.selectbox if box.label == "Part"]
    box.select(parts[1].id).run()
    next(button for button in app.button if button.label == "Check this part exactly").click()
    settle(app.run(), "check-part-large")
    assert not app.exception
    assert asked == [parts[1].id]
    (checked,) = [frame.value for frame in app.dataframe if "exact" in frame.value]
    assert list(checked["exact"]) == [0.25, 0.125]
    assert "made now" in texts(app)


def test_a_run_without_parts_says_how_to_get_them(open_page: OpenPage, saved: str, run: Run) -> None:
    app = open_page("circuit", run=saved, node=find_node(run, Kind.MLP))
    assert not app.exception
    assert "This run kept no FFN units" in texts(app)


QUALITY: dict[str, Any] = {
    "format": "memory-circuits/quality",
    "version": 1,
    "curves": {
        "draws": 2,
        **{
            kind: {"shares": [0.1, 1.0], "edges": [3, 30], "faithfulness": [0.5, 1.0], "cpr": cpr, "cmd": 0.25}
            for kind, cpr in (("absolute", 0.675), ("signed", 0.7), ("random", 0.1))
        },
    },
    "ablations": {"sufficiency": 0.8, "necessity": -0.125, "completeness": {"mean": 0.2}},
    "agreement": {"reason": "no estimate"},
    "overlap": [
        {"name": "<b>x</b>", "kind": "seed", "jaccard": None, "spearman": None, "edges": None, "reason": "too *long*"}
    ],
}


def test_quality_is_measured_once_and_kept(
    open_page: OpenPage, settle: Settle, saved: str, runs: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "measure_run", lambda engine, run, effort, tick: QUALITY)
    app = open_page("circuit", run=saved)
    next(button for button in app.button if button.label == "Measure").click()
    settle(app.run(), f"quality-{saved}")
    for page in (app, open_page("circuit", run=saved)):
        assert not page.exception
        shown = {metric.label: metric.value for metric in page.metric}
        assert (shown["CPR"], shown["Necessity"], shown["Estimate vs exact"]) == ("0.675", "−0.125", "–")
    (runs / saved / quality.FILE).write_text("{")
    app = open_page("circuit", run=saved)
    assert "not JSON" in texts(app) and not app.exception


def test_a_run_over_several_pairs_says_what_it_cannot_draw(open_page: OpenPage, runs: Path, run: Run) -> None:
    one = {**run.pair, "answer": " Oskarville Nord", "answer_ids": [17, 3], "answer_tokens": [" Oskarville", " Nord"]}
    # The first token of such an answer is a position of its own.
    one |= {
        f"{side}_{part}": one[f"{side}_{part}"][:-1]
        for side in ("clean", "counterfactual")
        for part in ("tokens", "ids")
    }
    first = replace(run, about={**run.about, "pairs": [one]})
    save_run(first, runs / "taught")
    app = open_page("circuit", run="taught")
    assert not app.exception
    assert "answer of 2 tokens" in texts(app) and "·Oskarville ·Nord" in texts(app)
    summed = make_summed(run)
    save_run(summed, runs / "several")
    node = find_node(summed, Kind.HEAD)
    app = open_page("circuit", run="several", node=node)
    assert not app.exception
    assert "and 2 more" in app.title[0].value
    assert "Traced over 3 prompt pairs" in texts(app)
    assert "No attention pattern" in texts(app)


def make_summed(run: Run) -> Run:
    """The same run as over three pairs: one position, no attention."""
    scores = replace(
        run.scores, edges=run.scores.edges.sum(0, keepdims=True), nodes=run.scores.nodes.sum(0, keepdims=True)
    )
    mask = select_top(scores, Goal(40, (0,))).mask
    plan = run.circuit.plan
    circuit = assemble(scores, mask, 40, np.ones((plan.layers, plan.heads, 1, 1), dtype=np.float32))
    nothing = Recording(np.zeros((0,) * 4, dtype=np.float16), np.zeros((0,) * 5, dtype=np.float16))
    about = {**run.about, "pairs": run.pairs * 3, "summed": True}
    return Run(about=about, circuit=circuit, scores=scores, recording=nothing)


def test_hostile_prompts_and_tokens_are_escaped(open_page: OpenPage, runs: Path, build_run: Callable[..., Run]) -> None:
    tokens = ("<img onerror=x>", " **b**", " $y$", " :red[z]", "\x1b\u202e")
    run = build_run(tokens=tokens, edges=60)
    save_run(run, runs / "hostile")
    app = open_page("circuit", run="hostile", node=run.circuit.nodes[0].id)
    assert not app.exception
    page = texts(app)
    for markup in ("<img", "**b**", "$y$", ":red[", "\x1b", "\u202e"):
        assert markup not in page


def test_without_runs_the_pages_say_what_to_do(open_page: OpenPage) -> None:
    for page in ("circuit", "runs"):
        app = open_page(page)
        assert not app.exception
        assert "Ask a question" in app.info[0].value


def test_opening_a_saved_run_imports_no_torch(run_folder: Path) -> None:
    program = (
        "import sys\n"
        "from importlib.resources import files\n"
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file(str(files('workbench') / 'app.py'), default_timeout=120).run()\n"
        "app.switch_page('../pages/circuit.py')\n"
        f"app.query_params['run'] = {run_folder.name!r}\n"
        "app.run()\n"
        "assert not app.exception, app.exception\n"
        "assert 'Oskarville' in app.title[0].value, app.title\n"
        "heavy = {'torch', 'transformer_lens', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "MEMORY_CIRCUITS_RUNS": str(run_folder.parent), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def act(app: AppTest, name: str, *entries: tuple[str, list[str], str], selected: str = "", first: int = 1) -> AppTest:
    """Send what the browser's script would log: kind, nodes, text; then run the page."""
    log = [
        {"n": number, "kind": kind, "nodes": nodes, "text": text}
        for number, (kind, nodes, text) in enumerate(entries, start=first)
    ]
    app.session_state[f"graph-{name}"] = {"selected": selected, "log": {"page": "p", "entries": log}}
    return app.run()


def test_a_picture_is_sent_once_and_again_when_it_is_missed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    state: dict[str, Any] = {}
    monkeypatch.setattr("streamlit.session_state", state)
    picture = graph.prepare(lay_out(run.circuit, run.tokens, View()))
    assert graph.choose_picture("one", picture) == {"graph": picture.data}
    assert graph.choose_picture("one", picture) == {}
    assert graph.choose_picture("two", picture) == {"graph": picture.data}
    state["one"] = {"missing": picture.sign}
    assert graph.choose_picture("one", picture) == {"graph": picture.data}
    state["one"] = {"missing": None}
    fewer = graph.prepare(lay_out(run.circuit, run.tokens, View(edges=len(run.circuit.edges) - 1)))
    sent = graph.choose_picture("one", fewer)
    assert sent["base"] == picture.sign
    assert make_changed(picture.data, sent["change"]) == fewer.data
    assert len(json.dumps(sent)) < len(json.dumps(fewer.data))


def make_changed(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A picture's data from the one before it, as the browser's script makes it."""
    made: dict[str, Any] = {}
    for name, parts in change.items():
        made[name] = parts
        if isinstance(parts, list):
            made[name] = []
            for part in parts:
                made[name] += old[name][part[0] : sum(part)] if isinstance(part, list) else [part["item"]]
    return made


def open_tab(app: AppTest, name: str, tab: str) -> AppTest:
    """Open one of the tabs below the graph."""
    app.session_state[f"tabs-{name}"] = tab
    return app.run()


def test_what_a_reader_does_is_undone_saved_and_restored_by_a_link(
    open_page: OpenPage, saved: str, run: Run, runs: Path
) -> None:
    one, two, three, four = [node.id for node in run.circuit.nodes if node.component.kind is Kind.HEAD][:4]
    app = open_page("circuit", run=saved)
    app = act(
        app,
        saved,
        ("pin", [one, two], ""),
        ("group", [three], "**subject** <b>"),
        ("annotate", ["group:1"], "why $x$"),
        ("hide", [four], ""),
        ("pin", [one], ""),
        selected="group:1",
    )
    assert not app.exception
    page = texts(app)
    assert "1 pinned, 1 supernode, 1 note, 1 hidden" in page.replace("\\,", ",")
    assert app.subheader[0].value.startswith("\\*\\*subject")
    assert "**subject**" not in page and "$x$" not in page and "<b>" not in page
    assert list_linked(app, "node") == ["group:1"]
    app = act(app, saved, ("undo", [], ""), ("undo", [], ""), selected="group:1", first=6)
    assert "1 pinned" not in texts(app) and "1 hidden" not in texts(app)
    app = act(app, saved, ("redo", [], ""), selected="group:1", first=8)
    assert "1 supernode, 1 note, 1 hidden" in texts(app).replace("\\,", ",")
    app = open_tab(app, saved, "Saved views")
    app.text_input[0].input("mine")
    next(button for button in app.button if button.label == "Save view").click()
    app.run()
    assert not app.exception
    (number,) = list_linked(app, "view")
    assert (runs / saved / "view.json").is_file()
    again = open_page("circuit", run=saved, view=number)
    assert not again.exception
    assert "1 supernode, 1 note, 1 hidden" in texts(again).replace("\\,", ",")
    assert again.subheader[0].value == app.subheader[0].value
    assert open_page("circuit", run=saved, view=number, edges="7").slider[0].value == 7


def test_bad_views_and_actions_are_told_or_left_out(open_page: OpenPage, saved: str, runs: Path) -> None:
    app = open_page("circuit", run=saved, view="../../etc/passwd")
    assert not app.exception and "no such saved view" in app.warning[0].value
    app.session_state[f"graph-{saved}"] = {"selected": "<img>", "log": {"page": 3, "entries": [1, None, {"n": "x"}]}}
    assert not app.run().exception
    app = act(app, saved, ("destroy", ["a0.h0@0"], ""), ("pin", ["no@1"], ""), ("reveal", ["no@1"], ""))
    assert not app.exception and "Nothing pinned, grouped or hidden yet" in texts(app)
    (runs / saved / "view.json").write_text("{")
    app = open_tab(app, saved, "Saved views")
    assert not app.exception and "not JSON" in texts(app)


def test_a_search_reveals_a_node_beyond_the_slider(open_page: OpenPage, saved: str, run: Run) -> None:
    last = run.circuit.edges[-1]
    new = next(
        end
        for end in (last.reader, last.writer, run.circuit.edges[-2].writer)
        if all(end not in (edge.writer, edge.reader) for edge in run.circuit.edges[:5])
    )
    app = act(open_page("circuit", run=saved, edges="5"), saved, ("hide", [new], ""), ("reveal", [new], ""))
    assert not app.exception
    assert app.slider[0].value > 5
    assert list_linked(app, "node") == [new]
    assert "Nothing pinned, grouped or hidden yet" in texts(app)


def test_faithfulness_follows_the_slider(
    open_page: OpenPage, settle: Settle, saved: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = size_curves.SizeCurve((1, 4, 30), (0.0, 0.5, 0.87), (0.0, 0.1, 0.2), (0.0,) * 3, (0.3,) * 3, 5, 0)
    monkeypatch.setattr(size_curves, "measure_curve", lambda engine, run, seed, tick: curve)
    app = open_page("circuit", run=saved, edges="4")
    assert "Faithfulness of the 4 strongest edges: **not measured**" in texts(app)
    app = open_tab(app, saved, "Faithfulness curve")
    next(button for button in app.button if button.label == "Measure the curve").click()
    app = settle(app.run(), f"curve-{saved}").run()
    assert not app.exception
    assert "Faithfulness of the 4 strongest edges: **0.500** · measured" in texts(app)
    app.slider[0].set_value(2).run()
    assert "2 strongest edges: **0.250** · estimate from the curve" in texts(app)
    app.slider[0].set_value(30).run()
    assert "30 strongest edges: **0.870** · measured" in texts(app)
    assert any("random, smallest" in frame.value for frame in app.dataframe)


def test_nodes_are_ablated_and_scaled_from_the_graph(
    open_page: OpenPage, settle: Settle, saved: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[str, ...], float]] = []

    def intervene(engine: Any, run: Run, nodes: tuple[str, ...], factor: float, tick: Any) -> interventions.Outcome:
        asked.append((nodes, factor))
        shift = interventions.Shift(" **x**", 17, 0.75, 0.25, "answer")
        return interventions.Outcome(nodes, factor, 4.5, 1.5, "logits", "counterfactual", 1, (shift,))

    monkeypatch.setattr(interventions, "intervene", intervene)
    heads = [node.id for node in run.circuit.nodes if node.component.kind is Kind.HEAD][:2]
    app = open_page("circuit", run=saved, node=heads[0])
    next(button for button in app.button if button.label == "Ablate and ask again").click()
    app = settle(app.run(), f"intervene-{saved}")
    app = act(app.run(), saved, ("group", heads, "both"), selected="group:1")
    next(slider for slider in app.slider if slider.label == "Factor on both").set_value(2.0).run()
    next(button for button in app.button if button.label == "Scale and ask again").click()
    app = settle(app.run(), f"intervene-{saved}")
    assert not app.exception
    assert asked == [((heads[0],), 0.0), (tuple(heads), 2.0)]
    assert "+1.500 logits" in {metric.value for metric in app.metric}
    (table,) = [frame.value for frame in app.dataframe if "after" in frame.value and "token" in frame.value]
    assert list(table["after"]) == [0.25]
    assert any("factor" in frame.value for frame in app.dataframe)


def test_top_tokens_of_a_node(
    open_page: OpenPage, settle: Settle, saved: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = find_node(run, Kind.HEAD)

    def read(engine: Any, run: Run, one: str, tick: Any) -> interventions.WrittenTokens:
        return interventions.WrittenTokens(one, ((" <b>", 2.0),), ((" no", -1.0),), 3.25, "counterfactual")

    monkeypatch.setattr(interventions, "read_written", read)
    app = open_page("circuit", run=saved, node=node)
    next(button for button in app.button if button.label.startswith("Top tokens of")).click()
    app = settle(app.run(), f"written-{saved}")
    assert not app.exception
    assert any(list(frame.value.get("towards", [])) == ["·<b>"] for frame in app.dataframe)
    assert "3.25" in texts(app)


def test_two_runs_are_compared(open_page: OpenPage, saved: str, runs: Path, build_run: Callable[..., Run]) -> None:
    app = open_tab(open_page("circuit", run=saved), saved, "Compare with another run")
    assert not app.exception and "no other saved run" in texts(app)
    save_run(build_run(seed=1), runs / "other")
    app = open_page("circuit", run=saved)
    app.query_params["with"] = "other"
    app = open_tab(app.run(), saved, "Compare with another run")
    assert not app.exception
    assert "Jaccard" in texts(app) and any("found in" in frame.value for frame in app.dataframe)
    app.session_state[f"way-{saved}"] = "Side by side"
    app.run()
    assert not app.exception and "random circuits 0.125" in texts(app)
    nats = build_run(seed=2)
    save_run(replace(nats, circuit=replace(nats.circuit, unit="nats")), runs / "nats")
    app.query_params["with"] = "nats"
    app.session_state[f"way-{saved}"] = "Difference"
    app.run()
    assert not app.exception and "nats" in texts(app)
    app.query_params["with"] = "../x"
    assert not app.run().exception


def list_drafts(runs: Path, name: str) -> list[str]:
    """Ids of the drafts of a run."""
    return sorted(path.stem for path in (runs / name).glob("drafts/*.json"))


def test_a_reload_brings_back_what_was_not_saved(open_page: OpenPage, saved: str, run: Run, runs: Path) -> None:
    one, two = [node.id for node in run.circuit.nodes if node.component.kind is Kind.HEAD][:2]
    app = open_page("circuit", run=saved)
    assert not list_drafts(runs, saved) and "Not saved yet" not in texts(app)
    app = act(app, saved, ("pin", [one], ""), ("annotate", [two], "why?"))
    (number,) = list_drafts(runs, saved)
    assert list_linked(app, "draft") == [number] and "Not saved yet" in texts(app)

    again = open_page("circuit", run=saved, draft=number)
    assert again.session_state[f"history-{saved}"].present == app.session_state[f"history-{saved}"].present
    assert "1 pinned\\, 1 note" in texts(again)
    again = act(again, saved, ("hide", [two], ""))
    own = list_linked(again, "draft")
    assert own != [number] and list_drafts(runs, saved) == sorted([number, *own])
    app.run()
    assert "1 hidden" not in texts(app)


def test_a_draft_goes_when_all_is_saved_or_undone(open_page: OpenPage, saved: str, run: Run, runs: Path) -> None:
    one = run.circuit.nodes[0].id
    app = act(open_page("circuit", run=saved), saved, ("pin", [one], ""))
    assert len(list_drafts(runs, saved)) == 1
    app = act(app, saved, ("undo", [], ""), first=2)
    assert not list_drafts(runs, saved) and "draft" not in app.query_params
    app = act(app, saved, ("pin", [one], ""), first=3)
    assert len(list_drafts(runs, saved)) == 1
    app = open_tab(app, saved, "Saved views")
    next(button for button in app.button if button.label == "Save view").click().run()
    assert not app.exception and not list_drafts(runs, saved)
    assert "Not saved yet" not in texts(app) and "draft" not in app.query_params


@pytest.mark.parametrize("number", ["0123456789ab", "../../view", "<img>"])
def test_a_draft_that_is_not_there_is_told(open_page: OpenPage, saved: str, number: str) -> None:
    app = open_page("circuit", run=saved, draft=number)
    assert not app.exception
    assert "draft" in app.warning[0].value
    assert "draft" not in app.query_params
