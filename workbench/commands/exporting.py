"""`export`: writes a saved run's circuit in another format, without torch."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.summaries import open_traced
from workbench.commands.terminal import clean_text
from workbench.exports import EXPORTS, KINDS, name_table
from workbench.exports_tables import TABLES
from workbench.figures.kinds import Wish, open_view
from workbench.storage import write_file


def declare_export(parser: argparse.ArgumentParser) -> None:
    """The run, the format and the file."""
    tables = {name_table(kind, table) for kind in KINDS for table in TABLES} - set(KINDS)
    names = tuple(name for name in EXPORTS if name not in tables)
    labels = "; ".join(f"{name}: {EXPORTS[name].label}" for name in names)
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run, its name in the runs folder, or a circuit file (.json)"
    )
    parser.add_argument("--to", choices=names, required=True, help=labels)
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write; one that is there is replaced")
    parser.add_argument(
        "--table",
        choices=tuple(TABLES),
        default="edges",
        help="which table csv, parquet and latex write (default: %(default)s)",
    )
    parser.add_argument(
        "--view", metavar="ID", default="", help="pictures and attribution graphs: a view of the run that the app saved"
    )


def export_run(options: argparse.Namespace) -> Answer:
    """Write a run's circuit to a file (and what belongs beside it), each whole or not at all."""
    export = EXPORTS[name_table(options.to, options.table) if options.to in KINDS else options.to]
    place, run = open_traced(options.run)
    if options.to in KINDS and options.table == "parts" and run.parts is None:
        raise UserError(f"{place} kept no parts: trace the question again with --parts N")
    out = Path(options.out)
    if options.view and not export.shows_view:
        shown = ", ".join(name for name, one in EXPORTS.items() if one.shows_view)
        raise UserError(f"--view is for pictures and graphs that hold pins ({shown}): leave it out for {options.to}")
    shows: dict[str, Any] = {"view": open_view(place, run, Wish(view=options.view))} if options.view else {}
    files = {out.name: export.write(run, **shows)} if export.write_files is None else {}
    if export.write_files is not None:
        files = export.write_files(run, out.name.removesuffix(".json"), **shows)
    paths = {out.with_name(name): data for name, data in files.items()}
    for path, data in paths.items():
        write_file(path, data)
    main, *beside = paths
    document = {
        "run": str(place),
        "format": options.to,
        "file": str(main),
        "beside": [str(path) for path in beside],
        "bytes": len(paths[main]),
        "sha256": hashlib.sha256(paths[main]).hexdigest(),
        "drops": export.drops,
    }
    more = f", and beside it {', '.join(clean_text(path.name) for path in beside)}" if beside else ""
    return Answer(document, f"wrote {clean_text(main)} ({len(paths[main])} bytes){more}; {export.drops}")


EXPORT = Command(
    "export",
    "Write a saved run's circuit as a figure, a graph, a table, a page, or a file of another tool.",
    "memory-circuits export runs/france-capital-1a2b3c4d --to graphml --out circuit.graphml",
    declare_export,
    export_run,
)
