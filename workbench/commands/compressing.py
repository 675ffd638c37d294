"""`memory compress`, `memory fidelity`: a bank by vector quantisation, and what each step of compression costs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from probes.codes import PAPER_CODE
from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.memory import declare_bank
from workbench.commands.terminal import format_pairs, format_table, show_progress


def declare_compress(parser: argparse.ArgumentParser) -> None:
    """The bank, the new bank, and the code."""
    declare_bank(parser)
    parser.add_argument("--out", metavar="BANK2", required=True, help="folder of the new, compressed bank")
    parser.add_argument(
        "--code",
        metavar="CODE",
        default="auto",
        help=f"the vector code, such as {PAPER_CODE} (the paper's, for heads of 80 numbers and 16,384 vectors or "
        "more); auto: the paper's kind with as many bits as the bank has vectors to train (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the training (default: %(default)s)")


def compress(options: argparse.Namespace) -> Answer:
    """Write a compressed copy of a bank."""
    from workbench.memory.compression import compress_bank
    from workbench.memory.inspection import open_for_inspection

    bank, out = open_for_inspection(options.bank), Path(options.out).expanduser()
    with show_progress() as tick:
        done = compress_bank(bank, out, options.code, options.seed, tick)
    pairs = [
        ("bank", out),
        ("code", done.code),
        ("memories", done.memories),
        ("vectors a codebook", done.vectors),
        ("bytes a vector", f"{done.bytes_a_vector}, before {bank.describe()['bytes_a_vector']}"),
        ("bytes of keys and values", f"{done.bytes_after}, before {done.bytes_before}: {done.ratio:.4g} times smaller"),
        ("bytes of codebooks", done.codebook_bytes),
        *((f"share of {side} lost", f"{error:.3g} of the squared length") for side, error in done.error.items()),
    ]
    return Answer({"bank": str(out), **asdict(done), "ratio": done.ratio}, format_pairs(pairs))


def declare_fidelity(parser: argparse.ArgumentParser) -> None:
    """The bank, the model, and which prompts."""
    declare_bank(parser)
    parser.add_argument(
        "--model", metavar="NAME|FOLDER", default="shipped", help="the model that wrote it (default: %(default)s)"
    )
    parser.add_argument(
        "--queries",
        metavar="FILE",
        default="",
        help="a .csv, .jsonl or .parquet table: prompt, answer, memory (its id) and perhaps foil; left out, facts of "
        "the shipped model",
    )
    parser.add_argument(
        "--split", metavar="NAME", default="never-seen", help="which shipped facts (default: %(default)s)"
    )
    parser.add_argument("--limit", metavar="N", type=int, default=200, help="prompts at most (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=32, help="prompts a pass (default: %(default)s)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the draw and of resampling (default: %(default)s)"
    )


def show_fidelity(options: argparse.Namespace) -> Answer:
    """What every step of compression changes."""
    for name in ("limit", "batch"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give 1 prompt or more")
    from probes.memory_bank import open_bank
    from probes.models import load_model
    from workbench.commands.facts import match_value
    from workbench.library import find_shipped, read_shipped_facts, read_template
    from workbench.memory.fidelity import list_queries, measure_fidelity, read_queries
    from workbench.memory.inspection import find_bank

    with show_progress() as tick:
        tick("loading the model", 0, 0)
        shipped = find_shipped()
        model = load_model(str(shipped / "model") if options.model == "shipped" else options.model)
        bank = open_bank(find_bank(options.bank), model)
        if options.queries:
            queries = read_queries(Path(options.queries).expanduser(), bank, options.limit)
        else:
            facts = match_value(read_shipped_facts(), "split", options.split)
            queries = list_queries(model, bank, facts, options.limit, options.seed)
        rows = measure_fidelity(model, bank, read_template(shipped), queries, options.batch, options.seed, tick)
    headings = ("step", "metric", "value", "low", "high", "unit", "n")
    text = format_table(headings, [[row[name] for name in headings] for row in rows])
    if not bank.head.code:
        text += "\nthe bank is not compressed: `memory compress` makes one whose code is measured here too"
    about = {"bank": options.bank, "code": bank.head.code or None, "seed": options.seed}
    return Answer({**about, "rows": rows}, text)


COMPRESS = Command(
    "memory compress",
    "Copy a bank with keys and values compressed by vector quantisation; it reads like any other.",
    "memory-circuits memory compress bank --out small",
    declare_compress,
    compress,
)

FIDELITY = Command(
    "memory fidelity",
    "Say what each step of compressing a memory changes: text, dense, sparse, rounded, by vector quantisation.",
    "memory-circuits memory fidelity small --limit 100",
    declare_fidelity,
    show_fidelity,
)
