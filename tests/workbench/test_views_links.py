"""Links: what they may ask for, what is refused, and which change wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import UserError
from workbench.runs import Run
from workbench.settings import Question, Settings
from workbench.views.links import check_run_name, list_run_names, name_run, pick_latest, read_place


def test_runs_are_named_by_their_folder(run_folder: Path) -> None:
    (run_folder.parent / "empty").mkdir()
    (run_folder.parent / ".hidden").mkdir()
    assert list_run_names(run_folder.parent) == [run_folder.name]
    assert list_run_names(run_folder.parent / "nowhere") == []


@pytest.mark.parametrize("name", ["", "../x", "/etc/passwd", "a/b", "..", "x\x00", "<img>"])
def test_a_name_that_is_not_listed_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no saved run"):
        check_run_name(name, ["good"])


def test_a_listed_name_is_taken() -> None:
    assert check_run_name("good", ["good"]) == "good"


def test_an_empty_link_gives_the_first_view(run: Run) -> None:
    place = read_place({}, run.circuit)
    assert (place.edges, place.node, place.problems) == (30, "", ())


@pytest.mark.parametrize(("wanted", "edges"), [("0", 1), ("7", 7), ("999999", 30)])
def test_numbers_are_clamped(run: Run, wanted: str, edges: int) -> None:
    assert read_place({"edges": wanted}, run.circuit).edges == edges


@pytest.mark.parametrize("wanted", ["-3", "x", "1e3", "9" * 30, "²"])
def test_other_values_are_named_and_left_out(run: Run, wanted: str) -> None:
    place = read_place({"edges": wanted, "node": "zz@1"}, run.circuit)
    assert place.edges == 30
    assert place.node == ""
    assert len(place.problems) == 2


def test_a_node_of_the_circuit_is_selected(run: Run) -> None:
    node = run.circuit.nodes[3].id
    assert read_place({"node": node}, run.circuit).node == node


def test_the_source_that_changed_wins() -> None:
    seen: dict[str, str] = {"graph": "", "map": ""}
    assert pick_latest("", {"link": "a", "graph": "", "map": ""}, seen) == "a"
    assert pick_latest("a", {"link": "a", "graph": "b", "map": ""}, seen) == "b"
    assert pick_latest("b", {"link": "b", "graph": "b", "map": ""}, seen) == "b"
    assert pick_latest("b", {"link": "b", "graph": "b", "map": "c"}, seen) == "c"
    assert pick_latest("c", {"link": "d", "graph": "b", "map": "c"}, seen) == "d"


def test_new_runs_get_safe_names_of_their_own() -> None:
    settings = Settings()
    first = name_run(Question(prompt="../The capital\nof <b>"), settings, [])
    assert first == "the-capital-of-b.eap.counterfactual"
    assert name_run(Question(prompt="the capital of b"), settings, [first]) == f"{first}.2"
    assert name_run(Question(prompt="東京"), settings, []) == "run.eap.counterfactual"
