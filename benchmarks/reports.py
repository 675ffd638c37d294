"""Options and table of the scripts that cut work short, `crashes.py` and `disks.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from workbench.documents import place_tables, render_table


def declare_trials(description: str | None) -> argparse.ArgumentParser:
    """A parser with the seed, the cases to try alone, and the document that takes the table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a case's name; may be repeated")
    parser.add_argument("--into", metavar="FILE", help="also put the table between the markers of this document")
    return parser


def tell_rows(rows: Sequence[dict[str, object]], into: str | None, name: str) -> int:
    """Print a row a case, put them into a document under this name where one is given; exit code 1 with any fault.

    Raises SystemExit where no case was chosen.
    """
    if not rows:
        raise SystemExit("no case has such a name")
    table = render_table(list(rows[0]), [list(map(str, row.values())) for row in rows])
    print(table)
    if into:
        place_tables(Path(into), table, name)
    return 1 if any(row["faults"] for row in rows) else 0
