"""`import`: reads a circuit of ours, circuit-tracer, Neuronpedia, EAP-IG or MIB, and keeps it as ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_pairs
from workbench.exports_json import write_json
from workbench.importing import Imported, read_circuit
from workbench.storage import read_bytes, write_file
from workbench.view_files import SavedView, fit, save_view
from workbench.views.curation import LONGEST_NAME, Curation, Group

# A text as long as no path is.
LONGEST_PATH = 1000


def declare_import(parser: argparse.ArgumentParser) -> None:
    """The file, and where its circuit goes."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a circuit of ours, an attribution graph of circuit-tracer or Neuronpedia, or a graph of EAP-IG or MIB",
    )
    parser.add_argument("--out", metavar="FILE", help="keep the circuit as this file, which figure and export take")

    parser.add_argument(
        "--query",
        metavar="TEXT",
        default="",
        help="attribution graph: the query string of the viewer's address, or a file with it; its pins and supernodes "
        "stand in the place of the graph's",
    )


def read_query(text: str) -> str:
    """A query string, as given or as a file holds it."""
    path = Path(text)
    named = len(text) < LONGEST_PATH and path.is_file()
    return read_bytes(path).decode("utf-8", "replace").strip() if named else text


def keep_marks(place: Path, found: Imported) -> str:
    """Save pins and supernodes as a view beside the circuit's file; its id, empty where nothing is marked."""
    groups, taken = list[Group](), set[str]()
    for name, members in found.groups.items():
        if own := tuple(dict.fromkeys(member for member in members if member not in taken)):
            groups.append(Group(f"group:{len(groups) + 1}", name[:LONGEST_NAME] or f"group {len(groups) + 1}", own))
            taken |= set(own)
    if not (found.pinned or groups):
        return ""
    circuit, curation = found.circuit.circuit, Curation(pinned=found.pinned, groups=tuple(groups))
    view, _ = fit(SavedView(len(circuit.edges), curation=curation, title="imported"), circuit)
    return save_view(place, view)


def import_circuit(options: argparse.Namespace) -> Answer:
    """Read the file, say what it holds and what of it has no place here, and keep it."""
    path = Path(options.file)
    found = read_circuit(read_bytes(path), read_query(options.query))
    circuit, view = found.circuit.circuit, ""
    if options.out:
        write_file(Path(options.out), write_json(found.circuit))
        view = keep_marks(Path(options.out), found)
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
        "view": view or None,
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
            ("view", f"{view}: figure circuit {clean_text(options.out)} --view {view} draws them" if view else None),
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
