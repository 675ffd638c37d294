"""`facts`: lists the shipped facts, filtered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from probes.errors import UserError
from probes.facts import Fact
from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_table
from workbench.library import read_shipped_facts

HEADINGS = ("id", "subject", "relation", "object", "bucket", "cluster path", "document")


def declare_facts(parser: argparse.ArgumentParser) -> None:
    """Filters; all that are given must hold."""
    for name in ("relation", "split", "kind"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only facts of this {name}")
    parser.add_argument("--bucket", metavar="N", help="only facts of this frequency: 1 rarest to 5, 0 never trained on")
    parser.add_argument("--search", metavar="TEXT", help="only facts with this text in id, subject, object or prompt")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=20, help="facts to list; 0 lists all (default: %(default)s)"
    )


def match_value(facts: Sequence[Fact], name: str, value: str) -> list[Fact]:
    """Facts whose field has this value. Raises UserError, with the values there are, when none has."""
    known = sorted({str(getattr(fact, name)) for fact in facts})
    if value not in known:
        raise UserError(f"no facts with {name} {value!r}: choose one of {', '.join(known[:40])}")
    return [fact for fact in facts if str(getattr(fact, name)) == value]


def search_facts(facts: Sequence[Fact], text: str) -> list[Fact]:
    """Facts that mention a text, upper and lower case alike."""
    wanted = text.casefold()
    return [
        fact
        for fact in facts
        if any(wanted in value.casefold() for value in (fact.id, fact.subject, fact.object, fact.prompt))
    ]


def filter_facts(facts: Sequence[Fact], options: argparse.Namespace) -> list[Fact]:
    """Facts for which every filter of the options holds. Raises UserError for a value that no fact has."""
    found = list(facts)
    for name in ("relation", "split", "kind", "bucket"):
        value = getattr(options, name)
        if value is not None:
            kept = {fact.id for fact in match_value(facts, name, value)}
            found = [fact for fact in found if fact.id in kept]
    return search_facts(found, options.search) if options.search else found


def list_facts(options: argparse.Namespace) -> Answer:
    """The shipped facts that pass the filters."""
    if options.limit < 0:
        raise UserError(f"--limit is {options.limit}: give 0 for all, or a whole number above it")
    found = filter_facts(read_shipped_facts(), options)
    shown = found[: options.limit or None]
    rows = [
        (
            fact.id,
            fact.subject,
            fact.relation,
            fact.object,
            fact.bucket if fact.bucket >= 0 else None,
            "/".join(map(str, fact.cluster_path)),
            fact.document_id,
        )
        for fact in shown
    ]
    rest = f"; --limit 0 lists all {len(found)}" if len(shown) < len(found) else ""
    text = f"{format_table(HEADINGS, rows)}\n{len(shown)} facts{rest}"
    if not found:
        text = f"no fact mentions {clean_text(options.search)!r} and passes the filters"
    return Answer({"total": len(found), "facts": [fact.to_json() for fact in shown]}, text)


FACTS = Command(
    "facts",
    "List the shipped facts: id, subject, relation, object, frequency bucket, cluster path, document.",
    "memory-circuits facts --bucket 0 --limit 5",
    declare_facts,
    list_facts,
)
