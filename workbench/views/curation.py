"""What a reader has made of a circuit's graph: pins, supernodes, names, notes, what is hidden; with undo and redo.

All of it is a value: an action gives a new one. Actions come from the browser and are checked here; what a reader
typed stays text, and is shown as such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.views.text import plural

MOST_NODES, MOST_GROUPS, MOST_ENTRIES = 200, 50, 2000
LONGEST_NAME, LONGEST_NOTE = 60, 500
# Steps that can be undone.
DEPTH = 200
PREFIX = "group:"

Texts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A supernode: nodes of the circuit drawn as one under a name. Its `id`, `group:1`, is that of no node."""

    id: str
    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Curation:
    """Pinned nodes in their order, supernodes, names and notes by node or supernode, hidden nodes.

    With `alone`, pinned nodes and supernodes alone are drawn.
    """

    pinned: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    names: Texts = ()
    notes: Texts = ()
    hidden: tuple[str, ...] = ()
    alone: bool = False

    def find_group(self, group: str) -> Group | None:
        """The supernode of an id."""
        return next((candidate for candidate in self.groups if candidate.id == group), None)

    def find_owner(self, node: str) -> Group | None:
        """The supernode that a node is a member of."""
        return next((group for group in self.groups if node in group.members), None)

    def spread(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Nodes behind ids: a supernode's members in its place, each node once."""
        nodes: dict[str, None] = {}
        for one in ids:
            group = self.find_group(one)
            nodes.update(dict.fromkeys((one,) if group is None else group.members))
        return tuple(nodes)

    def name_of(self, one: str) -> str:
        """Name that a reader gave a node or supernode; empty: none."""
        group = self.find_group(one)
        return dict(self.names).get(one, "") if group is None else group.name

    def note_of(self, one: str) -> str:
        """Note on a node or supernode; empty: none."""
        return dict(self.notes).get(one, "")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a reader does: `kind` is a key of ACTIONS, `nodes` are nodes or supernodes, `text` was typed."""

    kind: str
    nodes: tuple[str, ...] = ()
    text: str = ""


def set_text(texts: Texts, one: str, text: str) -> Texts:
    """Texts by id with one of them set, or, when it is empty, removed."""
    changed = dict(texts) | {one: text}
    return tuple(sorted((key, value) for key, value in changed.items() if value))[:MOST_ENTRIES]


def pin(state: Curation, action: Action) -> Curation:
    """Pin what is not pinned, unpin what is."""
    pinned = [one for one in state.pinned if one not in action.nodes]
    pinned += [one for one in action.nodes if one not in state.pinned]
    return replace(state, pinned=tuple(pinned[-MOST_NODES:]))


def group(state: Curation, action: Action) -> Curation:
    """Make one supernode of these nodes and of the pinned ones; supernodes among them are taken in, pins let go."""
    chosen = tuple(dict.fromkeys((*state.pinned, *action.nodes)))
    members = state.spread(chosen)[:MOST_NODES]
    taken = [one for one in state.groups if one.id in chosen]
    others = [
        replace(one, members=tuple(member for member in one.members if member not in members))
        for one in state.groups
        if one not in taken
    ]
    others = [one for one in others if one.members]
    if len(members) < 2 or len(others) >= MOST_GROUPS:
        return state
    number = 1 + max((int(one.id.removeprefix(PREFIX)) for one in state.groups), default=0)
    made = Group(f"{PREFIX}{number}", action.text[:LONGEST_NAME] or f"group {number}", members)
    notes = tuple(pair for pair in state.notes if pair[0] not in {one.id for one in taken})
    return replace(state, groups=(*others, made), pinned=(), notes=notes)


def split(state: Curation, action: Action) -> Curation:
    """Take supernodes apart; their members are nodes again."""
    left = tuple(one for one in state.groups if one.id not in action.nodes)
    known = {one.id for one in left}
    return replace(
        state,
        groups=left,
        pinned=tuple(one for one in state.pinned if not one.startswith(PREFIX) or one in known),
        notes=tuple(pair for pair in state.notes if not pair[0].startswith(PREFIX) or pair[0] in known),
    )


def rename(state: Curation, action: Action) -> Curation:
    """Name a node or supernode; an empty name gives a node its own back."""
    text = action.text[:LONGEST_NAME]
    for one in action.nodes:
        found = state.find_group(one)
        if found is None:
            state = replace(state, names=set_text(state.names, one, text))
        elif text:
            named = replace(found, name=text)
            state = replace(state, groups=tuple(named if group.id == one else group for group in state.groups))
    return state


def annotate(state: Curation, action: Action) -> Curation:
    """Put a note on a node or supernode; an empty one takes it away."""
    for one in action.nodes:
        state = replace(state, notes=set_text(state.notes, one, action.text[:LONGEST_NOTE]))
    return state


def hide(state: Curation, action: Action) -> Curation:
    """Draw these no more, a supernode with all its members."""
    nodes = state.spread(action.nodes)
    hidden = tuple(dict.fromkeys((*state.hidden, *nodes)))[:MOST_ENTRIES]
    gone = {*nodes, *action.nodes}
    return replace(state, hidden=hidden, pinned=tuple(one for one in state.pinned if one not in gone))


def show(state: Curation, action: Action) -> Curation:
    """Draw these hidden nodes again; none named: all of them."""
    wanted = set(state.spread(action.nodes)) or set(state.hidden)
    return replace(state, hidden=tuple(one for one in state.hidden if one not in wanted))


def isolate(state: Curation, action: Action) -> Curation:
    """Draw pinned nodes and supernodes alone, or everything again."""
    return replace(state, alone=not state.alone)


def restore(state: Curation, action: Action) -> Curation:
    """Everything as it was before the first action."""
    return Curation()


ACTIONS: dict[str, Callable[[Curation, Action], Curation]] = {
    "pin": pin,
    "group": group,
    "split": split,
    "rename": rename,
    "annotate": annotate,
    "hide": hide,
    "show": show,
    "isolate": isolate,
    "restore": restore,
}


@dataclass(frozen=True, slots=True)
class History:
    """The present curation, what came before it and, after undoing, what came after; nearest last."""

    present: Curation = Curation()
    past: tuple[Curation, ...] = ()
    future: tuple[Curation, ...] = ()

    def do(self, action: Action) -> History:
        """After an action; one that changes nothing leaves no trace. `undo` and `redo` are actions too."""
        if action.kind == "undo":
            return History(self.past[-1], self.past[:-1], (*self.future, self.present)) if self.past else self
        if action.kind == "redo":
            return History(self.future[-1], (*self.past, self.present), self.future[:-1]) if self.future else self
        changed = ACTIONS[action.kind](self.present, action)
        return self if changed == self.present else self.turn(changed)

    def turn(self, present: Curation) -> History:
        """With another curation as the present one, which can be undone."""
        return History(present, (*self.past, self.present)[-DEPTH:], ())


def clean_text(text: Any) -> str:
    """What a reader typed: one line, no longer than a note may be."""
    return " ".join(str(text).split())[:LONGEST_NOTE] if isinstance(text, str) else ""


def read_action(value: Any, state: Curation, known: Collection[str]) -> Action | None:
    """An action that the browser sent, with nodes and supernodes alone that there are; None for anything else."""
    kind, asked = (value.get("kind"), value.get("nodes")) if isinstance(value, Mapping) else ("", ())
    if not isinstance(kind, str) or kind not in {*ACTIONS, "undo", "redo"}:
        return None
    groups = {group.id for group in state.groups}
    sent = asked if isinstance(asked, list) else []
    nodes = [one for one in sent if isinstance(one, str) and (one in known or one in groups)]
    return Action(kind, tuple(nodes[:MOST_NODES]), clean_text(value.get("text")))


def replay(history: History, entries: Iterable[Any], last: int, known: Collection[str]) -> tuple[History, int]:
    """History after the entries of the browser's log whose number `n` is above `last`, and the new last number."""
    for entry in entries:
        number = entry.get("n") if isinstance(entry, Mapping) else None
        if not isinstance(number, int) or number <= last:
            continue
        last = number
        action = read_action(entry, history.present, known)
        history = history if action is None else history.do(action)
    return history, last


def describe(state: Curation) -> str:
    """One line on what was made of the graph; empty for nothing."""
    words = [f"{len(state.pinned):,} pinned"] if state.pinned else []
    words += [plural(len(state.groups), "supernode")] if state.groups else []
    words += [f"{len(state.names):,} renamed"] if state.names else []
    words += [plural(len(state.notes), "note")] if state.notes else []
    words += [f"{len(state.hidden):,} hidden"] if state.hidden else []
    return ", ".join([*words, *(["pinned nodes and supernodes alone are drawn"] if state.alone else [])])
