"""`sweep`, `query` and `sweep-costs`: many facts by many methods in many conditions, what came out, what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from circuits.methods import METHODS
from probes.errors import UserError
from workbench.commands.attributing import declare_removal
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.questions import DEFAULTS, declare_model, declare_seed, read_settings
from workbench.commands.terminal import clean_text, format_pairs, format_table, show_progress
from workbench.library import find_sweeps
from workbench.settings import ABLATIONS, METRICS
from workbench.sweeps.plans import CONDITIONS, GIVEN, LEDGER, METHOD_NAMES, Order
from workbench.sweeps.queries import VIEW, ask, count_outcomes, open_sweeps
from workbench.sweeps.sweeping import ENGINES, sweep

BATCH = 32


def declare_sweep(parser: argparse.ArgumentParser) -> None:
    """The facts, what is measured of them and how it is listed, who does it and where it goes."""
    parser.add_argument(
        "facts",
        metavar="FACTS",
        nargs="?",
        help="a .csv, .jsonl or .parquet table: ids of shipped facts (column id), or id, subject, relation, object, "
        "prompt, answer of your own; left out, all shipped facts",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", required=True, help="folder of the table; one that was stopped goes on"
    )
    declare_measures(parser)
    declare_model(parser)
    declare_removal(parser)
    declare_workers(parser)
    declare_seed(parser)


def declare_measures(parser: argparse.ArgumentParser) -> None:
    """Methods, conditions, and what is listed."""
    parser.add_argument(
        "--method",
        dest="methods",
        choices=METHOD_NAMES,
        action="append",
        help="again for several (default: eap and ledger); ledger: margin divided over formats; "
        f"{list_choices(METHODS)}",
    )
    labels = "; ".join(f"{name}: {one.label}" for name, one in CONDITIONS.items() if one is not None)
    parser.add_argument(
        "--condition",
        dest="conditions",
        choices=tuple(CONDITIONS),
        action="append",
        help=f"again for several; {GIVEN}: as --bank, --memory and --text say; {labels} (default: {GIVEN})",
    )
    for name, table in (("ablation", ABLATIONS), ("metric", METRICS)):
        default = getattr(DEFAULTS, name)
        parser.add_argument(
            f"--{name}", choices=tuple(table), default=default, help=f"{list_choices(table)} (default: %(default)s)"
        )
    for name, value, text in (
        ("steps", DEFAULTS.steps, "points of the path of an integrated gradient"),
        ("rows", BATCH, "prompts that run at once"),
        ("top", 20, "nodes, edges, and parts of each format listed of a fact at most"),
        ("chunk", 128, "facts of a part"),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=int, default=value, help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--at-least",
        metavar="VALUE",
        type=float,
        default=0.0,
        help="smallest size of a listed value, in its unit (default: %(default)s)",
    )


def declare_workers(parser: argparse.ArgumentParser) -> None:
    """Who does the work."""
    group = parser.add_argument_group("workers (they change no number)")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="local: processes of this machine that share the weights; ray: a Ray cluster (default: %(default)s)",
    )
    group.add_argument(
        "--processes", metavar="N", type=int, default=1, help="processes, or Ray actors (default: %(default)s)"
    )
    group.add_argument(
        "--address", metavar="HOST:PORT", default="", help="of a Ray cluster; left out, one started here"
    )
    group.add_argument(
        "--gpus", metavar="N", type=float, default=0.0, help="GPUs of a Ray actor (default: %(default)s)"
    )
    group.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=1,
        help="threads of each process; another number can change a last digit, so it belongs to the question "
        "(default: %(default)s)",
    )


def read_order(options: argparse.Namespace) -> Order:
    """What is to be measured. Raises UserError for what cannot be."""
    if not 0 <= options.at_least < float("inf"):
        raise UserError(f"--at-least is {options.at_least}: give a number from 0")
    order = Order(
        read_settings(options),
        tuple(options.conditions or (GIVEN,)),
        tuple(options.methods or ("eap", LEDGER)),
        options.removal,
        options.top,
        options.at_least,
        options.chunk,
        options.threads,
    )
    order.check()
    return order


def sweep_facts(options: argparse.Namespace) -> Answer:
    """Measure all facts and count what came out."""
    order, folder = read_order(options), Path(options.out).expanduser()
    if not 1 <= options.processes <= 1024:
        raise UserError(f"--processes is {options.processes}: give a whole number from 1 to 1024")
    if options.engine != "ray" and (options.address or options.gpus):
        raise UserError("--address and --gpus are about a Ray cluster: choose --engine ray")
    path = Path(options.facts).expanduser() if options.facts else None
    with show_progress() as tick:
        workers = options.processes, options.address, options.gpus
        found = sweep(path, folder, order, options.engine, *workers, tick)
    outcomes = count_outcomes(open_sweeps(folder))
    measured = [(condition, method, n) for _, condition, method, reason, n in outcomes if not reason]
    reasons = [(condition, method, reason, n) for _, condition, method, reason, n in outcomes if reason]
    document = {
        "out": str(folder),
        **found,
        "measured": [dict(zip(("condition", "method", "facts"), row, strict=True)) for row in measured],
        "not_measured": [dict(zip(("condition", "method", "reason", "facts"), row, strict=True)) for row in reasons],
    }
    return Answer(document, describe_outcomes(document))


def describe_outcomes(document: dict[str, Any]) -> str:
    """Counts as text."""
    parts = f"{document['parts']}, {document['resumed']} there already"
    head = format_pairs([("facts", document["facts"]), ("parts", parts), ("table", document["out"])])
    rows = [[row["condition"], row["method"], "measured", row["facts"]] for row in document["measured"]]
    rows += [
        [row["condition"], row["method"], f"not measured: {row['reason']}", row["facts"]]
        for row in document["not_measured"]
    ]
    table = format_table(("condition", "method", "outcome", "facts"), rows, width=80)
    return f"{head}\n\n{table}"


def declare_query(parser: argparse.ArgumentParser) -> None:
    """The query and which sweeps it is about."""
    parser.add_argument("sql", metavar="SQL", help=f"one query over the view `{VIEW}`, a row a row of any part")
    parser.add_argument(
        "--sweeps",
        metavar="FOLDER",
        help="a sweep, or a folder of sweeps (default: $MEMORY_CIRCUITS_SWEEPS, or `sweeps` here)",
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, default=1000, help="rows shown at most (default: %(default)s)"
    )


def query_sweeps(options: argparse.Namespace) -> Answer:
    """Answer a query in SQL."""
    if not 1 <= options.limit <= 10_000_000:
        raise UserError(f"--limit is {options.limit}: give a whole number from 1 to 10000000")
    folder = Path(options.sweeps).expanduser() if options.sweeps else find_sweeps()
    found = ask(open_sweeps(folder), options.sql, options.limit)
    text = format_table([clean_text(name) for name in found.columns], [list(row) for row in found.rows])
    more = f"\nthere are more rows: raise --limit above {options.limit}" if found.more else ""
    return Answer(found.to_json(), text + more)


SWEEP = Command(
    "sweep",
    "Measure many facts by several methods in several conditions, as one table; resumable, by processes or on Ray.",
    "memory-circuits sweep facts.csv --method eap --method ledger --processes 2 --out sweeps/first",
    declare_sweep,
    sweep_facts,
)

QUERY = Command(
    "query",
    "Ask the tables of sweeps in SQL; only their parts can be read, and nothing is written.",
    "memory-circuits query \"SELECT component, avg(value) FROM sweeps WHERE row = 'node' GROUP BY 1\"",
    declare_query,
    query_sweeps,
)
SWEEPS = (SWEEP, QUERY)
