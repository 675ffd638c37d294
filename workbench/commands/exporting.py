"""`export`: writes a saved run's circuit in another format, without torch."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.summaries import open_run
from workbench.commands.terminal import clean_text
from workbench.exports import EXPORTS
from workbench.storage import write_file

TABLES = {"edges": "csv", "nodes": "csv-nodes", "parts": "csv-parts"}


def declare_export(parser: argparse.ArgumentParser) -> None:
    """The run, the format and the file."""
    names = tuple(name for name in EXPORTS if name == "csv" or name not in TABLES.values())
    labels = "; ".join(f"{name}: {EXPORTS[name].label}" for name in names)
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name in the runs folder")
    parser.add_argument("--to", choices=names, required=True, help=labels)
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write; one that is there is replaced")
    parser.add_argument(
        "--table", choices=tuple(TABLES), default="edges", help="which table csv writes (default: %(default)s)"
    )


def export_run(options: argparse.Namespace) -> Answer:
    """Write a run's circuit to a file, whole or not at all."""
    export = EXPORTS[TABLES[options.table] if options.to == "csv" else options.to]
    folder, run = open_run(options.run)
    if export.name == TABLES["parts"] and run.parts is None:
        raise UserError(f"{folder} kept no parts: trace the question again with --parts N")
    out = Path(options.out)
    data = export.write(run)
    write_file(out, data)
    document = {
        "run": str(folder),
        "format": options.to,
        "file": str(out),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "drops": export.drops,
    }
    return Answer(document, f"wrote {clean_text(out)} ({len(data)} bytes); {export.drops}")


EXPORT = Command(
    "export",
    "Write a saved run's circuit as our JSON, GraphML, SVG or CSV.",
    "memory-circuits export runs/france-capital-1a2b3c4d --to graphml --out circuit.graphml",
    declare_export,
    export_run,
)
