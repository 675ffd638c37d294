"""Options that say what is asked and how: shared by the commands that run the model."""

from __future__ import annotations

import argparse
from dataclasses import fields

from circuits.selection import SELECTIONS
from workbench.commands.command import list_choices
from workbench.settings import ABLATIONS, METHODS, METRICS, READINGS, Question, Settings

DEFAULTS = Settings()


def declare_question(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Options of a question: a shipped fact, or a prompt with its answer; or `several` as a data set."""
    group = parser.add_argument_group("question")
    again = "; again for each of several" if several else ""
    group.add_argument(
        "--fact",
        metavar="ID",
        action="append",
        default=[],
        help=f"a shipped fact; `memory-circuits facts` lists them{again}",
    )
    if several:
        group.add_argument(
            "--pairs",
            metavar="FILE",
            default="",
            help="a .csv, .jsonl or .parquet table, a pair a row: prompt, answer, counterfactual, foil",
        )
    group.add_argument("--prompt", metavar="TEXT", default="", help="a prompt of your own, up to the answer")
    group.add_argument("--answer", metavar="TEXT", default="", help="the answer to explain; one token or several")
    group.add_argument("--foil", metavar="TEXT", default="", help="the answer to compare with; chosen when left out")
    group.add_argument(
        "--counterfactual", metavar="TEXT", default="", help="the prompt that leads to the foil; chosen when left out"
    )


def declare_model(parser: argparse.ArgumentParser) -> None:
    """Options of the model and of what is attached to it."""
    group = parser.add_argument_group("model and memories")
    group.add_argument(
        "--model",
        metavar="NAME|FOLDER",
        default=DEFAULTS.model,
        help="`shipped`, a folder, or a hub name (default: %(default)s)",
    )
    group.add_argument(
        "--bank",
        metavar="auto|none|FOLDER",
        default=DEFAULTS.bank,
        help="parametric memory blocks to attach (default: %(default)s)",
    )
    group.add_argument(
        "--reading",
        choices=tuple(READINGS),
        default=DEFAULTS.reading,
        help=f"which blocks of the bank are read; {list_choices(READINGS)} (default: %(default)s)",
    )
    group.add_argument(
        "--memory",
        metavar="auto|own|none|FOLDER",
        default=DEFAULTS.memory,
        help="explicit memories to attach; own: the fact's memory even if it was trained; in a folder those nearest to "
        "the prompt in meaning are found (default: %(default)s)",
    )
    group.add_argument(
        "--memories",
        metavar="N",
        type=int,
        default=DEFAULTS.memories,
        help="memories to find in a folder; each is a writer of its own in a trace (default: %(default)s)",
    )
    group.add_argument(
        "--memory-ids", metavar="A,B", default=DEFAULTS.memory_ids, help="read these memories instead of searching"
    )
    group.add_argument(
        "--faithful",
        action="store_true",
        help="read the memories' prefix, `<s>Reference:`, beside them at every head of every layer, as the paper does; "
        "a model must have been trained so, the shipped one was not",
    )
    group.add_argument(
        "--text",
        metavar="auto|none|FILE",
        default=DEFAULTS.text,
        help="text to put before the prompt (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default=DEFAULTS.dtype,
        help="precision (default: %(default)s)",
    )
    group.add_argument(
        "--device", metavar="NAME", default=DEFAULTS.device, help="`auto`, `cpu`, `cuda`, `mps` (default: %(default)s)"
    )
    group.add_argument(
        "--device-map", metavar="MAP", help="`auto` spreads a large model over the devices there are, by accelerate"
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="let the model's own Python code run; it can do anything"
    )


def declare_method(parser: argparse.ArgumentParser) -> None:
    """Options of the attribution."""
    group = parser.add_argument_group("attribution")
    for name, table in (("method", METHODS), ("ablation", ABLATIONS), ("metric", METRICS)):
        default = getattr(DEFAULTS, name)
        group.add_argument(
            f"--{name}", choices=tuple(table), default=default, help=f"{list_choices(table)} (default: %(default)s)"
        )
    group.add_argument(
        "--selection",
        choices=tuple(SELECTIONS),
        default=DEFAULTS.selection,
        help=f"{list_choices(SELECTIONS)} (default: %(default)s)",
    )
    group.add_argument(
        "--threshold",
        metavar="X",
        type=float,
        default=DEFAULTS.threshold,
        help="smallest absolute score that the selection `threshold` keeps, and smallest change for which the method "
        "acdc keeps an edge, in the metric's unit (default: %(default)s)",
    )
    group.add_argument(
        "--solver-seconds",
        metavar="S",
        type=float,
        default=DEFAULTS.solver_seconds,
        help="time that the selection `optimal` may take (default: %(default)s)",
    )
    group.add_argument(
        "--edges",
        metavar="N",
        type=int,
        default=DEFAULTS.edges,
        help="edges to keep at most, all on a path to the logits (default: %(default)s)",
    )
    group.add_argument(
        "--steps",
        metavar="N",
        type=int,
        default=DEFAULTS.steps,
        help="points of the path of an integrated gradient (default: %(default)s)",
    )
    group.add_argument(
        "--updates",
        metavar="N",
        type=int,
        default=DEFAULTS.updates,
        help="length of the training of edge-masks (default: %(default)s)",
    )
    group.add_argument(
        "--rows",
        metavar="N",
        type=int,
        default=DEFAULTS.rows,
        help="prompt pairs that run at once; of more, the scores are added up batch by batch (default: %(default)s)",
    )
    group.add_argument(
        "--parts",
        metavar="N",
        type=int,
        default=DEFAULTS.parts,
        help="also score every FFN unit, bank unit, memory slot and attention edge (by EAP, at the clean run) and keep "
        "the N strongest of each; 0: none (default: %(default)s)",
    )
    group.add_argument(
        "--into",
        metavar="READER",
        action="append",
        default=[],
        help="a reader such as a2.h1.q, a2.kv0.v, m2 or logits into which units and slots are scored too, beside their "
        "scores as nodes; again for several (default: logits)",
    )
    declare_seed(group)


def declare_seed(parser: argparse._ActionsContainer) -> None:
    """The seed."""
    parser.add_argument(
        "--seed", metavar="N", type=int, default=DEFAULTS.seed, help="seed of everything random (default: %(default)s)"
    )


def read_question(options: argparse.Namespace) -> Question:
    """Question of the options. Raises UserError unless it is exactly one fact, prompt or data set."""
    facts = tuple(options.fact)
    question = Question(
        fact=facts[0] if len(facts) == 1 else "",
        facts=facts if len(facts) > 1 else (),
        pairs=getattr(options, "pairs", ""),
        **{name: getattr(options, name) for name in ("prompt", "answer", "foil", "counterfactual")},
    )
    question.check()
    return question


def read_settings(options: argparse.Namespace) -> Settings:
    """Settings of the options; those that a command does not offer keep their defaults. Raises UserError."""
    offered = {field.name: getattr(options, field.name, getattr(DEFAULTS, field.name)) for field in fields(Settings)}
    settings = Settings(**{**offered, "into": tuple(offered["into"])})
    settings.check()
    return settings
