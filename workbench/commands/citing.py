"""`verify` and `bundle`: is a saved run whole and as it was written; put it into one archive."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict
from pathlib import Path

from workbench.citing import bundle_run, verify_run
from workbench.commands.command import Answer, Command
from workbench.commands.summaries import resolve_run
from workbench.commands.terminal import clean_text, format_table
from workbench.storage import write_file


def declare_verify(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name in the runs folder")


def verify(options: argparse.Namespace) -> Answer:
    """Check a run's schema, hashes and sums without the model; exit code 1 when anything does not hold."""
    folder = resolve_run(options.run)
    checks = verify_run(folder)
    whole = all(check.holds for check in checks)
    rows = [("yes" if check.holds else "NO", check.name, clean_text(check.found)) for check in checks]
    text = f"{format_table(('holds', 'check', 'found'), rows, 100)}\n{'verified' if whole else 'not verified'}"
    document = {"run": str(folder), "verified": whole, "checks": [asdict(check) for check in checks]}
    return Answer(document, text, code=0 if whole else 1)


def declare_bundle(parser: argparse.ArgumentParser) -> None:
    """The run, the archive, and whether installed packages are listed in it."""
    declare_verify(parser)
    parser.add_argument(
        "--out", metavar="FILE.zip", required=True, help="archive to write; one that is there is replaced"
    )
    parser.add_argument(
        "--no-environment",
        action="store_true",
        help="leave the list of installed packages out: then the bytes are the same on every machine",
    )


def bundle(options: argparse.Namespace) -> Answer:
    """Write the archive of a verified run."""
    folder, out = resolve_run(options.run), Path(options.out)
    data = bundle_run(folder, not options.no_environment)
    write_file(out, data)
    document = {"run": str(folder), "file": str(out), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return Answer(document, f"wrote {clean_text(out)} ({len(data)} bytes, sha256 {document['sha256']})")


VERIFY = Command(
    "verify",
    "Check that a saved run is whole: its schema, hashes and scores, without the model; exit code 1 when it is not.",
    "memory-circuits verify runs/france-capital-1a2b3c4d",
    declare_verify,
    verify,
)

BUNDLE = Command(
    "bundle",
    "Put a verified run with its figure, table, circuit file and environment into one archive.",
    "memory-circuits bundle runs/france-capital-1a2b3c4d --out france.zip",
    declare_bundle,
    bundle,
)
