"""`import`: reads a circuit of ours, circuit-tracer, Neuronpedia, EAP-IG or MIB, and keeps it as ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_pairs
from workbench.exports_json import write_json
from workbench.importing import read_circuit
from workbench.storage import read_bytes, write_file


def declare_import(parser: argparse.ArgumentParser) -> None:
    """The file, and where its circuit goes."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a circuit of ours, an attribution graph of circuit-tracer or Neuronpedia, or a graph of EAP-IG or MIB",
    )
    parser.add_argument("--out", metavar="FILE", help="keep the circuit as this file, which figure and export take")


def import_circuit(options: argparse.Namespace) -> Answer:
    """Read the file, say what it holds and what of it has no place here, and keep it."""
    path = Path(options.file)
    found = read_circuit(read_bytes(path))
    circuit = found.circuit.circuit
    if options.out:
        write_file(Path(options.out), write_json(found.circuit))
    document = {
        "file": str(path),
        "kind": found.kind,
        "title": found.circuit.title,
        "nodes": len(circuit.nodes),
        "edges": len(circuit.edges),
        "moves": len(circuit.moves),
        "method": circuit.method,
        "unit": circuit.unit,
        "notes": list(found.notes),
        "pinned": list(found.pinned),
        "groups": found.groups,
        "out": options.out,
    }
    text = format_pairs(
        [
            ("kind", found.kind),
            ("prompt", found.circuit.title if found.circuit.pair["clean"] else None),
            ("circuit", f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges, {len(circuit.moves)} of attention"),
            (
                "method",
                f"{circuit.method}; ablation: {circuit.ablation}; metric: {circuit.metric}; unit: {circuit.unit}",
            ),
            *(("note", note) for note in found.notes),
            (
                "pinned",
                f"{len(found.pinned)} nodes, {len(found.groups)} groups" if found.pinned or found.groups else None,
            ),
            ("kept as", clean_text(options.out) if options.out else None),
        ]
    )
    return Answer(document, text)


IMPORT = Command(
    "import",
    "Read a circuit of circuit-tracer, Neuronpedia, EAP-IG, MIB or ours, and keep it as a circuit file.",
    "memory-circuits import graph.json --out circuit.json",
    declare_import,
    import_circuit,
)
