"""What a reader makes of a graph: every action is a value that can be undone, saved, read back and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.errors import UserError
from workbench.runs import Run
from workbench.view_files import FILE, MOST_VIEWS, SavedView, encode_view, load_view, read_views, save_view
from workbench.views.curation import ACTIONS, Action, Curation, Group, History, describe, read_action, replay

HOSTILE = "<img src=x onerror=alert(1)> </script> $\\write18{} =cmd() \x00\u202e"


def do(history: History, kind: str, *nodes: str, text: str = "") -> History:
    """After one action."""
    return history.do(Action(kind, nodes, text))


def test_pins_are_switched() -> None:
    history = do(do(History(), "pin", "a", "b"), "pin", "a")
    assert history.present.pinned == ("b",)


def test_a_group_takes_the_pinned_nodes_and_lets_go_of_their_pins() -> None:
    history = do(do(History(), "pin", "a", "b"), "group", "c", text="subject")
    assert history.present.groups == (Group("group:1", "subject", ("a", "b", "c")),)
    assert history.present.pinned == ()
    assert history.present.spread(("group:1", "d", "a")) == ("a", "b", "c", "d")
    assert history.present.find_owner("b") == history.present.groups[0]


def test_one_node_makes_no_group() -> None:
    assert do(History(), "group", "a").present == Curation()


def test_a_group_takes_in_groups_and_leaves_none_empty() -> None:
    first = do(History(), "group", "a", "b", text="one")
    second = do(first, "group", "c", "d", text="two")
    both = do(second, "group", "group:1", "e")
    assert [(g.name, g.members) for g in both.present.groups] == [
        ("two", ("c", "d")),
        ("group 3", ("a", "b", "e")),
    ]
    taken = do(second, "group", "a", "b", "c")
    assert [g.members for g in taken.present.groups] == [("d",), ("a", "b", "c")]


def test_a_split_group_is_forgotten_with_its_note_and_pin() -> None:
    history = do(do(do(History(), "group", "a", "b"), "annotate", "group:1", text="why"), "pin", "group:1")
    assert do(history, "split", "group:1").present == Curation()


def test_names_and_notes_are_set_and_taken_away() -> None:
    history = do(do(History(), "rename", "a", text="copies"), "annotate", "a", text=HOSTILE)
    assert history.present.name_of("a") == "copies"
    assert history.present.note_of("a") == HOSTILE
    assert do(do(history, "rename", "a"), "annotate", "a").present == Curation()
    named = do(do(History(), "group", "a", "b"), "rename", "group:1", text="x" * 99)
    assert named.present.name_of("group:1") == "x" * 60


def test_hidden_nodes_lose_their_pins_and_come_back() -> None:
    history = do(do(do(History(), "pin", "a", "b"), "hide", "a"), "hide", "c")
    assert (history.present.pinned, history.present.hidden) == (("b",), ("a", "c"))
    assert do(history, "show", "a").present.hidden == ("c",)
    assert do(history, "show").present.hidden == ()
    grouped = do(do(History(), "group", "a", "b"), "hide", "group:1")
    assert grouped.present.hidden == ("a", "b")


def test_every_action_is_undone_and_redone() -> None:
    history = do(do(History(), "pin", "a", "b"), "annotate", "b", text="n")
    for kind in ACTIONS:
        changed = do(history, kind, "c", text="t")
        if changed is history:
            continue
        undone = do(changed, "undo")
        assert undone.present == history.present
        assert do(undone, "redo").present == changed.present
    assert do(History(), "undo") == History() == do(History(), "redo")
    branched = do(do(do(history, "undo"), "hide", "z"), "redo")
    assert branched.present.hidden == ("z",) and not branched.future


def test_an_action_without_effect_leaves_no_trace() -> None:
    assert do(History(), "show") == History()
    assert do(History(), "rename", "a") == History()


@pytest.mark.parametrize("value", [None, 3, "pin", {}, {"kind": "__class__"}, {"kind": ["pin"]}, {"kind": None}])
def test_what_is_no_action_is_refused(value: Any) -> None:
    assert read_action(value, Curation(), {"a"}) is None


def test_nodes_that_are_not_there_are_left_out_of_an_action() -> None:
    state = Curation(groups=(Group("group:1", "g", ("a",)),))
    action = read_action({"kind": "pin", "nodes": ["a", "z", 3, "group:1"], "text": " a\n b "}, state, {"a"})
    assert action == Action("pin", ("a", "group:1"), "a b")


def test_the_log_is_played_once() -> None:
    entries = [
        {"n": 1, "kind": "pin", "nodes": ["a"]},
        {"n": 2, "kind": "hide", "nodes": ["b"]},
        {"n": 3, "kind": "undo"},
        {"n": "4", "kind": "pin", "nodes": ["b"]},
        "nonsense",
    ]
    history, last = replay(History(), entries, 0, {"a", "b"})
    assert (history.present.pinned, history.present.hidden, last) == (("a",), (), 3)
    assert replay(history, entries, last, {"a", "b"}) == (history, 3)


def test_a_curation_is_told_in_words() -> None:
    assert describe(Curation()) == ""
    state = Curation(pinned=("a", "b"), groups=(Group("group:1", "g", ("c",)),), alone=True)
    assert describe(state) == "2 pinned, 1 supernode, pinned nodes and supernodes alone are drawn"


def make_view(run: Run) -> SavedView:
    """A view with something of everything."""
    ids = [node.id for node in run.circuit.nodes]
    curation = Curation(
        pinned=(ids[0], "group:1"),
        groups=(Group("group:1", HOSTILE[:60], tuple(ids[1:4])),),
        names=((ids[0], "name"),),
        notes=(("group:1", HOSTILE),),
        hidden=(ids[5],),
        alone=True,
    )
    return SavedView(12, "group:1", curation, "mine")


def test_a_view_is_saved_and_read_back(run: Run, tmp_path: Path) -> None:
    view = make_view(run)
    number = save_view(tmp_path, view)
    assert load_view(tmp_path, number, run.circuit) == (view, 0)
    assert save_view(tmp_path, view) == number
    other = save_view(tmp_path, replace(view, title="another"))
    assert list(read_views(tmp_path)) == [number, other]
    assert load_view(tmp_path, number, run.circuit)[0] == view


def test_a_view_of_another_circuit_keeps_what_fits(run: Run, build_run: Any, tmp_path: Path) -> None:
    number = save_view(tmp_path, make_view(run))
    small = build_run(edges=1).circuit
    view, missing = load_view(tmp_path, number, small)
    known = {node.id for node in small.nodes}
    assert missing > 0 and view.edges == 1
    assert {*view.curation.hidden, *(m for g in view.curation.groups for m in g.members)} <= known


def test_the_oldest_views_go(run: Run, tmp_path: Path) -> None:
    views = {f"{index:012x}": encode_view(SavedView(1)) for index in range(MOST_VIEWS)}
    document = {"format": "memory-circuits/views", "version": 1, "views": views}
    (tmp_path / FILE).write_text(json.dumps(document))
    number = save_view(tmp_path, make_view(run))
    assert list(read_views(tmp_path)) == [*list(views)[1:], number]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": "other", "version": 1, "views": {}}',
        '{"format": "memory-circuits/views", "version": 1, "views": {"../../etc": {}}}',
        '{"format": "memory-circuits/views", "version": 1, "views": {"0123456789ab": {"title": 3}}}',
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="remove it"):
        load_view(tmp_path, "0123456789ab", run.circuit)
    with pytest.raises(UserError, match="remove it"):
        save_view(tmp_path, make_view(run))
    assert (tmp_path / FILE).read_text() == text


def test_a_view_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such saved view"):
        load_view(tmp_path, "../../etc", run.circuit)
