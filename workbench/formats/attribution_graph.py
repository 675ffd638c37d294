"""A circuit as the attribution graph that circuit-tracer's viewer and Neuronpedia open.

Rules of their schema (JSON Schema draft-07, "Anthropic Attribution Graph" 1.0.0) and of their viewers: ids are
`LAYER_INDEX_POSITION`, `E_TOKEN_POSITION` for embeddings; `feature` is the cantor pairing of layer and index; no value
of the metadata is null; an output's label holds `(p=...)`; no node threshold, which would hide nodes without influence.
Kinds of components have indices apart from each other within a layer. Attention is a link whose weight is the score of
its key-value head, shared out in proportion to the attention, so that links are all in the circuit's unit.

circuit-tracer's viewer takes labels for HTML where the mouse points, and shows of a supernode only members that are
pinned too: a `<` that could open a tag is written as a look-alike, and members are pinned.

Our whole document travels in `metadata.generation_settings.memory_circuits`: what was exported is what is imported.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from circuits.circuit import Node
from circuits.graph import Kind, Plan
from workbench.circuit_files import Traced
from workbench.exports_json import encode_document
from workbench.provenance import read_version
from workbench.views.describe import name_component
from workbench.views.drawing import View
from workbench.views.text import show_line, show_token

OWN = "memory_circuits"
TYPES = {
    Kind.EMBEDDING: "embedding",
    Kind.HEAD: "attention head",
    Kind.KEY_VALUE: "key-value head",
    Kind.EXPLICIT: "explicit memory",
    Kind.LEARNED: "learned key-values",
    Kind.MLP: "ffn",
    Kind.BANK: "bank block",
    Kind.LOGITS: "logit",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
# What HTML takes for the start of a tag, and what stands in its place: in text as good as never met.
_TAG, LESS = re.compile(r"<(?=[A-Za-z/!?])"), "\u02c2"
LONGEST_SLUG = 80


def make_slug(text: str) -> str:
    """A name that file systems, addresses and Neuronpedia take."""
    return _UNSAFE.sub("-", text).strip("-.")[:LONGEST_SLUG] or "circuit"


def disarm(text: str) -> str:
    """Text on one line that a viewer may take for HTML without finding a tag in it."""
    return _TAG.sub(LESS, show_line(text))


def pair_numbers(first: int, second: int) -> int:
    """Cantor's pairing: a number for two."""
    return (first + second) * (first + second + 1) // 2 + second


def number_component(node: Node, plan: Plan) -> int:
    """Index of a component within its layer; each kind has a range of its own."""
    sizes = {
        Kind.HEAD: plan.heads,
        Kind.KEY_VALUE: plan.kv_heads,
        Kind.EXPLICIT: plan.heads * plan.blocks,
        Kind.LEARNED: plan.learned,
        Kind.MLP: 1 + plan.experts,
        Kind.BANK: plan.levels,
    }
    component, start = node.component, 0
    for kind, size in sizes.items():
        if kind is component.kind:
            break
        start += size
    match component.kind:
        case Kind.HEAD | Kind.KEY_VALUE:
            return start + component.head
        case Kind.EXPLICIT:
            return start + component.head * plan.blocks + component.block
        case _:
            return start + max(component.block + (component.kind is Kind.MLP), 0)


def find_probability(run: Traced) -> float | None:
    """Probability of the answer in the condition with the run's memories; None where the run does not tell."""
    memories = run.about.get("memories") or {}
    names = {"bank": "bank", "explicit": "explicit memory", "text": "text"}
    attached = [name for key, name in names.items() if memories.get(key)]
    if len(attached) > 1 or len(run.pairs) > 1:
        return None
    wanted = attached[0] if attached else "parameters"
    for condition in run.about.get("conditions") or []:
        if condition["name"] == wanted and condition.get("answer"):
            return float(condition["answer"]["probability"])
    return None


def encode_node(node: Node, run: Traced) -> dict[str, Any]:
    """One node of the graph."""
    plan, position, pair = run.circuit.plan, node.position, run.pair
    kind, shared = node.component.kind, {"ctx_idx": node.position, "feature_type": TYPES[node.component.kind]}
    if kind is Kind.EMBEDDING:
        ids = [*pair["clean_ids"], *pair["answer_ids"][:-1]]
        token = ids[position] if position < len(ids) and not run.about["summed"] else position
        label = disarm(f"Embedding {show_token(run.tokens[position])}")
        return {
            **shared, "node_id": f"E_{token}_{position}", "feature": position, "layer": "E",
            "jsNodeId": f"E_{token}-{position}", "clerp": label, "token_prob": 0.0, "is_target_logit": False,
        }  # fmt: skip
    if kind is Kind.LOGITS:
        token, probability, layer = abs(int(pair["answer_ids"][-1])), find_probability(run), plan.layers + 1
        shown = "?" if probability is None else f"{probability:.3f}"
        return {
            **shared, "node_id": f"{layer}_{token}_{position}", "feature": token, "layer": str(layer),
            "jsNodeId": f"L_{token}-{position}", "clerp": f'Output "{disarm(pair["answer"])}" (p={shown})',
            "token_prob": probability or 0.0, "is_target_logit": True,
        }  # fmt: skip
    layer, index = node.component.layer, number_component(node, plan)
    return {
        **shared, "node_id": f"{layer}_{index}_{position}", "feature": pair_numbers(layer, index), "layer": str(layer),
        "jsNodeId": f"{layer}_{index}-0", "clerp": name_component(node.component), "activation": node.score,
        "token_prob": 0.0, "is_target_logit": False,
    }  # fmt: skip


def list_links(run: Traced, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Edges with the scores of their roles added up, and attention, sharing out its key-value head's score."""
    weights: dict[tuple[str, str], list[float]] = defaultdict(list)
    for edge in run.circuit.edges:
        weights[edge.writer, edge.reader].append(edge.score)
    scores = {node.id: node.score for node in run.circuit.nodes}
    given: dict[str, float] = defaultdict(float)
    for move in run.circuit.moves:
        given[move.source] += move.weight
    for move in run.circuit.moves:
        share = move.weight / given[move.source] if given[move.source] else 0.0
        weights[move.source, move.target].append(scores.get(move.source, 0.0) * share)
    return [
        {"source": names[source], "target": names[target], "weight": math.fsum(values)}
        for (source, target), values in weights.items()
        if source in names and target in names
    ]


def encode_graph(
    run: Traced, slug: str, pinned: Sequence[str] = (), groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """The graph as a JSON object; `pinned` are node ids of ours, `groups` name some (supernodes)."""
    circuit = run.circuit
    nodes = {node.id: encode_node(node, run) for node in circuit.nodes}
    names = {node: value["node_id"] for node, value in nodes.items()}
    model = run.about.get("model") or {}
    supernodes = [
        [disarm(name), *(names[node] for node in members if node in names)] for name, members in (groups or {}).items()
    ]
    pins = [names[node] for node in pinned if node in names]
    pins += [node for _, *members in supernodes for node in members]
    return {
        "metadata": {
            "slug": slug,
            "scan": make_slug(str(model.get("name", "model"))),
            "prompt_tokens": [disarm(token) for token in run.tokens],
            "prompt": show_line(str(run.pair["clean"])),
            "transcoder_list": [],
            "info": {
                "description": (
                    f"Method {circuit.method}, ablation {circuit.ablation}, metric {circuit.metric}; weights in "
                    f"{circuit.unit}, positive helps the answer. Nodes are heads, key-value heads, FFNs and memory "
                    "blocks, no transcoder features. Attention shares out the score of its key-value head."
                ),
                "generator": {"name": "memory-circuits", "version": read_version("memory-circuits")},
            },
            "generation_settings": {OWN: encode_document(run)},
        },
        "qParams": {
            "pinnedIds": list(dict.fromkeys(pins)),
            "supernodes": supernodes,
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": list(nodes.values()),
        "links": list_links(run, names),
    }


def dump(value: Any) -> bytes:
    """JSON in ASCII with sorted keys."""
    return json.dumps(value, ensure_ascii=True, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def encode_view(run: Traced, slug: str, view: View | None) -> dict[str, Any]:
    """The graph with the pins, supernodes and names of a view."""
    if view is None:
        return encode_graph(run, slug)
    state = view.curation
    graph = encode_graph(run, slug, state.spread(state.pinned), {group.name: group.members for group in state.groups})
    own = dict(state.names)
    for node, value in zip(run.circuit.nodes, graph["nodes"], strict=True):
        if node.id in own and value["feature_type"] != TYPES[Kind.LOGITS]:
            value["clerp"] = disarm(own[node.id])
    return graph


def write_attribution_graph(run: Traced, view: View | None = None) -> bytes:
    """The graph's file alone, named after the question."""
    return dump(encode_view(run, make_slug(run.title), view))


def write_attribution_files(run: Traced, stem: str, view: View | None = None) -> dict[str, bytes]:
    """The graph, the `graph-metadata.json` that the local viewer lists graphs from, and the query that opens it.

    The local viewer takes pins from the file and supernodes from the address alone, whose escapes it undoes twice.
    """
    slug = make_slug(stem)
    graph = encode_view(run, slug, view)
    pins, groups = graph["qParams"]["pinnedIds"], graph["qParams"]["supernodes"]
    spelled = quote(json.dumps(groups).replace("%", "%25"))
    query = f"?slug={quote(slug)}&pinnedIds={quote(','.join(pins))}&supernodes={spelled}"
    return {
        f"{slug}.json": dump(graph),
        "graph-metadata.json": dump({"graphs": [graph["metadata"]]}),
        f"{slug}.query.txt": f"{query}\n".encode(),
    }
