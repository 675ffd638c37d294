"""Circuits of other tools as ours: circuit-tracer and Neuronpedia attribution graphs, EAP-IG and MIB graphs.

What our own exports carry comes back whole. Of others, what has no counterpart here is left out and said so:
transcoder features are added up to the FFN of their layer, positions that a file does not have are one.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from circuits.circuit import Circuit, Edge, Move, build_node
from circuits.graph import Kind, Plan, can_see, check_plan, parse_component
from probes.errors import UserError
from workbench.circuit_files import CircuitFile
from workbench.exports_json import FORMAT, parse_document, read_json
from workbench.formats.attribution_graph import LESS, OWN, dump
from workbench.json_values import is_number

NOT_STATED = "not stated"
# More layers than any model has; a picture has a row for each.
MOST_LAYERS = 1000
_LABEL = re.compile(r'Output "(.*)" \(p=', re.DOTALL)
_EDGE = re.compile(r"(input|a\d+\.h\d+|m\d+)->(logits|m\d+|(a\d+\.h\d+)<([qkv])>)")


@dataclass(frozen=True, slots=True)
class Imported:
    """A circuit, the `kind` of file it came from, and in words what was left out or added up.

    `pinned` are node ids and `groups` named lists of them, as the other tool's reader had marked them.
    """

    kind: str
    circuit: CircuitFile
    notes: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    groups: dict[str, list[str]] = field(default_factory=dict)


def read_circuit(data: bytes, query: str = "") -> Imported:
    """Circuit of a file of ours or another tool; `query` is the viewer's, for an attribution graph.

    Raises UserError that names what the file lacks.
    """
    document = parse_document(data)
    if isinstance(document, dict):
        if document.get("format") == FORMAT:
            return Imported("memory-circuits", read_json(data))
        if {"metadata", "nodes", "links"} <= document.keys():
            return read_graph(document | {"qParams": parse_query(query)} if query else document)
        if {"cfg", "nodes", "edges"} <= document.keys():
            return read_eap(document)
    raise UserError(
        "not a circuit file: it is neither ours (format memory-circuits/circuit), nor an attribution graph (metadata, "
        "nodes, links), nor an EAP-IG graph (cfg, nodes, edges)"
    )


def parse_query(query: str) -> dict[str, Any]:
    """Pins and supernodes of a viewer's address or its query string, whose escapes the viewer undoes twice.

    Raises UserError for one that has neither.
    """
    found = parse_qs(query.split("#")[0].rpartition("?")[2])
    try:
        groups = json.loads(unquote(found.get("supernodes", ["[]"])[0]))
    except ValueError:
        groups = None
    if not ({"pinnedIds", "supernodes"} & found.keys()) or not isinstance(groups, list):
        raise UserError("the query has no pinnedIds or supernodes: copy it from the viewer's address, from `?` on")
    return {"pinnedIds": found.get("pinnedIds", [""])[0].split(","), "supernodes": groups}


def describe_origin(prompt: str, tokens: list[str], answer: str, summed: bool, scan: str) -> dict[str, Any]:
    """What is known of a circuit from elsewhere, all else empty."""
    pair = {
        "clean": prompt, "counterfactual": "", "clean_tokens": tokens, "counterfactual_tokens": [],
        "clean_ids": [-1] * len(tokens), "counterfactual_ids": [], "answer": answer, "foil": "",
        "answer_ids": [-1], "foil_ids": [-1], "answer_tokens": [answer], "foil_tokens": [""], "spans": [],
    }  # fmt: skip
    nothing = ("question", "settings", "memories", "fact", "selection", "faithfulness", "versions", "command")
    return {**dict.fromkeys(nothing), "model": {"name": scan}, "pairs": [pair], "summed": summed}


def make_circuit(plan: Plan, edges: list[Edge], moves: list[Move], scores: dict[str, float], **words: str) -> Circuit:
    """A circuit of these edges, strongest first, and the nodes that they join."""
    edges = sorted(edges, key=lambda edge: (-abs(edge.score), edge.writer, edge.reader, edge.role))
    ends = dict.fromkeys(end for edge in edges for end in (edge.writer, edge.reader))
    nodes = sorted(
        (build_node(end, scores.get(end, 0.0), plan) for end in ends),
        key=lambda node: (node.position, node.component.layer, node.id),
    )
    about = {"ablation": NOT_STATED, "metric": NOT_STATED, "unit": NOT_STATED} | words
    return Circuit(
        plan=plan, nodes=tuple(nodes), edges=tuple(edges), moves=tuple(moves), requested=len(edges), total=len(edges),
        **about,
    )  # fmt: skip


def read_field(item: Any, name: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """A field of an object. Raises UserError that names the field when it is missing or of another type."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise UserError(f"not an attribution graph or EAP-IG graph: {where}.{name} is {value!r:.80}")
    return value


def read_number(item: Any, name: str, where: str) -> float:
    """A field that is a number. Raises UserError that names the field for one that is none, or that no float holds."""
    value = read_field(item, name, (int, float), where)
    if not is_number(value):
        raise UserError(f"not an attribution graph or EAP-IG graph: {where}.{name} is larger than any number")
    return float(value)


def read_graph(document: dict[str, Any]) -> Imported:
    """Circuit of an attribution graph; our own comes back from what it carries."""
    metadata = read_field(document, "metadata", dict, "$")
    settings = metadata.get("generation_settings")
    own = settings.get(OWN) if isinstance(settings, dict) else None
    if own is not None:
        circuit = read_json(dump(own))
        names = match_names(circuit, document)
        return Imported("attribution-graph", circuit, (), *read_marks(document, names))
    tokens = [str(token) for token in read_field(metadata, "prompt_tokens", list, "$.metadata")]
    names, layers, answer, lost = name_features(document, len(tokens))
    plan = Plan(max(layers, 1), 1, 1)
    inner = 0
    totals: dict[tuple[str, str], float] = defaultdict(float)
    scores: dict[str, float] = defaultdict(float)
    for index, link in enumerate(read_field(document, "links", list, "$")):
        where = f"$.links[{index}]"
        ends = [names.get(read_field(link, end, str, where), "") for end in ("source", "target")]
        weight = read_number(link, "weight", where)
        if not all(ends):
            continue
        if ends[0] == ends[1]:
            inner += 1
            continue
        totals[ends[0], ends[1]] += weight
        scores[ends[0]] += weight
    edges = [Edge(source, target, "in", weight) for (source, target), weight in totals.items()]
    circuit_ = make_circuit(plan, edges, [], dict(scores), method="attribution graph", unit="logits")
    about = describe_origin(
        str(metadata.get("prompt", "")), tokens, answer, False, str(metadata.get("scan", NOT_STATED))
    )
    notes = [f"{len(names)} nodes added up to {len(circuit_.nodes)}: the features of a layer and position are its FFN"]
    notes += [f"left out: {count} nodes of type {kind}" for kind, count in sorted(lost.items())]
    notes += [f"left out: {inner} links inside one layer and position"] if inner else []
    return Imported("attribution-graph", CircuitFile(about, circuit_), tuple(notes), *read_marks(document, names))


def match_names(circuit: CircuitFile, document: dict[str, Any]) -> dict[str, str]:
    """Our node id of each of the graph's, for a graph that we wrote: in the same order."""
    nodes = read_field(document, "nodes", list, "$")
    return {
        str(node.get("node_id")): own.id
        for node, own in zip(nodes, circuit.circuit.nodes, strict=False)
        if isinstance(node, dict)
    }


def name_features(document: dict[str, Any], positions: int) -> tuple[dict[str, str], int, str, Counter[str]]:
    """Our node of each of theirs, the number of layers, the likeliest output, and what has no counterpart."""
    names: dict[str, str] = {}
    lost, layers, best = Counter[str](), 0, (-1.0, "")
    for index, node in enumerate(read_field(document, "nodes", list, "$")):
        where = f"$.nodes[{index}]"
        name, kind = (read_field(node, key, str, where) for key in ("node_id", "feature_type"))
        position = read_field(node, "ctx_idx", int, where)
        layer = str(read_field(node, "layer", (int, str), where))
        if not 0 <= position < max(positions, 1):
            raise UserError(f"not an attribution graph: {where}.ctx_idx is {position}, beyond the prompt's tokens")
        if kind == "embedding":
            names[name] = f"embed@{position}"
        elif kind == "logit":
            names[name] = f"logits@{position}"
            label = _LABEL.search(str(node.get("clerp", "")))
            chance = 0.0 if node.get("token_prob") is None else read_number(node, "token_prob", where)
            best = max(best, (chance, label[1] if label else ""))
        elif layer.isascii() and layer.isdigit() and not kind.startswith(("lorsa", "bias", "unknown")):
            depth = read_depth(layer, where)
            names[name], layers = f"m{depth}@{position}", max(layers, depth + 1)
        else:
            lost[kind] += 1
    return names, layers, best[1], lost


def read_depth(layer: str, where: str) -> int:
    """Layer of some digits. Raises UserError for more than any model has, however many digits they are."""
    depth = int(layer[:10])
    if len(layer) > 10 or depth >= MOST_LAYERS:
        raise UserError(f"not an attribution graph: {where}.layer is {layer[:20]}, and no model is so deep")
    return depth


def read_marks(document: dict[str, Any], names: dict[str, str]) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Pinned nodes and supernodes by our ids; members of supernodes, which a viewer must pin to show, are no pins."""
    marks = document.get("qParams")
    marks = marks if isinstance(marks, dict) else {}
    pins, lists = (found if isinstance(found := marks.get(key), list) else [] for key in ("pinnedIds", "supernodes"))
    members = {str(name) for group in lists if isinstance(group, list) for name in group[1:]}
    pinned = [names[str(name)] for name in pins if str(name) in names and str(name) not in members]
    groups = {
        str(group[0]).replace(LESS, "<"): [names[str(name)] for name in group[1:] if str(name) in names]
        for group in lists
        if isinstance(group, list) and group
    }
    return tuple(dict.fromkeys(pinned)), groups


def has_edge(plan: Plan, writer: str, reader: str) -> bool:
    """Whether a model of the plan has both components, and the second reads after the first wrote."""
    first, second = (parse_component(name, plan.layers) for name in (writer, reader))
    last = plan.layers if second.kind is Kind.LOGITS else plan.layers - 1
    whole = first.layer < plan.layers and second.layer <= last and max(first.head, second.head) < plan.heads
    return whole and can_see(first, second, plan.parallel)


def read_eap(document: dict[str, Any]) -> Imported:
    """Circuit of an EAP-IG graph: the edges that are in it, at one position that stands for all."""
    cfg = read_field(document, "cfg", dict, "$")
    layers, heads = (read_field(cfg, name, int, "$.cfg") for name in ("n_layers", "n_heads"))
    if not (1 <= layers <= MOST_LAYERS and 1 <= heads <= 10_000):
        raise UserError(f"not an EAP-IG graph: $.cfg has {layers} layers and {heads} heads")
    plan = Plan(layers, heads, heads, parallel=bool(cfg.get("parallel_attn_mlp", False)))
    check_plan(plan)
    nodes = read_field(document, "nodes", dict, "$")
    edges, used = [], set[str]()
    for name, edge in read_field(document, "edges", dict, "$").items():
        found = _EDGE.fullmatch(name)
        if found is None:
            raise UserError(f"not an EAP-IG graph: $.edges has {name[:80]!r}, which is no edge")
        if not read_field(edge, "in_graph", bool, f"$.edges[{name!r:.60}]"):
            continue
        score = read_number(edge, "score", f"$.edges[{name!r:.60}]")
        writer = "embed" if found[1] == "input" else found[1]
        reader, role = found[3] or found[2], found[4] or "in"
        if role in ("k", "v"):
            used.add(reader)
            reader = reader.replace(".h", ".kv")
        if not has_edge(plan, writer, reader):
            raise UserError(f"not an EAP-IG graph: $.edges has {name[:80]!r}, which a model of its cfg has not")
        edges.append(Edge(f"{writer}@0", f"{reader}@0", role, score))
    scores = {
        f"{'embed' if name == 'input' else name}@0": float(node["score"])
        for name, node in nodes.items()
        if isinstance(node, dict) and is_number(node.get("score"))
    }
    ends = {end for edge in edges for end in (edge.writer, edge.reader)}
    # A head's attention over all positions adds up to 1.
    moves = [Move(f"{head.replace('.h', '.kv')}@0", f"{head}@0", 1.0) for head in sorted(used) if f"{head}@0" in ends]
    circuit = make_circuit(plan, edges, moves, scores, method="EAP-IG graph")
    notes: tuple[str, ...] = ("the file has no positions, prompt, method, metric or unit",)
    if any(isinstance(node, dict) and "neurons" in node for node in nodes.values()):
        notes += ("left out: neurons of nodes",)
    return Imported("eap", CircuitFile(describe_origin("", [], "", True, NOT_STATED), circuit), notes)
