"""Tables of the pages as columns of plain values: facts, runs, edges of a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from circuits.circuit import Circuit, Edge, Move, Node
from circuits.graph import split_node
from circuits.parts import KeptPart
from probes.facts import Fact
from workbench.answers import Condition, Found
from workbench.runs import Run
from workbench.views.describe import ROLES
from workbench.views.memories import find_source
from workbench.views.text import shorten, show_line, show_token

Columns = dict[str, list[Any]]


def search_facts(
    facts: Iterable[Fact],
    words: str,
    relation: str = "",
    split: str = "",
    bucket: int | None = None,
    path: tuple[int, ...] = (),
) -> list[Fact]:
    """Facts that hold every word, in any of their texts or their document, and pass the filters.

    These are relation and split (empty: any), bucket (None: any) and the clusters with which their path starts.
    """
    wanted = words.lower().split()
    return [
        fact
        for fact in facts
        if (not relation or fact.relation == relation)
        and (not split or fact.split == split)
        and (bucket is None or fact.bucket == bucket)
        and fact.cluster_path[: len(path)] == path
        and holds(fact, wanted)
    ]


def holds(fact: Fact, words: Sequence[str]) -> bool:
    """Whether a fact's texts hold every word (given in lower case)."""
    if not words:
        return True
    text = f"{fact.id} {fact.subject} {fact.relation} {fact.object} {fact.kind} {fact.document_id} {fact.document}"
    return all(word in text.lower() for word in words)


def tabulate_facts(facts: Sequence[Fact]) -> Columns:
    """One row a fact."""
    return {
        "id": [fact.id for fact in facts],
        "subject": [fact.subject for fact in facts],
        "relation": [fact.relation for fact in facts],
        "object": [fact.object for fact in facts],
        "bucket": [fact.bucket if fact.bucket >= 0 else None for fact in facts],
        "split": [fact.split for fact in facts],
        "clusters": [" › ".join(str(cluster) for cluster in fact.cluster_path) for fact in facts],
        "document": [shorten(show_line(fact.document), 120) for fact in facts],
    }


def tabulate_answers(conditions: Sequence[Condition]) -> Columns:
    """One row a next token of a condition: its text with spaces visible, its id, its probability."""
    rows = [(one.name, found) for one in conditions for found in dict.fromkeys((*one.top, *one.steps))]
    return {
        "condition": [name for name, _ in rows],
        "token": [show_token(found.text) for _, found in rows],
        "id": [found.token for _, found in rows],
        "probability": [found.probability for _, found in rows],
    }


def tabulate_found(found: Sequence[Found]) -> Columns:
    """One row an explicit memory that a prompt reads; no cosine where it was named."""
    return {
        "memory": [one.id for one in found],
        "cosine": [one.similarity for one in found],
        "document": [one.document for one in found],
        "text": [show_line(one.text) for one in found],
    }


def tabulate_pairs(run: Run) -> Columns:
    """One row a prompt pair of a run."""
    texts = {"prompt": "clean", "counterfactual": "counterfactual"}
    tokens = {"answer": "answer", "foil": "foil"}
    return {name: [show_line(str(pair[key])) for pair in run.pairs] for name, key in texts.items()} | {
        name: [show_token(str(pair[key])) for pair in run.pairs] for name, key in tokens.items()
    }


def tabulate_overlap(rows: Sequence[dict[str, Any]]) -> Columns:
    """One row a variant of the question: how much of the circuit comes back."""
    return {
        "variant": [show_line(str(row["name"])) for row in rows],
        "kind": [show_line(str(row["kind"])) for row in rows],
        "Jaccard": [row["jaccard"] for row in rows],
        "Spearman": [row["spearman"] for row in rows],
        "not measured because": [show_line(str(row["reason"])) for row in rows],
    }


def name_end(node: str, tokens: Sequence[str]) -> str:
    """A node's id with its token, for a table."""
    _, position = split_node(node)
    return f"{node}  {show_token(tokens[position])}" if position < len(tokens) else node


def tabulate_edges(edges: Sequence[Edge], tokens: Sequence[str], other: str, unit: str) -> Columns:
    """Edges of a node by strength; `other` is the end to list, `writer` or `reader`."""
    ordered = sorted(edges, key=lambda edge: -abs(edge.score))
    return {
        "from" if other == "writer" else "to": [name_end(getattr(edge, other), tokens) for edge in ordered],
        "input": [ROLES.get(edge.role, edge.role) for edge in ordered],
        unit: [edge.score for edge in ordered],
    }


def tabulate_moves(moves: Sequence[Move], tokens: Sequence[str], other: str) -> Columns:
    """Attention that joins a node to other positions, strongest first."""
    ordered = sorted(moves, key=lambda move: -move.weight)
    return {
        "from" if other == "source" else "to": [name_end(getattr(move, other), tokens) for move in ordered],
        "attention": [move.weight for move in ordered],
    }


def tabulate_members(members: Sequence[Node], tokens: Sequence[str], unit: str) -> Columns:
    """One row a member of a supernode, strongest first."""
    ordered = sorted(members, key=lambda node: -abs(node.score))
    return {"node": [name_end(node.id, tokens) for node in ordered], unit: [node.score for node in ordered]}


def tabulate_parts(run: Run, parts: Sequence[KeptPart]) -> Columns:
    """Parts of one node, in their order: the token that each brings, and its estimates by way of removal."""
    columns: Columns = {"part": [part.component.name for part in parts]}
    sources = [find_source(run, part.component) for part in parts]
    if any(sources):
        columns["token"] = [show_token(source) if source else "" for source in sources]
    columns["ablated"] = [part.score for part in parts]
    if any(part.contribution is not None for part in parts):
        columns |= {name: [getattr(part, name) for part in parts] for name in ("contribution", "renormalised")}
    return columns


def tabulate_circuit(circuit: Circuit, edges: int) -> Columns:
    """The strongest edges of a circuit."""
    shown = circuit.edges[:edges]
    return {
        "writer": [edge.writer for edge in shown],
        "reader": [edge.reader for edge in shown],
        "input": [ROLES.get(edge.role, edge.role) for edge in shown],
        circuit.unit: [edge.score for edge in shown],
    }
