"""`memory train`: a model of one's own learns to read explicit memories."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
