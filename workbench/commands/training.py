"""`memory train`, `bank train`, `bank merge`: memories of both kinds trained for a model of one's own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.memory import parse_layers
from workbench.commands.terminal import format_pairs, show_progress
from workbench.library import find_shipped


def declare_training(parser: argparse.ArgumentParser, out: str) -> None:
    """What every training takes: model, corpus, folder to make, and how it runs."""
    parser.add_argument(
        "--model", metavar="FOLDER", required=True, help="checkpoint folder of a Llama-style model, or `shipped`"
    )
    parser.add_argument(
        "--corpus",
        metavar="DOCS",
        nargs="+",
        required=True,
        help=".txt, .md, .jsonl, .csv, .parquet, or folders with such",
    )
    parser.add_argument(
        "--out", metavar=out, required=True, help="folder to make; `OUT.part` beside it holds work in progress"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all choices (default: %(default)s)")
    parser.add_argument(
        "--device", metavar="NAME", default="auto", help="`auto`, `cpu`, `cuda`, `mps` (default: %(default)s)"
    )
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 (autocast); weights stay float32")
    parser.add_argument(
        "--checkpoint-minutes",
        metavar="X",
        type=float,
        default=5.0,
        help="time between checkpoints (default: %(default)s)",
    )
    parser.add_argument("--no-resume", action="store_true", help="begin anew where an earlier training was stopped")


def name_model(model: str) -> str:
    """Folder of a model; `shipped` stands for the shipped one."""
    return str(find_shipped() / "model") if model == "shipped" else model


def declare_reader(parser: argparse.ArgumentParser) -> None:
    """Options of both stages."""
    declare_training(parser, "FOLDER")
    parser.add_argument(
        "--warmup-steps",
        metavar="N",
        type=int,
        default=0,
        help="stage 1, plain language modelling; 0 for a model that is trained already (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, default=1000, help="stage 2, with memory (default: %(default)s)"
    )
    parser.add_argument("--rows", metavar="N", type=int, default=8, help="sequences a step (default: %(default)s)")
    parser.add_argument(
        "--length", metavar="N", type=int, default=512, help="tokens a sequence, in 64s (default: %(default)s)"
    )
    parser.add_argument("--rate", metavar="X", type=float, default=1e-4, help="peak rate (default: %(default)s)")
    parser.add_argument("--weight-decay", metavar="X", type=float, default=0.1, help="of AdamW (default: %(default)s)")
    parser.add_argument("--layers", metavar="LIST", help="memory layers such as 0-3,6; left out, the first half")
    parser.add_argument(
        "--slots", metavar="N", type=int, default=8, help="tokens kept a key-value head (default: %(default)s)"
    )
    parser.add_argument(
        "--offset", metavar="N", type=int, default=128, help="positions to the context (default: %(default)s)"
    )
    parser.add_argument("--prefix", default="Reference:", help="text before every reference (default: %(default)s)")
    parser.add_argument(
        "--overlap",
        metavar="X",
        type=float,
        default=0.9,
        help="share of a reference above which a sequence holds it already and does not read it (default: %(default)s)",
    )
    parser.add_argument(
        "--no-write-gradient", action="store_true", help="let the loss reach the weights through reading alone"
    )


def train_memory_reader(options: argparse.Namespace) -> Answer:
    """Train a model to read explicit memories."""
    from workbench.training.reader import ReaderPlan, train_reader

    taken = ("warmup_steps", "steps", "rows", "length", "rate", "weight_decay", "slots", "offset", "prefix", "overlap")
    plan = ReaderPlan(
        **{name: getattr(options, name) for name in taken},
        layers=parse_layers(options.layers) if options.layers else (),
        gradient=not options.no_write_gradient,
        seed=options.seed,
        bf16=options.bf16,
    )
    with show_progress() as tick:
        record = train_reader(
            name_model(options.model),
            options.corpus,
            Path(options.out),
            plan,
            options.device,
            options.checkpoint_minutes,
            not options.no_resume,
            tick,
        )
    layers = ",".join(map(str, record["layers"]))
    pairs: list[tuple[str, Any]] = [
        ("model", options.out),
        ("memory layers", layers),
        ("sequences", record["sequences"]),
        ("references", record["references"]),
        ("chunks that read one", f"{record['chunks_with_a_reference']:.1%}"),
        ("loss with memory", f"{record['loss_with_memory']:.4f} nats a token"),
        ("loss without", f"{record['loss_without']:.4f} nats a token"),
        ("next", f"memory-circuits memory write DOCS --model {options.out} --layers {layers} --out BANK"),
    ]
    return Answer({"folder": options.out, **record}, format_pairs(pairs))


READER = Command(
    "memory train",
    "Train a Llama-style checkpoint to read explicit memories: plain language modelling, then with memory.",
    "memory-circuits memory train --model my-model --corpus articles/ --steps 2000 --out my-reader",
    declare_reader,
    train_memory_reader,
)


def declare_bank(parser: argparse.ArgumentParser) -> None:
    """Options of blocks, clusters and steps."""
    declare_training(parser, "BANK")
    parser.add_argument(
        "--units",
        metavar="LIST",
        default="64,32",
        help="rank of a block at each level: units (ffn), or rank (lora), or keys (key-value) (default: %(default)s)",
    )
    parser.add_argument(
        "--branching", metavar="N", type=int, default=16, help="children of a cluster (default: %(default)s)"
    )
    parser.add_argument(
        "--kind",
        choices=("ffn", "lora-qk", "lora-vo", "lora-ffn", "key-value"),
        default="ffn",
        help="kind of block (default: %(default)s)",
    )
    parser.add_argument("--layers", metavar="LIST", help="layers with blocks such as 0-3,6; left out, all")
    parser.add_argument(
        "--anchor",
        choices=("frozen", "co-trained", "scratch"),
        default="frozen",
        help="whether the model stays, is trained along, or begins from random weights (default: %(default)s)",
    )
    parser.add_argument("--out-model", metavar="FOLDER", help="folder to make for a model that is not frozen")
    parser.add_argument(
        "--subtree",
        metavar="N|generic",
        help="train the blocks below one cluster of level 1 alone, or the generic ones; `bank merge` joins them",
    )
    parser.add_argument(
        "--router",
        metavar="TREE|BANK",
        help="use the clusters of `bank cluster` or of a bank; left out, the corpus is clustered",
    )
    parser.add_argument(
        "--plain-router",
        action="store_true",
        help="route by plain sentence vectors, as the paper; else they are whitened within documents",
    )
    parser.add_argument("--steps", metavar="N", type=int, default=1000, help="steps to train (default: %(default)s)")
    parser.add_argument("--rows", metavar="N", type=int, default=16, help="packed rows a step (default: %(default)s)")
    parser.add_argument("--length", metavar="N", type=int, default=512, help="tokens a row (default: %(default)s)")
    parser.add_argument(
        "--rate", metavar="X", type=float, default=1e-3, help="peak rate of the blocks (default: %(default)s)"
    )
    parser.add_argument(
        "--weight-decay", metavar="X", type=float, default=1e-3, help="of fetched blocks (default: %(default)s)"
    )
    parser.add_argument(
        "--anchor-rate", metavar="X", type=float, default=1e-4, help="peak rate of the model (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of the blocks as they are kept (default: %(default)s)",
    )


def parse_units(text: str) -> tuple[int, ...]:
    """Ranks of a list such as `64,32`. Raises UserError for anything else."""
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() and len(piece) < 8 for piece in pieces):
        raise UserError(f"--units is {text[:60]!r}: give a rank for each level such as 64,32")
    return tuple(map(int, pieces))


def parse_subtree(text: str | None) -> int | str | None:
    """Subtree of the option. Raises UserError for what is neither a number nor `generic`."""
    if text is None or text == "generic":
        return text
    if not text.isdecimal() or len(text) > 8:
        raise UserError(f"--subtree is {text[:60]!r}: give a cluster of level 1, or generic")
    return int(text)


def train_block_bank(options: argparse.Namespace) -> Answer:
    """Train a bank."""
    from workbench.training.bank import train_bank
    from workbench.training.bank_plan import LORA, BankPlan

    kind, _, part = options.kind.partition("-") if options.kind.startswith("lora") else (options.kind, "", "")
    plan = BankPlan(
        **{name: getattr(options, name) for name in ("branching", "steps", "rows", "length", "rate", "anchor")},
        **{name: getattr(options, name) for name in ("anchor_rate", "precision", "seed", "bf16")},
        units=parse_units(options.units),
        kind=kind,
        targets=LORA.get(part, ()),
        layers=parse_layers(options.layers) if options.layers else (),
        decay=options.weight_decay,
        subtree=parse_subtree(options.subtree),
        whiten=not options.plain_router,
    )
    with show_progress() as tick:
        record = train_bank(
            name_model(options.model),
            options.corpus,
            Path(options.out),
            plan,
            options.device,
            options.checkpoint_minutes,
            not options.no_resume,
            tick,
            Path(options.out_model) if options.out_model else None,
            Path(options.router) if options.router else None,
        )
    if int(os.environ.get("RANK", "0")):
        # Of several processes one speaks.
        return Answer(None, "")
    model = options.out_model or options.model
    held = " + ".join(map(str, record["clusters_with_documents"]))
    pairs: list[tuple[str, Any]] = [
        ("bank", options.out),
        ("model", model),
        ("clusters with documents", f"{held} of {' + '.join(map(str, record['clusters']))}"),
        ("sentences that reach their cluster", record["sentences_that_reach_their_cluster"]),
        ("numbers fetched", record["numbers_fetched"]),
        ("numbers kept", record["numbers_kept"]),
        *((f"loss, {name_mode(mode)}", f"{loss:.4f} nats a token") for mode, loss in record["loss"].items()),
        ("next", f'memory-circuits ask --model {model} --bank {options.out} --prompt "..."'),
    ]
    return Answer({"folder": options.out, **record}, format_pairs(pairs))


def name_mode(mode: str) -> str:
    """A reading mode in words."""
    return {"none": "without blocks", "wrong": "blocks of a wrong cluster"}.get(mode, f"{mode} blocks")


def declare_merge(parser: argparse.ArgumentParser) -> None:
    """Banks and the folder to make."""
    parser.add_argument("banks", metavar="BANK", nargs="+", help="banks of the same router, each with its subtrees")
    parser.add_argument("--out", metavar="BANK", required=True, help="folder to make")


def merge_trained(options: argparse.Namespace) -> Answer:
    """Join banks of subtrees."""
    from workbench.training.merging import merge_banks

    with show_progress() as tick:
        head, lacking = merge_banks([Path(name) for name in options.banks], Path(options.out), tick)
    pairs: list[tuple[str, Any]] = [("bank", options.out), ("shards", len(head.shards))]
    if lacking:
        pairs.append(("lacks", ", ".join(lacking)))
    document = {"bank": options.out, "shards": sorted(head.shards), "lacking": lacking}
    return Answer(document, format_pairs(pairs))


BANK_TRAINING = (
    Command(
        "bank train",
        "Train a bank of memory blocks on your own documents, for any Llama-style checkpoint.",
        "memory-circuits bank train --model my-model --corpus articles/ --units 64,32 --branching 16 --out my-bank",
        declare_bank,
        train_block_bank,
    ),
    Command(
        "bank merge",
        "Join banks whose subtrees were trained apart into one.",
        "memory-circuits bank merge bank-generic bank-0 bank-1 --out my-bank",
        declare_merge,
        merge_trained,
    ),
)
