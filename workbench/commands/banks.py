"""`bank cluster`, `bank show`: trees of clusters and banks of parametric blocks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_pairs, format_table, show_progress


def declare_cluster(parser: argparse.ArgumentParser) -> None:
    """Documents, tree, encoder, and the tree's shape."""
    parser.add_argument("documents", metavar="DOCS", nargs="+", help=".txt, .md, .jsonl, .csv, .parquet, or folders")
    parser.add_argument("--out", metavar="TREE", required=True, help="folder of the tree, a new one")
    parser.add_argument(
        "--branching", metavar="K", type=int, default=16, help="children of a cluster (default: %(default)s)"
    )
    parser.add_argument("--depth", metavar="P", type=int, default=4, help="levels (default: %(default)s)")
    parser.add_argument(
        "--encoder",
        metavar="NAME|FOLDER",
        default="all-MiniLM-L6-v2",
        help="sentence encoder: the default, or one that sentence-transformers loads (default: %(default)s)",
    )
    parser.add_argument(
        "--window", metavar="N", type=int, default=8192, help="characters of a window of text (default: %(default)s)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the clustering (default: %(default)s)")


def cluster_corpus(options: argparse.Namespace) -> Answer:
    """Cluster documents and say how even the clusters are."""
    from workbench.banks.corpus import cluster_documents
    from workbench.banks.encoding import open_encoder
    from workbench.memory.documents import list_files

    files = list_files([Path(name).expanduser() for name in options.documents])
    with show_progress() as tick:
        tick("loading the encoder", 0, 0)
        encoder = open_encoder(options.encoder)
        tree, about = cluster_documents(
            files, Path(options.out), encoder, options.branching, options.depth, options.window, options.seed, tick
        )
    levels: list[dict[str, Any]] = [
        {"level": level, "clusters": len(counts), "empty": empty, "largest": int(counts.max())}
        for level, (counts, empty) in enumerate(zip(tree.counts, tree.empty, strict=True), start=1)
    ]
    document = {
        "tree": options.out,
        "documents": about["documents"],
        "windows": about["windows"],
        "encoder": about["encoder"],
        "branching": options.branching,
        "depth": options.depth,
        "comparisons": options.branching * options.depth,
        "empty": [level["empty"] for level in levels],
        "largest": [level["largest"] for level in levels],
    }
    names = ("tree", "documents", "windows", "encoder", "comparisons")
    rows = [[str(level[name]) for name in ("level", "clusters", "empty", "largest")] for level in levels]
    table = format_table(["level", "clusters", "without windows", "most windows"], rows)
    return Answer(document, format_pairs([(name, clean_text(str(document[name]))) for name in names]) + "\n\n" + table)


def declare_show(parser: argparse.ArgumentParser) -> None:
    """The bank, and whether its files are read through."""
    parser.add_argument("bank", metavar="BANK", help="folder of a bank of parametric blocks")
    parser.add_argument("--verify", action="store_true", help="read every file and compare hashes and shapes")


def show_bank(options: argparse.Namespace) -> Answer:
    """What a bank is made of, level by level, and its faults; exit code 2 where it has some."""
    from probes.bank import find_bank_faults, load_bank

    bank = load_bank(Path(options.bank).expanduser())
    design, faults = bank.design, list(find_bank_faults(bank)) if options.verify else []
    levels: list[dict[str, int]] = [
        {"level": level, "clusters": count, "rank": design.ranks[level - 1], "numbers": design.count_numbers(level)}
        for level, count in enumerate(bank.clusters, start=1)
    ]
    document = {
        "bank": options.bank,
        "version": bank.head.version,
        "kind": design.kind,
        "targets": list(design.targets),
        "model_sha256": bank.head.model_sha256,
        "layers": list(design.layers),
        "branching": design.branching,
        "levels": levels,
        "fetched": design.fetched,
        "kept": design.kept,
        "shards": sorted(bank.head.shards),
        "faults": faults,
    }
    names = ("bank", "version", "kind", "branching", "fetched", "kept")
    pairs = [(name, clean_text(str(document[name]))) for name in names]
    rows = [[str(number) for number in level.values()] for level in levels]
    table = format_table(["level", "clusters", "rank", "numbers a block"], rows)
    text = "\n\n".join([format_pairs(pairs), table, *map(clean_text, faults)])
    return Answer(document, text, code=2 if faults else 0)


BANK = (
    Command(
        "bank cluster",
        "Cluster your own documents into a tree, the ground for a bank of parametric blocks.",
        "memory-circuits bank cluster articles/ --out tree --branching 8 --depth 2",
        declare_cluster,
        cluster_corpus,
    ),
    Command(
        "bank show",
        "Say what a bank of parametric blocks is made of, and check its files.",
        "memory-circuits bank show bank --verify",
        declare_show,
        show_bank,
    ),
)
