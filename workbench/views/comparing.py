"""Two runs beside each other: the union of their circuits with the second's scores minus the first's.

Nodes and edges are the same when their ids are, positions included. A score that a run's circuit left out is taken
from its scores of the whole graph; where a run's model has no such edge (another memory attached) it counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from circuits.circuit import Circuit, Edge, Node
from circuits.graph import split_node
from probes.errors import UserError
from workbench.runs import Run
from workbench.views.drawing import Drawing, Line
from workbench.views.style import INK, NEGATIVE, POSITIVE
from workbench.views.tables import Columns
from workbench.views.text import format_score

Key = tuple[str, str, str]

# How an edge's line is drawn by where it is found.
DASHES = {"both": "", "first alone": "2 3", "second alone": "14 5"}
LEGEND = (
    ("line", POSITIVE, "larger in the second run (bows right)"),
    ("line", NEGATIVE, "smaller in the second run (bows left)"),
    ("line", INK, "in both circuits"),
    (DASHES["first alone"], INK, "in the first circuit alone"),
    (DASHES["second alone"], INK, "in the second circuit alone"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Union of two circuits: scores are second minus first, in the `unit` of both.

    `edges` gives for each edge its scores in the first and second run and where it is found (a key of DASHES), `tokens`
    the columns' texts, `warnings` what makes the two hard to compare.
    """

    circuit: Circuit
    edges: Mapping[Key, tuple[float, float, str]]
    tokens: tuple[str, ...]
    warnings: tuple[str, ...]

    def count(self, found: str) -> int:
        """How many edges are found there."""
        return sum(entry[2] == found for entry in self.edges.values())

    @property
    def jaccard(self) -> float:
        """Edges in both circuits as a share of those in either."""
        return self.count("both") / max(len(self.edges), 1)


def key_edge(edge: Edge) -> Key:
    """What makes an edge the same in two runs."""
    return edge.writer, edge.reader, edge.role


def list_scores(run: Run, keys: Sequence[Key]) -> dict[Key, float]:
    """Scores of edges in a run: its circuit's, else those of the whole graph, else 0."""
    wiring = run.scores.wiring
    writers = {writer.name: index for index, writer in enumerate(wiring.writers)}
    readers = {(reader.component.name, reader.role): index for index, reader in enumerate(wiring.readers)}
    known = {key_edge(edge): edge.score for edge in run.circuit.edges}
    found = {}
    for key in keys:
        writer, position = split_node(key[0])
        place = writers.get(writer), readers.get((split_node(key[1])[0], key[2]))
        score = 0.0
        if None not in place and position < len(run.scores.edges):
            score = float(run.scores.edges[position, place[0], place[1]])
        found[key] = known.get(key, score)
    return found


def compare_runs(first: Run, second: Run) -> Comparison:
    """Union and difference of two runs. Raises UserError for units or depths that cannot be compared."""
    one, two = first.circuit, second.circuit
    if one.unit != two.unit:
        raise UserError(
            f"scores in {one.unit} and in {two.unit} cannot be subtracted: choose a run of the same metric and method"
        )
    if one.plan.layers != two.plan.layers:
        raise UserError(f"models of {one.plan.layers} and {two.plan.layers} layers have no nodes in common")
    keys = list(dict.fromkeys(key_edge(edge) for edge in (*one.edges, *two.edges)))
    scores = list_scores(first, keys), list_scores(second, keys)
    inside = {key_edge(edge) for edge in one.edges}, {key_edge(edge) for edge in two.edges}
    edges = {
        key: (
            scores[0][key],
            scores[1][key],
            "both" if key in inside[0] and key in inside[1] else "first alone" if key in inside[0] else "second alone",
        )
        for key in keys
    }
    joined = [Edge(*key, second_score - first_score) for key, (first_score, second_score, _) in edges.items()]
    nodes = join_nodes(one, two)
    moves = {(move.source, move.target): move for move in (*two.moves, *one.moves)}
    circuit = replace(
        one,
        nodes=nodes,
        edges=tuple(sorted(joined, key=lambda edge: -abs(edge.score))),
        moves=tuple(moves.values()),
        total=max(one.total, two.total),
    )
    return Comparison(circuit, edges, join_tokens(first.tokens, second.tokens), tuple(list_warnings(first, second)))


def join_nodes(one: Circuit, two: Circuit) -> tuple[Node, ...]:
    """Nodes of both circuits, scores second minus first (0 where a circuit has none)."""
    scores = tuple({node.id: node.score for node in circuit.nodes} for circuit in (one, two))
    nodes = {node.id: node for node in (*one.nodes, *two.nodes)}
    return tuple(
        replace(node, score=scores[1].get(name, 0.0) - scores[0].get(name, 0.0)) for name, node in nodes.items()
    )


def join_tokens(one: Sequence[str], two: Sequence[str]) -> tuple[str, ...]:
    """Text of each column: the token of both, or both with a stroke between."""
    pairs = zip_longest(one, two, fillvalue="")
    return tuple(a if a == b else f"{a.strip()}/{b.strip()}" for a, b in pairs)


def list_warnings(first: Run, second: Run) -> list[str]:
    """What differs between two runs that their scores depend on."""
    warnings = []
    for name in ("method", "ablation", "metric"):
        one, two = getattr(first.circuit, name), getattr(second.circuit, name)
        if one != two:
            warnings.append(f"{name} {one} and {two}: differences of scores are also due to that")
    hashes = [(run.about.get("model") or {}).get("sha256") for run in (first, second)]
    if hashes[0] != hashes[1]:
        warnings.append("the models' weights differ")
    if len(first.tokens) != len(second.tokens):
        warnings.append(
            f"prompts of {len(first.tokens)} and {len(second.tokens)} tokens: nodes are matched by position alone"
        )
    if first.circuit.plan != second.circuit.plan:
        warnings.append("other memories are attached: an edge that a run's model lacks counts as 0")
    return warnings


def mark_difference(drawing: Drawing, comparison: Comparison) -> Drawing:
    """The drawing of a union with lines by where they are found, and a legend that says so."""
    return replace(
        drawing,
        lines=tuple(mark_line(line, comparison) for line in drawing.lines),
        legend=LEGEND,
        caption=f"Difference of two circuits, second minus first, in {comparison.circuit.unit}: "
        f"{comparison.count('both'):,} edges in both, {comparison.count('first alone'):,} in the first alone, "
        f"{comparison.count('second alone'):,} in the second alone. Line width grows with the square root of the "
        "difference. Each is one of many possible circuits.",
    )


def mark_line(line: Line, comparison: Comparison) -> Line:
    """An edge's line as its entry says; other lines as they are."""
    entry = comparison.edges.get((line.source, line.target, line.role))
    if entry is None:
        return line
    one, two, found = entry
    unit = comparison.circuit.unit
    where = "in both circuits" if found == "both" else f"in the {found.replace(' alone', '')} circuit alone"
    title = (
        f"{line.source} → {line.target}: {format_score(two - one, unit)} "
        f"(first {format_score(one)}, second {format_score(two)}), {where}"
    )
    return replace(line, title=title, dash=DASHES[found])


def tabulate_comparison(comparison: Comparison) -> Columns:
    """One row an edge, largest difference first."""
    rows = [(edge, comparison.edges[key_edge(edge)]) for edge in comparison.circuit.edges]
    return {
        "writer": [edge.writer for edge, _ in rows],
        "reader": [edge.reader for edge, _ in rows],
        "found in": [found for _, (_, _, found) in rows],
        "first": [one for _, (one, _, _) in rows],
        "second": [two for _, (_, two, _) in rows],
        f"difference, {comparison.circuit.unit}": [edge.score for edge, _ in rows],
    }
