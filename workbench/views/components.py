"""Components of a `specificity` result as maps, tables and sentences: pure functions of its rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.views.tables import Columns
from workbench.views.text import format_score, show_decimals, show_line

Row = dict[str, Any]

KINDS = {"heads": "head", "units": "FFN unit", "bank": "bank block", "memories": "explicit memory"}
LABELS = ("specific", "abstract", "undecided", "inert")
SPECIFIC = 0.5
_PLACE = re.compile(r"[am](?P<layer>\d{1,4})\.[hu](?P<place>\d{1,7})")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a component: label, unit (empty: the result's own), what it says, and whether its sign matters."""

    label: str
    unit: str
    explanation: str
    signed: bool


QUANTITIES: dict[str, Quantity] = {
    "largest": Quantity(
        "Largest effect",
        "",
        "Effect on the fact where it is largest: how far the answer's log-odds drop when the component writes nothing. "
        "Positive helps the answer.",
        True,
    ),
    "effect": Quantity("Mean effect", "", "The same drop, as the mean over all facts.", True),
    "index": Quantity(
        "Specificity index",
        "share",
        "Share of the squared effect that belongs to single facts, of that of facts, relations and everything: "
        "1 is one fact's own, 0 is the same for all.",
        False,
    ),
    "participation": Quantity(
        "Facts it matters to",
        "facts",
        "Participation ratio of its effects over facts: 1 where one fact has it all.",
        False,
    ),
    "relations": Quantity(
        "Relations it reaches", "relations", "Relations with a fact on which it is not negligible.", False
    ),
}


def find_place(component: str) -> tuple[int, int] | None:
    """Layer and number of a head (`a3.h1`) or FFN unit (`m3.u17`); None for what has no single layer."""
    found = _PLACE.fullmatch(component)
    return (int(found["layer"]), int(found["place"])) if found else None


@dataclass(frozen=True, slots=True)
class Map:
    """Values `[layer, column]` (nan: nothing there), the component of every cell that has one, and column names."""

    values: np.ndarray
    names: dict[tuple[int, int], str]
    columns: tuple[str, ...]


def place_rows(rows: Sequence[Row], kind: str) -> list[tuple[int, int, Row]]:
    """Layer, number and row of every component of a kind that has a place."""
    placed = [(find_place(str(row["component"])), row) for row in rows if row["kind"] == kind]
    return [(place[0], place[1], row) for place, row in placed if place is not None]


def fill_map(cells: Sequence[tuple[int, int, Row]], quantity: str, prefix: str) -> Map:
    """Map of cells by layer and column."""
    layers = 1 + max((layer for layer, _, _ in cells), default=-1)
    width = 1 + max((column for _, column, _ in cells), default=-1)
    values, names = np.full((layers, width), np.nan), {}
    for layer, column, row in cells:
        value = row[quantity]
        values[layer, column] = np.nan if value is None else float(value)
        names[layer, column] = str(row["component"])
    return Map(values, names, tuple(f"{prefix}{column}" for column in range(width)))


def map_heads(rows: Sequence[Row], quantity: str) -> Map:
    """Layer by head map of a quantity."""
    return fill_map(place_rows(rows, "heads"), quantity, "h")


def map_units(rows: Sequence[Row], quantity: str, most: int) -> tuple[Map, int]:
    """Layer by unit map of the `most` units of each layer with the largest effect, and how many units there are.

    By number where all are shown, else by rank of the effect within the layer.
    """
    cells = place_rows(rows, "units")
    if 1 + max((unit for _, unit, _ in cells), default=-1) <= most:
        return fill_map(cells, quantity, "u"), len(cells)
    ranked: list[tuple[int, int, Row]] = []
    for layer in sorted({layer for layer, _, _ in cells}):
        own = sorted((cell for cell in cells if cell[0] == layer), key=lambda cell: (-abs(cell[2]["largest"]), cell[1]))
        ranked += [(layer, rank, row) for rank, (_, _, row) in enumerate(own[:most])]
    return fill_map(ranked, quantity, "#"), len(cells)


def tabulate_map(values: Map) -> Columns:
    """A map as a table, one row a layer; the cells of units by rank say which unit they are in no other way."""
    columns: Columns = {"layer": list(range(len(values.values)))}
    for place, name in enumerate(values.columns):
        columns[name] = [None if np.isnan(row[place]) else float(row[place]) for row in values.values]
    return columns


def filter_components(
    rows: Sequence[Row], kinds: Collection[str] = (), labels: Collection[str] = (), words: str = ""
) -> list[Row]:
    """Rows of these kinds and classes (none named: any) whose name or strongest fact holds every word."""
    wanted = words.lower().split()
    return [
        row
        for row in rows
        if (not kinds or row["kind"] in kinds)
        and (not labels or row["label"] in labels)
        and all(word in f"{row['component']} {row['strongest']}".lower() for word in wanted)
    ]


def count_classes(rows: Sequence[Row]) -> Columns:
    """One row a kind that has components: how many of each class."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    return {"kind": [KINDS[kind] for kind in kinds]} | {
        label: [sum((row["kind"], row["label"]) == (kind, label) for row in rows) for kind in kinds] for label in LABELS
    }


def tabulate_components(rows: Sequence[Row]) -> Columns:
    """One row a component, in the order given."""
    plain = ("effect", "largest", "participation", "relations", "index", "low", "high")
    drops = {"drop_own": "own facts", "drop_neighbours": "neighbours", "drop_others": "others", "drop_text": "text"}
    return (
        {
            "component": [show_line(str(row["component"])) for row in rows],
            "kind": [KINDS[row["kind"]] for row in rows],
            "class": [name_class(row) for row in rows],
        }
        | {name: [row[name] for row in rows] for name in plain}
        | {"strongest on": [show_line(str(row["strongest"])) for row in rows]}
        | {label: [row.get(name) for row in rows] for name, label in drops.items()}
    )


def name_class(row: Row) -> str:
    """Class of a component, an abstract one with what it is common to."""
    level = {"relation": "a relation", "everything": "everything"}.get(str(row["level"]), "")
    return f"abstract: {level}" if row["label"] == "abstract" and level else str(row["label"])


def find_component(rows: Sequence[Row], name: str) -> Row | None:
    """The row of a component."""
    return next((row for row in rows if row["component"] == name), None)


def divide_effect(row: Row) -> Columns:
    """Shares of a component's mean squared effect."""
    names = {"everything": "everything", "relation": "this relation", "fact": "this fact", "wording": "wording"}
    return {"belongs to": list(names.values()), "share": [float(row[name]) for name in names]}


def explain_component(row: Row, unit: str) -> str:
    """One sentence about what a component is for."""
    interval = "" if row["low"] is None else f" [{show_decimals(row['low'])}, {show_decimals(row['high'])}]"
    return (
        f"{KINDS[row['kind']][:1].upper()}{KINDS[row['kind']][1:]} {show_line(str(row['component']))} is "
        f"{name_class(row)}: specificity index "
        f"{show_decimals(row['index'])}{interval}, largest effect {format_score(row['largest'], unit)} on "
        f"{show_line(str(row['strongest']))}, over {row['participation']:.1f} facts of {row['relations']} relations."
    )


def gather_tags(name: str, heads: dict[str, Any] | None, units: dict[str, Any] | None) -> Columns:
    """What other results say of a component: scores of the finders of heads, facts whose knowledge neuron it is."""
    tags: Columns = {"says": [], "value": [], "low": [], "high": [], "unit": [], "n": [], "mark": []}
    place = find_place(name)
    if heads is not None and place is not None and name.startswith("a"):
        for row in heads["rows"]:
            if (row["layer"], row["head"]) == place:
                mark = "candidate" if row.get("candidate") else str(row.get("source", ""))
                says = f"{row['finder']}: {row['metric']}"
                cells = (says, row["value"], row["low"], row["high"], row["unit"], row["n"], mark)
                for column, cell in zip(tags.values(), cells, strict=True):
                    column.append(show_line(cell) if isinstance(cell, str) else cell)
    unit = str(units["unit"]) if units is not None else ""
    for row in units["neurons"] if units is not None else ():
        if row["unit"] == name:
            cells = (f"knowledge neuron of {row['fact']}", row["score"], None, None, unit, row["facts"], "")
            for column, cell in zip(tags.values(), cells, strict=True):
                column.append(show_line(cell) if isinstance(cell, str) else cell)
    return tags
