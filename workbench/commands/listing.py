"""`show` and `runs`: read saved runs; neither imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.part_lists import PARTS_SHOWN, add_parts
from workbench.commands.summaries import format_summary, open_run, summarise_run
from workbench.commands.terminal import clean_text, format_table
from workbench.library import find_runs
from workbench.run_index import Entry, list_entries

HEADINGS = ("run", "prompt and answer", "method", "ablation", "metric", "edges", "faithfulness")


def declare_show(parser: argparse.ArgumentParser) -> None:
    """The run, and how much of it."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name in the runs folder")
    parser.add_argument("--edges", metavar="N", type=int, default=0, help="also list the N strongest edges")
    parser.add_argument(
        "--parts",
        metavar="N",
        type=int,
        default=PARTS_SHOWN,
        help="of a run that kept parts, list the N strongest of each kind (default: %(default)s)",
    )


def show_run(options: argparse.Namespace) -> Answer:
    """Summary of a saved run."""
    folder, run = open_run(options.run)
    summary = summarise_run(run, folder)
    text = format_summary(summary)
    edges = run.circuit.edges[: max(options.edges, 0)]
    if edges:
        rows = [(edge.writer, edge.reader, edge.role, edge.score) for edge in edges]
        text += "\n\n" + format_table(("from", "to", "as", run.circuit.unit), rows)
        summary["strongest_edges"] = [
            {"writer": edge.writer, "reader": edge.reader, "role": edge.role, "score": edge.score} for edge in edges
        ]
    text = add_parts(run, options.parts, text, summary)
    return Answer({**summary, "versions": run.about["versions"], "command": run.about["command"]}, text)


def declare_runs(parser: argparse.ArgumentParser) -> None:
    """The folder to look in."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="folder of runs; left out, the runs folder")


def describe_entry(entry: Entry, folder: Path) -> dict[str, Any]:
    """One line of the list as a JSON object; texts that a run does not say are None."""
    return {
        "run": str(folder / entry.name),
        "clean": entry.prompt or None,
        "answer": entry.answer or None,
        "pairs": entry.pairs,
        **{name: getattr(entry, name) or None for name in ("method", "ablation", "metric", "unit")},
        "edges": entry.edges,
        "faithfulness": entry.faithfulness,
    }


def list_saved(options: argparse.Namespace) -> Answer:
    """The runs of a folder, one line each, by name."""
    folder = Path(options.folder) if options.folder else find_runs()
    if options.folder and not folder.is_dir():
        raise UserError(f"no folder {options.folder[:200]!r}: name one that holds runs, or leave it out")
    entries = [describe_entry(entry, folder) for entry in sorted(list_entries(folder), key=lambda entry: entry.name)]
    rows = [
        (
            Path(entry["run"]).name,
            f"{entry['clean']} → {str(entry['answer']).strip()}"
            + (f" (+ {entry['pairs'] - 1} pairs)" if entry["pairs"] > 1 else ""),
            *(entry[name] for name in ("method", "ablation", "metric", "edges", "faithfulness")),
        )
        for entry in entries
    ]
    empty = f"no runs in {clean_text(folder)}: `memory-circuits trace` makes one"
    return Answer({"folder": str(folder), "runs": entries}, format_table(HEADINGS, rows, width=60) if rows else empty)


SHOW = Command(
    "show",
    "Summarise a saved run: what was asked, how it was measured, what was found.",
    "memory-circuits show runs/france-capital-1a2b3c4d --edges 20",
    declare_show,
    show_run,
)

RUNS = Command(
    "runs",
    "List the saved runs of a folder.",
    "memory-circuits runs",
    declare_runs,
    list_saved,
)
