"""`memory compress`, `memory fidelity`: a bank by vector quantisation, and what each step of compression costs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from probes.codes import PAPER_CODE
from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.memory import declare_bank
from workbench.commands.terminal import format_pairs, show_progress


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
    if not 0 <= options.seed < 2**31 - 1:
        raise UserError(f"--seed is {options.seed}: choose a whole number from 0 to {2**31 - 2}")
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


COMPRESS = Command(
    "memory compress",
    "Copy a bank with keys and values compressed by vector quantisation; it reads like any other.",
    "memory-circuits memory compress bank --out small",
    declare_compress,
    compress,
)
