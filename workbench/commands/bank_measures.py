"""`bank tiers`, `bank specificity`, `hierarchy`: a bank's storage, its gain by task, and where knowledge lies."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.questions import DEFAULTS, declare_seed
from workbench.commands.terminal import clean_text, format_pairs, format_table, show_progress
from workbench.library import find_shipped

if TYPE_CHECKING:
    from workbench.banks.specificity import Task
    from workbench.engine import Engine


def declare_tiers(parser: argparse.ArgumentParser) -> None:
    """The bank, and how often it is read."""
    parser.add_argument(
        "bank", metavar="BANK", nargs="?", help="folder of a bank; left out, the paper's inferred configuration"
    )
    parser.add_argument(
        "--fetches", metavar="N", type=int, default=32, help="random fetches that are timed (default: %(default)s)"
    )
    parser.add_argument(
        "--texts", metavar="N", type=int, default=5000, help="texts of the simulation (default: %(default)s)"
    )
    declare_seed(parser)


def show_tiers(options: argparse.Namespace) -> Answer:
    """Measure a bank's storage and simulate caches, or simulate the paper's."""
    from probes.bank import load_bank
    from workbench.banks.measuring import measure_storage, simulate_bank, simulate_paper

    for name in ("fetches", "texts"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give 1 or more")
    if options.bank is None:
        document = simulate_paper(options.texts, options.seed)
        return Answer(document, f"the paper's 410M model, inferred\n\n{tabulate_caches(document)}")
    bank = load_bank(Path(options.bank).expanduser())
    with show_progress() as tick:
        storage = measure_storage(bank, options.fetches, options.seed, tick)
    simulated = simulate_bank(bank, storage, options.texts, options.seed)
    document = {"bank": options.bank, "measured": asdict(storage), **simulated}
    pairs = [
        (f"{tier.name}", f"{tier.bandwidth / 1e9:.3g} GB/s, {1e6 * tier.latency:.3g} microseconds a request")
        for tier in (storage.disk, storage.memory)
    ]
    pairs += [
        ("fetch, pages dropped", f"{1000 * storage.cold:.3g} ms (median of {options.fetches})"),
        ("fetch, cached", f"{1000 * storage.warm:.3g} ms"),
        ("fetch, from the tier", f"{simulated['predicted_ms']:.3g} ms (simulated)"),
        ("reads that met the disk", f"{storage.dropped:.0%}"),
    ]
    return Answer(document, f"{format_pairs(pairs)}\n\n{tabulate_caches(document)}")


def tabulate_caches(document: dict[str, Any]) -> str:
    """Hit rates and waits of the simulated caches."""
    rows = [
        [
            row["exponent"],
            f"{row['cache'] / 1e6:,.4g}",
            ", ".join(f"{hit:.1%}" for hit in row["hits"]),
            f"{row['ms']:.4g}",
        ]
        for row in document["rows"]
    ]
    return format_table(("Zipf exponent", "cache (MB)", "hits, level by level", "ms a text"), rows)


def declare_specificity(parser: argparse.ArgumentParser) -> None:
    """The tasks, the model and its bank."""
    parser.add_argument(
        "--tasks",
        metavar="FILE",
        help="a .csv, .jsonl or .parquet table: task, score (0 to 5), prompt, answer; left out, the shipped exercises "
        "and facts",
    )
    parser.add_argument("--model", metavar="NAME|FOLDER", default=DEFAULTS.model, help="(default: %(default)s)")
    parser.add_argument("--bank", metavar="auto|FOLDER", default=DEFAULTS.bank, help="(default: %(default)s)")
    parser.add_argument("--device", metavar="NAME", default=DEFAULTS.device, help="(default: %(default)s)")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=100, help="questions of a task at most (default: %(default)s)"
    )
    declare_seed(parser)


def list_tasks(options: argparse.Namespace, engine: Engine) -> list[Task]:
    """Tasks of the table, or the shipped ones: exercises need language alone (0), facts are specific (5)."""
    from probes.facts import Fact, read_records
    from workbench.banks.reading import is_shipped, route_texts
    from workbench.banks.specificity import Task

    assert engine.bank is not None
    if not options.tasks and not is_shipped(engine.bank):
        raise UserError(
            f"the shipped facts do not lie in {engine.bank.folder}: give tasks of your own with --tasks (task, score, "
            "prompt, answer)"
        )
    path = Path(options.tasks).expanduser() if options.tasks else find_shipped() / "abstract.parquet"
    groups: dict[str, tuple[float, list[Fact]]] = {}
    rows = read_records(path)
    for number, row in enumerate(rows, start=1):
        try:
            name, prompt, answer = (str(row[column]) for column in ("task", "prompt", "answer"))
            score = float(row["score"]) if options.tasks else 0.0
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}, row {number} needs task, score, prompt and answer") from None
        fact = Fact(f"{name}/{number}", "", name, "", prompt, answer)
        groups.setdefault(name, (score, []))[1].append(fact)
    if not groups:
        raise UserError(f"{path} has no rows: give one question a row")
    tasks = []
    for name, (score, facts) in groups.items():
        kept = facts[: options.limit]
        paths = route_texts(engine.bank, [fact.prompt for fact in kept])
        routed = [
            Fact(f.id, f.subject, f.relation, f.object, f.prompt, f.answer, cluster_path=path)
            for f, path in zip(kept, paths, strict=True)
        ]
        tasks.append(Task(name, score, tuple(routed)))
    if not options.tasks:
        depth = len(engine.bank.clusters)
        for bucket in sorted({fact.bucket for fact in engine.facts if fact.bucket > 0}):
            own = [fact for fact in engine.facts if fact.bucket == bucket and len(fact.cluster_path) == depth]
            tasks.append(Task(f"facts, frequency bucket {bucket}", 5.0, tuple(own)))
    return [task for task in tasks if task.questions]


def show_specificity(options: argparse.Namespace) -> Answer:
    """Gain of fetched over generic blocks, task by task, and the paper's two lists by our ratings."""
    from workbench import pipeline
    from workbench.banks.specificity import COMMON, RATINGS, SPECIFIC, compare_tasks, split_tasks
    from workbench.settings import Settings

    if options.limit < 2:
        raise UserError(f"--limit is {options.limit}: give 2 or more")
    with show_progress() as tick:
        engine = pipeline.open_engine(
            Settings(model=options.model, bank=options.bank, memory="none", device=options.device), tick
        )
        if engine.bank is None:
            raise UserError("no bank is attached to this model: give --bank FOLDER")
        document = compare_tasks(
            engine.model, engine.bank, list_tasks(options, engine), options.limit, options.seed, tick
        )
    common, specific = split_tasks(RATINGS)
    agrees = set(common) == set(COMMON) and set(specific) == set(SPECIFIC)
    document["paper"] = {"common": common, "specific": specific, "kind": "inferred", "ok": agrees}
    headings = ("task", "score", "class", "n", "generic", "fetched", "gain (nats)")
    rows = [
        [
            row["task"], row["score"], row["class"], row["n"], f"{row['generic']:.3f}", f"{row['fetched']:.3f}",
            f"{row['gain']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]",
        ]
        for row in document["rows"]
    ]  # fmt: skip
    found = document["rank_correlation"]
    lines = [
        format_table(headings, rows),
        f"rank correlation of gain and score: {'not defined' if found is None else f'{found:.2f}'}",
        f"the paper's tasks by our ratings: {len(common)} common ({', '.join(common)}), "
        f"{len(specific)} specific ({', '.join(specific)}); as it divides them: {'yes' if agrees else 'NO'}",
    ]
    return Answer(document, "\n\n".join(lines))


def declare_hierarchy(parser: argparse.ArgumentParser) -> None:
    """Model, bank and memories."""
    parser.add_argument("--model", metavar="FOLDER", default="shipped", help="(default: %(default)s)")
    parser.add_argument("--bank", metavar="auto|none|FOLDER", default="auto", help="(default: %(default)s)")
    parser.add_argument("--memory", metavar="auto|none|FOLDER", default="auto", help="(default: %(default)s)")


def show_hierarchy(options: argparse.Namespace) -> Answer:
    """Rows from text to anchor."""
    from probes.bank import load_bank
    from probes.memory_bank import open_bank
    from workbench.costs.shapes import read_shape
    from workbench.engine import find_store
    from workbench.hierarchy import list_places
    from workbench.library import read_shipped_facts

    shipped = find_shipped() if options.model == "shipped" else None
    folder = shipped / "model" if shipped is not None else Path(options.model).expanduser()
    bank = find_store(options.bank, "bank", shipped)
    memory = find_store(options.memory, "memory", shipped)
    places = list_places(
        read_shape(folder),
        folder,
        None if bank is None else load_bank(bank),
        None if memory is None else open_bank(memory),
        read_shipped_facts() if shipped is not None else (),
    )
    rows = [
        [p.name, clean_text(p.holds), f"{p.bytes / 1e6:,.2f}", f"{p.write:.4g}", f"{p.read:.4g}", p.facts, p.source]
        for p in places
    ]
    headings = ("place", "what is there", "MB", "write (TFlops)", "read (TFlops)", "facts", "formula")
    return Answer({"unit": "TFlops", "rows": [place.to_json() for place in places]}, format_table(headings, rows, 60))


MEASURES = (
    Command(
        "bank tiers",
        "Time a bank's blocks from disk and memory, and simulate caches; without a bank, at the paper's size.",
        "memory-circuits bank tiers bank --fetches 64",
        declare_tiers,
        show_tiers,
    ),
    Command(
        "bank specificity",
        "Compare what fetched blocks bring over generic ones, task by task, with how specific each task is.",
        "memory-circuits bank specificity --limit 50",
        declare_specificity,
        show_specificity,
    ),
    Command(
        "hierarchy",
        "List text, explicit memories, bank levels and anchor: what is there, its size, costs of writing and reading.",
        "memory-circuits hierarchy --json",
        declare_hierarchy,
        show_hierarchy,
    ),
)
