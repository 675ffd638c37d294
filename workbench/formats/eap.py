"""A circuit as EAP-IG's graph JSON, which the MIB circuit track takes: every edge of the full graph with its score.

    cfg     n_layers, n_heads, parallel_attn_mlp, d_model
    nodes   input, a0.h0 ..., m0 ..., logits: in_graph, score
    edges   "PARENT->CHILD", into a head "PARENT->a0.h0<q>" (k, v): score, in_graph

There positions do not exist: they are summed. Neither do memories: their nodes and edges are listed in a file beside.
Their heads have keys and values of their own; of a key-value head that several heads share, each gets an equal part.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from circuits.graph import Component, Kind, Plan, parse_component, split_node, wire
from probes.errors import UserError
from workbench.circuit_files import Traced
from workbench.runs import Run

NO_PLACE = (Kind.EXPLICIT, Kind.LEARNED, Kind.BANK)
# Edges that a file may list: as many are a gigabyte of JSON, and several of memory while they are written.
MOST_EDGES = 10_000_000


def name_node(component: Component) -> str:
    """Their name of a component, empty where they have none."""
    match component.kind:
        case Kind.EMBEDDING:
            return "input"
        case Kind.LOGITS:
            return "logits"
        case Kind.HEAD:
            return f"a{component.layer}.h{component.head}"
        case Kind.MLP:
            return f"m{component.layer}"
        case _:
            return ""


def name_edges(writer: Component, reader: Component, role: str, plan: Plan) -> list[str]:
    """Their names of an edge: one, or one a head that shares the key-value head; none where an end is a memory."""
    parent, child = name_node(writer), name_node(reader)
    if not parent:
        return []
    if reader.kind is Kind.KEY_VALUE:
        heads = range(reader.head * plan.group, (reader.head + 1) * plan.group)
        return [f"{parent}->a{reader.layer}.h{head}<{role}>" for head in heads]
    if not child:
        return []
    return [f"{parent}->{child}<{role}>" if reader.kind is Kind.HEAD else f"{parent}->{child}"]


def count_all_edges(plan: Plan) -> int:
    """Edges of the full graph, without listing them: a circuit of another tool may claim any number of layers."""
    count, before = 0, 1
    for _ in range(plan.layers):
        count += 3 * plan.heads * before + before + (0 if plan.parallel else plan.heads)
        before += plan.heads + 1
    return count + before


def refuse_size(plan: Plan) -> None:
    """Raise UserError for a full graph of more edges than a file of all of them can have."""
    count = count_all_edges(plan)
    if count > MOST_EDGES:
        raise UserError(
            f"EAP-IG's JSON lists every edge of the full graph, and this model's has {count:,} ({plan.layers} layers, "
            f"{plan.heads} heads): at most {MOST_EDGES:,} are written; choose another format"
        )


def list_all_edges(plan: Plan) -> Iterator[str]:
    """Names of all edges of the full graph, in the order of their children."""
    before = ["input"]
    for layer in range(plan.layers):
        heads = [f"a{layer}.h{head}" for head in range(plan.heads)]
        for head in heads:
            for role in "qkv":
                yield from (f"{parent}->{head}<{role}>" for parent in before)
        seen = before if plan.parallel else [*before, *heads]
        yield from (f"{parent}->m{layer}" for parent in seen)
        before = [*before, *heads, f"m{layer}"]
    yield from (f"{parent}->logits" for parent in before)


def sum_edges(run: Traced) -> dict[str, float]:
    """Score of each edge summed over positions: of the whole graph for a run, else of the circuit alone."""
    plan, totals = run.circuit.plan, dict[str, float]()
    if isinstance(run, Run):
        wiring, table = wire(plan), run.scores.edges.astype(float).sum(axis=0)
        for w, writer in enumerate(wiring.writers):
            for r, reader in enumerate(wiring.readers):
                if wiring.visible[w, r]:
                    names = name_edges(writer, reader.component, reader.role, plan)
                    add_share(totals, names, float(table[w, r]))
        return totals
    for edge in run.circuit.edges:
        names = name_edges(*read_ends(edge.writer, edge.reader, plan), edge.role, plan)
        add_share(totals, names, edge.score)
    return totals


def add_share(totals: dict[str, float], names: list[str], score: float) -> None:
    """Add a score in equal parts to the edges of these names."""
    for name in names:
        totals[name] = totals.get(name, 0.0) + score / len(names)


def read_ends(writer: str, reader: str, plan: Plan) -> tuple[Component, Component]:
    """Components of two node ids."""
    first, second = (parse_component(split_node(node)[0], plan.layers) for node in (writer, reader))
    return first, second


def encode_eap(run: Traced) -> tuple[dict[str, Any], dict[str, Any]]:
    """Their document, and what had no place in it. Raises UserError for a full graph that is too large to be listed."""
    refuse_size(run.circuit.plan)
    circuit, plan = run.circuit, run.circuit.plan
    scores, kept, lost = sum_edges(run), set[str](), list[dict[str, Any]]()
    for edge in circuit.edges:
        names = name_edges(*read_ends(edge.writer, edge.reader, plan), edge.role, plan)
        kept.update(names)
        if not names:
            lost.append({"writer": edge.writer, "reader": edge.reader, "role": edge.role, "score": edge.score})
    node_totals: dict[str, float] = defaultdict(float)
    for node in circuit.nodes:
        node_totals[name_node(node.component)] += node.score
    ends = {part.split("<")[0] for name in kept for part in name.split("->")}
    heads = [f"a{layer}.h{head}" for layer in range(plan.layers) for head in range(plan.heads)]
    every = ["input", *heads, *(f"m{layer}" for layer in range(plan.layers)), "logits"]
    document = {
        "cfg": {
            "n_layers": plan.layers,
            "n_heads": plan.heads,
            "parallel_attn_mlp": plan.parallel,
            "d_model": int((run.about.get("model") or {}).get("d_model", 0)),
        },
        "nodes": {name: {"in_graph": name in ends, "score": float(node_totals.get(name, 0.0))} for name in every},
        "edges": {
            name: {"score": float(scores.get(name, 0.0)), "in_graph": name in kept} for name in list_all_edges(plan)
        },
    }
    dropped = {
        "nodes": [node.id for node in circuit.nodes if node.component.kind in NO_PLACE],
        "edges": lost,
        "moves": len(circuit.moves),
        "positions": len(run.tokens),
        "key_value_heads": plan.kv_heads,
        "method": circuit.method,
        "ablation": circuit.ablation,
        "metric": circuit.metric,
        "unit": circuit.unit,
    }
    return document, dropped


def write_eap(run: Traced) -> bytes:
    """Their file."""
    return json.dumps(encode_eap(run)[0], ensure_ascii=True, indent=1, allow_nan=False).encode() + b"\n"


def write_eap_files(run: Traced, stem: str) -> dict[str, bytes]:
    """Their file, and beside it what had no place there."""
    document, dropped = encode_eap(run)
    files = {f"{stem}.json": document, f"{stem}.dropped.json": dropped}
    return {
        name: json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False).encode() + b"\n"
        for name, value in files.items()
    }
