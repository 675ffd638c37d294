"""`replay` and `check`: compute again what a saved run says, whole or at one node."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from circuits.graph import split_node
from probes.errors import UserError
from workbench import pipeline, replaying
from workbench.commands.command import Answer, Command
from workbench.commands.questions import restore_settings
from workbench.commands.summaries import open_run
from workbench.commands.terminal import format_pairs, format_table, show_progress
from workbench.settings import METHODS


def declare_replay(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name in the runs folder")


def replay_run(options: argparse.Namespace) -> Answer:
    """Compute a run again and say which numbers moved; exit code 1 when any did."""
    folder, run = open_run(options.run)
    settings = restore_settings(run.about["settings"])
    with show_progress() as tick:
        moved = replaying.replay(run, pipeline.open_engine(settings, tick), tick)
    rows = [(row.name, row.recorded, row.replayed, row.difference) for row in moved]
    document = {
        "run": str(folder),
        "identical": not moved,
        "differences": [dict(zip(("name", "recorded", "replayed", "difference"), row, strict=True)) for row in rows],
    }
    text = "identical: every number is the recorded one"
    if moved:
        text = f"{len(rows)} numbers moved\n{format_table(('number', 'recorded', 'replayed', 'difference'), rows)}"
    return Answer(document, text, code=1 if moved else 0)


def declare_check(parser: argparse.ArgumentParser) -> None:
    """The run and the node."""
    declare_replay(parser)
    parser.add_argument("node", metavar="NODE", help="a node of its circuit, for example a3.h1@7")


def check_node(options: argparse.Namespace) -> Answer:
    """Ablate one node of a run for real and put the measured effect beside the estimate."""
    split_node(options.node)
    folder, run = open_run(options.run)
    if run.circuit.find_node(options.node) is None:
        strongest = sorted(run.circuit.nodes, key=lambda node: -abs(node.score))[:5]
        known = ", ".join(node.id for node in strongest)
        raise UserError(f"{options.node[:80]!r} is not in the circuit of {folder}: its strongest nodes are {known}")
    settings = restore_settings(run.about["settings"])
    with show_progress() as tick:
        found = pipeline.check_node(pipeline.open_engine(settings, tick), run, options.node, tick)
    method = METHODS[found.method].label if found.method in METHODS else found.method
    pairs = [
        ("node", found.node),
        (f"{method} (recorded)", f"{found.estimate:.6g} {found.estimate_unit or found.unit}"),
        ("exact patching", f"{found.exact:.6g} {found.unit}"),
    ]
    if not found.estimate_unit:
        pairs.append(("estimate minus exact", f"{found.estimate - found.exact:.6g} {found.unit}"))
    return Answer({"run": str(folder), **asdict(found)}, format_pairs(pairs))


REPLAY = Command(
    "replay",
    "Compute a saved run again and say which numbers moved, by how much; exit code 1 when any did.",
    "memory-circuits replay runs/france-capital-1a2b3c4d",
    declare_replay,
    replay_run,
)

CHECK = Command(
    "check",
    "Ablate one node of a saved run for real and compare with the recorded estimate.",
    "memory-circuits check runs/france-capital-1a2b3c4d m3@4",
    declare_check,
    check_node,
)
