"""Every command in one parser: what is typed becomes options, and what cannot be read a UserError."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from probes.errors import UserError
from workbench.commands.application import APP
from workbench.commands.asking import ASK
from workbench.commands.attributing import ATTRIBUTE
from workbench.commands.bank_measures import MEASURES
from workbench.commands.banks import BANK
from workbench.commands.blocking import BLOCK
from workbench.commands.citing import BUNDLE, VERIFY
from workbench.commands.classes import CLASSES
from workbench.commands.command import PROGRAM, Command
from workbench.commands.compressing import COMPRESS, FIDELITY
from workbench.commands.demo import EVALUATE, EXPERIMENTS, TRAIN
from workbench.commands.exporting import EXPORT
from workbench.commands.facts import FACTS
from workbench.commands.figures import FIGURE
from workbench.commands.findings import FINDINGS
from workbench.commands.generating import GENERATE
from workbench.commands.heads import HEADS
from workbench.commands.health import DOCTOR
from workbench.commands.importing import IMPORT
from workbench.commands.ledgers import LEDGER
from workbench.commands.listing import RUNS, SHOW
from workbench.commands.measuring import QUALITY
from workbench.commands.memory import MEMORY
from workbench.commands.papers import COSTS, PAPER
from workbench.commands.placing import PLACE
from workbench.commands.reading import READINGS
from workbench.commands.separating import SEPARABILITY
from workbench.commands.specificity import SPECIFICITY
from workbench.commands.sweep_costs import SWEEP_COSTS
from workbench.commands.sweeping import SWEEPS
from workbench.commands.traces import TRACE
from workbench.commands.training import BANK_TRAINING, READER
from workbench.commands.units import UNITS
from workbench.commands.validating import VALIDATE
from workbench.commands.verifying import CHECK, REPLAY

COMMANDS: tuple[Command, ...] = (
    FACTS,
    ASK,
    GENERATE,
    TRACE,
    LEDGER,
    ATTRIBUTE,
    PLACE,
    *SWEEPS,
    SWEEP_COSTS,
    SHOW,
    RUNS,
    EXPORT,
    FIGURE,
    IMPORT,
    VERIFY,
    BUNDLE,
    REPLAY,
    CHECK,
    VALIDATE,
    QUALITY,
    CLASSES,
    SPECIFICITY,
    HEADS,
    UNITS,
    *READINGS,
    SEPARABILITY,
    FINDINGS,
    DOCTOR,
    APP,
    TRAIN,
    EVALUATE,
    EXPERIMENTS,
    PAPER,
    COSTS,
    *MEMORY,
    READER,
    *BANK,
    BLOCK,
    *MEASURES,
    COMPRESS,
    FIDELITY,
    *BANK_TRAINING,
)
# Seeds are below: all libraries that draw take these.
SEEDS = 2**31
FAMILIES = {
    "demo": "Train the demo model again, or measure it.",
    "bank": "Cluster documents, train a bank of parametric memory blocks on them, and look into one.",
    "memory": "Write a bank of explicit memories from your own documents, and look after it.",
}


class Parser(argparse.ArgumentParser):
    """argparse's parser, except that what it refuses is a UserError."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the command's name and where to read more."""
        raise UserError(f"{message}; `{self.prog} --help` says more")


def find_version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "not installed"


def build_parser() -> Parser:
    """Parser of the whole command line; every command's parser has its Command under `command`."""
    parser = Parser(
        prog=PROGRAM,
        description="Shows where a fact lives in a language model: in its parameters, a memory block,\n"
        "an explicit memory, or text in the prompt.",
        epilog="example:\n  memory-circuits facts --bucket 0 --limit 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {find_version()}")
    families = {"": parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)}
    for command in COMMANDS:
        family, _, name = command.name.rpartition(" ")
        if family not in families:
            parent = families[""].add_parser(family, help=FAMILIES[family], description=FAMILIES[family])
            families[family] = parent.add_subparsers(
                title="commands", metavar="COMMAND", required=True, parser_class=Parser
            )
        child = families[family].add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.declare(child)
        child.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        child.set_defaults(command=command)
    return parser


def check_seed(options: argparse.Namespace) -> None:
    """Raise UserError for a seed that some library would not draw by, whatever the command."""
    seed = getattr(options, "seed", 0)
    if not 0 <= seed < SEEDS:
        raise UserError(f"--seed is {str(seed)[:40]}: choose a whole number from 0 to {SEEDS - 1}")


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; for `--help` and `--version` the process ends here. Raises UserError."""
    try:
        options = build_parser().parse_args(arguments)
        check_seed(options)
        return options
    except SystemExit:
        sys.stdout.flush()
        raise
