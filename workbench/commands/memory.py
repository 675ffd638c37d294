"""`memory write`, `list`, `show`, `search`, `verify`, `delete`: a bank of explicit memories of one's documents."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_pairs, format_table, show_progress
from workbench.library import find_shipped

if TYPE_CHECKING:
    from probes.models import Model
    from probes.writing import Recipe

SCORINGS, POOLINGS = ("softmax", "exp-sum"), ("sum", "max")


def declare_write(parser: argparse.ArgumentParser) -> None:
    """Documents, model, bank, and how memories are written."""
    parser.add_argument("documents", metavar="DOCS", nargs="+", help=".txt, .md, .jsonl, .csv, .parquet, or folders")
    parser.add_argument(
        "--out", metavar="BANK", required=True, help="folder of the bank; one that is there is added to"
    )
    parser.add_argument(
        "--model", metavar="NAME|FOLDER", default="shipped", help="the model that will read them (default: %(default)s)"
    )
    parser.add_argument(
        "--layers",
        metavar="LIST",
        help="memory layers such as 0-3,6 (default: the first half; shipped: as it was trained)",
    )
    parser.add_argument("--slots", metavar="N", type=int, help="tokens kept a key-value head (default: 8)")
    parser.add_argument(
        "--scoring", choices=SCORINGS, default="softmax", help="score of a token (default: %(default)s)"
    )
    parser.add_argument(
        "--pooling", choices=POOLINGS, default="sum", help="over the queries of a key-value head (default: %(default)s)"
    )
    parser.add_argument(
        "--offset", metavar="N", type=int, help="positions to the context (default: 128; shipped: as it was trained)"
    )
    parser.add_argument(
        "--positions",
        choices=("parallel", "written"),
        default="parallel",
        help="written: for a model with learned positions, whose keys cannot be moved (default: %(default)s)",
    )
    parser.add_argument("--prefix", default="Reference:", help="text before every reference (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of what is kept (default: %(default)s)",
    )
    parser.add_argument("--batch", metavar="N", type=int, default=16, help="references a pass (default: %(default)s)")


def parse_layers(text: str) -> tuple[int, ...]:
    """Layers of a list such as `0-3,6`. Raises UserError for anything else."""
    layers: list[int] = []
    for piece in text.split(","):
        start, dash, end = piece.strip().partition("-")
        if not start.isdecimal() or (dash and not end.isdecimal()) or len(piece) > 12:
            raise UserError(f"--layers is {text[:60]!r}: give layers such as 0-3,6")
        layers += range(int(start), min(int(end or start), 10_000) + 1)
    if len(set(layers)) != len(layers) or not layers:
        raise UserError(f"--layers is {text[:60]!r}: name each layer once, the lower end of a range first")
    return tuple(sorted(layers))


def default_recipe(shipped: bool, model: Model) -> Recipe:
    """The paper's recipe; for the shipped model what it was trained with."""
    from probes.memory_format import read_head
    from probes.writing import Recipe, choose_first_half

    if not shipped:
        return Recipe(choose_first_half(model))
    head = read_head(find_shipped() / "memory")
    return Recipe(head.layers, head.slots or 8, head.offset)


def build_recipe(options: argparse.Namespace, model: Model) -> Recipe:
    """Recipe of the options, which `default_recipe` completes."""
    from probes.writing import Recipe

    own = default_recipe(options.model == "shipped", model)
    return Recipe(
        parse_layers(options.layers) if options.layers else own.layers,
        own.slots if options.slots is None else options.slots,
        own.offset if options.offset is None else options.offset,
        options.prefix,
        options.scoring,
        options.pooling,
        options.positions,
    )


def write_bank(options: argparse.Namespace) -> Answer:
    """Write the documents' memories into a bank."""
    from workbench.memory.documents import list_files

    files = list_files([Path(name).expanduser() for name in options.documents])
    if options.batch < 1:
        raise UserError(f"--batch is {options.batch}: give 1 reference a pass or more")
    from probes.models import load_model
    from workbench.memory.writing import write_documents

    name = str(find_shipped() / "model") if options.model == "shipped" else options.model
    with show_progress() as tick:
        tick("loading the model", 0, 0)
        model = load_model(name)
        recipe = build_recipe(options, model)
        done = write_documents(model, files, Path(options.out), recipe, options.precision, options.batch, tick)
    pairs = [("bank", options.out), ("files", len(files)), ("written", done.written), ("there already", done.skipped)]
    if done.leftovers:
        pairs.append(("removed", f"{len(done.leftovers)} files that a stopped write had left"))
    return Answer({"bank": options.out, "files": len(files), **asdict(done)}, format_pairs(pairs))


def declare_bank(parser: argparse.ArgumentParser) -> None:
    """The bank."""
    parser.add_argument("bank", metavar="BANK", help="folder of a bank of explicit memories, or `shipped`")


def declare_list(parser: argparse.ArgumentParser) -> None:
    """The bank and how much of it."""
    declare_bank(parser)
    parser.add_argument(
        "--limit", metavar="N", type=int, default=20, help="memories to list; 0 lists all (default: %(default)s)"
    )


def list_bank(options: argparse.Namespace) -> Answer:
    """How a bank was written and which memories it holds."""
    from workbench.memory.inspection import list_entries, open_for_inspection

    if options.limit < 0:
        raise UserError(f"--limit is {options.limit}: give 0 for all, or a whole number above it")
    bank = open_for_inspection(options.bank)
    entries = list_entries(bank, options.limit or len(bank))
    rows = [[e["id"], e["document"], e["chunk"], f"{e['start']}-{e['end']}", e["text"]] for e in entries]
    about = bank.describe()
    table = format_table(("id", "document", "chunk", "characters", "text"), rows)
    return Answer({**about, "entries": entries}, f"{format_pairs(list(about.items()))}\n\n{table}")


def declare_show(parser: argparse.ArgumentParser) -> None:
    """The bank and the memory."""
    declare_bank(parser)
    parser.add_argument("id", metavar="ID", help="a memory; `memory list` shows them")


def show_memory(options: argparse.Namespace) -> Answer:
    """One memory's text with the tokens that each key-value head keeps."""
    from workbench.memory.inspection import mark_tokens, open_for_inspection, read_memory

    entry, kept = read_memory(open_for_inspection(options.bank), options.id)
    rows = [[row["layer"], row["kv_head"], mark_tokens(entry, row["tokens"])] for row in kept]
    pairs = format_pairs([(name, entry.get(name)) for name in ("id", "document", "chunk", "start", "end", "text")])
    table = format_table(("layer", "key-value head", "kept tokens in brackets"), rows, width=2000)
    return Answer({**entry, "kept": kept}, f"{pairs}\n\n{table}")


def declare_search(parser: argparse.ArgumentParser) -> None:
    """The bank, the query, and how many."""
    declare_bank(parser)
    parser.add_argument("query", metavar="QUERY", help="text to find memories for")
    parser.add_argument(
        "-k", "--count", metavar="N", type=int, default=5, help="memories to find (default: %(default)s)"
    )
    parser.add_argument(
        "--overlap",
        metavar="X",
        type=float,
        default=1.0,
        help="leave out memories of whose words, in order, the query holds more than this share; the paper: 0.667 "
        "(default: %(default)s)",
    )


def search_bank(options: argparse.Namespace) -> Answer:
    """The memories nearest to a text by the cosine of sentence vectors."""
    from probes.models import quieten_libraries
    from workbench.memory import search
    from workbench.memory.inspection import open_for_inspection, read_entry
    from workbench.memory.overlap import measure_overlap

    if options.count < 1 or not options.query.strip():
        raise UserError("give a query, and a count of 1 or more")
    bank = open_for_inspection(options.bank)
    words = options.query.split()
    quieten_libraries()
    with show_progress() as tick:
        searcher = search.open_searcher(bank, search.DEFAULT_ENCODER, tick)
        # Some will be left out for their overlap; as many more again are looked at.
        found = searcher.search(options.query, options.count * (1 if options.overlap >= 1 else 4))
    entries = [{"score": hit.score, **read_entry(bank, hit.id)} for hit in found]
    hits = [entry for entry in entries if measure_overlap(words, entry["text"].split()) <= options.overlap]
    hits = hits[: options.count]
    table = format_table(
        ("id", "cosine", "document", "text"), [[e["id"], e["score"], e["document"], e["text"]] for e in hits], width=80
    )
    return Answer({"bank": options.bank, "query": options.query, "hits": hits}, table)


def verify_bank(options: argparse.Namespace) -> Answer:
    """Every fault of a bank, one a line; exit code 2 when there is any."""
    from probes.memory_bank import find_faults
    from workbench.memory.inspection import find_bank

    faults = list(find_faults(find_bank(options.bank)))
    text = "\n".join(map(clean_text, faults)) or f"whole: {clean_text(options.bank)}"
    return Answer({"bank": options.bank, "whole": not faults, "faults": faults}, text, code=2 if faults else 0)


def declare_delete(parser: argparse.ArgumentParser) -> None:
    """The bank and which memories."""
    parser.add_argument("bank", metavar="BANK", help="folder of a bank of explicit memories")
    parser.add_argument("ids", metavar="ID", nargs="*", help="memories to delete")
    parser.add_argument("--document", metavar="NAME", action="append", default=[], help="all of a document; repeatable")
    parser.add_argument(
        "--compact", action="store_true", help="take what is deleted off the disk now: parts are written anew"
    )


def delete_from_bank(options: argparse.Namespace) -> Answer:
    """Delete memories by id or document."""
    from workbench.memory.store import delete_memories

    if not (options.ids or options.document or options.compact):
        raise UserError("nothing to delete: name ids, --document, or --compact to take deleted ones off the disk")
    count = delete_memories(Path(options.bank), options.ids, options.document, options.compact)
    return Answer({"bank": options.bank, "deleted": count}, f"{count} deleted")


MEMORY = (
    Command(
        "memory write",
        "Write explicit memories of your own documents into a bank; what it holds already is skipped.",
        "memory-circuits memory write notes.md articles/ --out bank",
        declare_write,
        write_bank,
    ),
    Command(
        "memory list",
        "Say how a bank was written and list its memories.",
        "memory-circuits memory list bank --limit 5",
        declare_list,
        list_bank,
    ),
    Command(
        "memory show",
        "Show a memory's text and the tokens kept of it, by layer and key-value head.",
        "memory-circuits memory show bank 1f0c2a9be3d45678",
        declare_show,
        show_memory,
    ),
    Command(
        "memory search",
        "Find the memories nearest in meaning to a text.",
        'memory-circuits memory search bank "Who lives in Oslo?" -k 5',
        declare_search,
        search_bank,
    ),
    Command(
        "memory verify",
        "Check a bank's hashes, shapes and values; exit code 2 and a line for every fault.",
        "memory-circuits memory verify bank",
        declare_bank,
        verify_bank,
    ),
    Command(
        "memory delete",
        "Delete memories from a bank, by id or by document.",
        "memory-circuits memory delete bank --document notes.md --compact",
        declare_delete,
        delete_from_bank,
    ),
)
