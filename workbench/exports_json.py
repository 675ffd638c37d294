"""Our own circuit file: one versioned JSON document, the schema it obeys, and a strict reader.

The document holds the circuit, what was asked, how it was measured and with what: everything that a figure or a
table needs. `circuit.schema.json` (JSON Schema, 2020-12) lies beside this module; the reader checks a document
against that same file, so that the two cannot disagree.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from circuits.circuit import Circuit
from circuits.graph import wire
from circuits.parts import PART_KINDS, KeptParts
from probes.errors import UserError
from probes.strict_json import refuse_constant
from workbench.circuit_files import CircuitFile, Traced
from workbench.exports_tables import find_token
from workbench.json_values import is_integer, is_number
from workbench.parts import decode_parts, encode_parts
from workbench.run_checks import check_faithfulness, check_memories, check_model
from workbench.runs import decode_circuit, list_tokens, upgrade
from workbench.views.describe import describe_node, describe_part
from workbench.views.memories import find_source

FORMAT = "memory-circuits/circuit"
VERSION = 2
COPIED = (
    "question",
    "settings",
    "model",
    "memories",
    "fact",
    "pairs",
    "summed",
    "selection",
    "faithfulness",
    "versions",
    "command",
)


@functools.cache
def load_schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    text = resources.files("workbench").joinpath("circuit.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def encode_document(run: Traced) -> dict[str, Any]:
    """The document as a JSON object."""
    circuit = run.circuit
    nodes = [
        {
            "id": node.id,
            "kind": str(node.component.kind),
            "layer": node.component.layer,
            "head": node.component.head,
            "block": node.component.block,
            "position": node.position,
            "token": find_token(run.tokens, node.position),
            "label": describe_node(node, run.tokens, circuit.unit),
            "score": node.score,
        }
        for node in circuit.nodes
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        **{name: run.about.get(name) for name in COPIED},
        **{name: getattr(circuit, name) for name in ("method", "ablation", "metric", "unit", "requested", "total")},
        "plan": asdict(circuit.plan),
        "nodes": nodes,
        "edges": [asdict(edge) for edge in circuit.edges],
        "moves": [asdict(move) for move in circuit.moves],
        **({} if run.parts is None else {"parts": spell_parts(run, run.parts)}),
    }


def spell_parts(run: Traced, kept: KeptParts) -> dict[str, Any]:
    """Kept parts as a JSON object, each with its position, tokens and a sentence."""
    value = encode_parts(kept)
    for part, entry in zip(kept.parts, value["list"], strict=True):
        source = find_source(run, part.component)
        entry["position"] = part.position
        entry["token"] = find_token(run.tokens, part.position)
        entry["source"] = source
        entry["label"] = describe_part(part, run.tokens, source, kept.unit)
    return value


def write_json(run: Traced) -> bytes:
    """The document's bytes: UTF-8, sorted keys, numbers that read back the same."""
    # ensure_ascii: a token may be half a character, which UTF-8 cannot hold but a JSON escape can.
    text = json.dumps(encode_document(run), ensure_ascii=True, indent=1, sort_keys=True, allow_nan=False)
    return text.encode() + b"\n"


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice[:80]!r} occurs twice in one object")
    return found


def parse_document(data: bytes) -> Any:
    """JSON value of a file. Raises UserError when it is not strict JSON."""
    try:
        return json.loads(data, parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a circuit file: it is not JSON ({error})") from None


def spell_floats(document: dict[str, Any]) -> dict[str, Any]:
    """The document with whole numbers such as 1 made floats where a score or weight is meant."""
    edges = [{**edge, "score": float(edge["score"])} for edge in document["edges"]]
    moves = [{**move, "weight": float(move["weight"])} for move in document["moves"]]
    return {**document, "edges": edges, "moves": moves}


def check_references(document: dict[str, Any], circuit: Circuit) -> None:
    """Raise UserError, naming the field, when nodes contradict their ids or edges join what is not there."""
    known: set[str] = set()
    for index, (node, listed) in enumerate(zip(circuit.nodes, document["nodes"], strict=True)):
        field = f"$.nodes[{index}]"
        if node.id in known:
            raise UserError(f"not a circuit file: {field}.id is {node.id!r} for the second time")
        known.add(node.id)
        part = node.component
        meant = {"kind": str(part.kind), "layer": part.layer, "head": part.head, "block": part.block}
        for name, value in {**meant, "position": node.position}.items():
            if listed[name] != value:
                raise UserError(f"not a circuit file: {field}.{name} is {listed[name]!r}, its id says {value!r}")
        if node.position >= len(list_tokens(document)):
            raise UserError(f"not a circuit file: {field}.position is {node.position}, beyond the prompt's tokens")
    for name, ends in (("edges", ("writer", "reader")), ("moves", ("source", "target"))):
        for index, item in enumerate(document[name]):
            for end in ends:
                if item[end] not in known:
                    field = f"$.{name}[{index}].{end}"
                    raise UserError(f"not a circuit file: {field} is {item[end]!r}, which no node has as id")


def check_parts(document: dict[str, Any], parts: KeptParts) -> None:
    """Raise UserError, naming the field, for a part that contradicts its id or stands beyond the prompt."""
    for index, (part, listed) in enumerate(zip(parts.parts, document["parts"]["list"], strict=True)):
        field = f"$.parts.list[{index}]"
        meant = {"kind": PART_KINDS[part.component.kind], "position": part.position}
        for name, value in meant.items():
            if listed[name] != value:
                raise UserError(f"not a circuit file: {field}.{name} is {listed[name]!r}, its id says {value!r}")
        if part.position >= len(list_tokens(document)):
            raise UserError(f"not a circuit file: {field}.position is {part.position}, beyond the prompt's tokens")


# Characters of an error message; a longer one loses its middle.
LONGEST_FAULT = 300


def find_fault(document: object, schema: dict[str, Any] | None = None) -> str:
    """Where a document departs from a schema (the circuit file's) and how, cut when long; nothing when it obeys it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import extend

    # Stricter than JSON Schema, which takes 1.0 for a whole number; a number is one that a float holds.
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "number": lambda checker, value: is_number(value),
            "integer": lambda checker, value: is_integer(value) and is_number(value),
        }
    )
    strict = extend(Draft202012Validator, type_checker=types)
    error = best_match(strict(load_schema() if schema is None else schema).iter_errors(document))
    if error is None:
        return ""
    fault = f"{error.json_path}: {error.message}"
    return fault if len(fault) <= LONGEST_FAULT else f"{fault[:200]} … {fault[-80:]}"


def read_json(data: bytes) -> CircuitFile:
    """Circuit of a document that `write_json` wrote. Raises UserError that names the field at fault."""
    document = parse_document(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"not a circuit file: its format is not {FORMAT!r}")
    if document.get("version") == 1:
        try:
            document = {"selection": None, **upgrade(document)}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a circuit file of version 1: it has no pair ({error})") from None
    if document.get("version") != VERSION:
        raise UserError(f"the circuit file has version {document.get('version')!r}; this release reads {VERSION}")
    fault = find_fault(document)
    if fault:
        raise UserError(f"not a circuit file: {fault}")
    try:
        check_model(document["model"])
        check_memories(document["memories"] or {})
        check_faithfulness(document["faithfulness"] or {})
        circuit = decode_circuit(spell_floats(document))
    except ValueError as error:
        raise UserError(f"not a circuit file: {error}") from None
    check_references(document, circuit)
    parts = decode_parts(document.get("parts"), wire(circuit.plan))
    if parts is not None:
        check_parts(document, parts)
    return CircuitFile({name: document[name] for name in COPIED}, circuit, parts)
