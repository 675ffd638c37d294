"""`replay` and `check`: compute again what a saved run says, whole or at one node or part."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from circuits.graph import split_node
from probes.errors import UserError
from workbench import checks, pipeline, replaying
from workbench.commands.command import Answer, Command
from workbench.commands.summaries import open_run
from workbench.commands.terminal import format_pairs, format_table, show_progress
from workbench.parts import is_part
from workbench.settings import ABLATIONS, METHODS, restore_settings


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
    """The run, and the node or part."""
    declare_replay(parser)
    parser.add_argument(
        "node",
        metavar="NODE|PART",
        help="a node of its circuit, for example a3.h1@7; or a part: FFN unit m3.u17@4, bank unit f3.l1.u5@4, memory "
        "slot x3.h1.b0.s4@7, attention edge a3.h1.p4@7 (from position 4 to 7)",
    )
    parser.add_argument(
        "--into", metavar="READER", default="", help="remove a unit or slot for this reader alone, for example logits"
    )


def check(options: argparse.Namespace) -> Answer:
    """Ablate one node or part of a run for real and put the measured effect beside the estimate."""
    split_node(options.node)
    if is_part(options.node):
        return check_part(options)
    if options.into:
        raise UserError(f"--into belongs to units and slots: {options.node[:80]} is a whole node, leave it out")
    return check_node(options)


def check_part(options: argparse.Namespace) -> Answer:
    """Remove one unit, slot or attention edge in every way that there is."""
    folder, run = open_run(options.run)
    settings = restore_settings(run.about["settings"])
    with show_progress() as tick:
        found = checks.check_part(pipeline.open_engine(settings, tick), run, options.node, options.into, tick)
    method = METHODS[found.method].label
    head = [
        ("part", found.part),
        ("removed for", found.reader or "all readers"),
        ("estimate", f"{method}, {'as the run kept it' if found.recorded else 'made now'}"),
        ("ablation", ABLATIONS[found.ablation].label if found.ablation in ABLATIONS else found.ablation),
        ("unit", f"{found.unit}, drop of the metric; positive helps the answer"),
    ]
    rows = [
        (way.removal, way.estimate, way.exact, None if way.estimate is None else way.estimate - way.exact)
        for way in found.ways
    ]
    table = format_table(("removed as", "estimate", "exact", "difference"), rows)
    return Answer({"run": str(folder), **asdict(found)}, f"{format_pairs(head)}\n\n{table}")


def check_node(options: argparse.Namespace) -> Answer:
    """Ablate one node and patch it exactly."""
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
    "Ablate one node or part of a saved run for real and compare with the estimate.",
    "memory-circuits check runs/france-capital-1a2b3c4d m3@4",
    declare_check,
    check,
)
