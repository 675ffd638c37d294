"""`validate`: how well what was planted in small models is found, as the tables of docs/validation.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from circuits.methods import METHODS, Options
from circuits.planted.families import FAMILIES
from probes.errors import UserError
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.terminal import show_progress
from workbench.documents import place_tables, read_tables, render_table

if TYPE_CHECKING:
    from circuits.planted.truths import ClassCount, PlantedShare
    from circuits.planted.validation import Validation

DEFAULTS = Options()


def declare_validate(parser: argparse.ArgumentParser) -> None:
    """Which circuits and methods, and how often."""
    for name, table in (("model", FAMILIES), ("method", METHODS)):
        parser.add_argument(
            f"--{name}",
            action="append",
            choices=tuple(table),
            help=f"{list_choices(table)} (may be given several times; left out, all)",
        )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        default=3,
        help="models of each circuit, seeds 0 to N-1 (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, default=DEFAULTS.steps, help="points of a path (default: %(default)s)"
    )
    parser.add_argument("--into", metavar="FILE", help="also put the tables between the markers of this document")


def validate_methods(options: argparse.Namespace) -> Answer:
    """Plant the circuits, score every edge by every method, and say how well the scores find them.

    With all circuits and methods, also whether planted knowledge is classified right and shared out right.
    """
    for name in ("seeds", "steps"):
        if not 1 <= getattr(options, name) <= 1000:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number from 1 to 1000")
    if options.into is not None:
        read_tables(Path(options.into))
    from circuits.planted.truths import measure_truths
    from circuits.planted.validation import validate

    families, methods = options.model or list(FAMILIES), options.method or list(METHODS)
    whole, seeds = not (options.model or options.method), range(options.seeds)
    with show_progress() as tick:
        found = validate(families, methods, seeds, Options(steps=options.steps), tick)
        classes, shares = measure_truths(seeds, tick) if whole else ([], [])
    text, document = render_tables(found), found.to_json()
    if whole:
        text = f"{text}\n\n{render_truths(classes, shares)}"
        document |= {"classes": [asdict(one) for one in classes], "shares": [asdict(one) for one in shares]}
    if options.into is not None:
        place_tables(Path(options.into), text)
    return Answer(document, text)


def render_tables(found: Validation) -> str:
    """Four tables in Markdown: the planted models, AUROC, average precision (means over the seeds), planted parts."""
    return "\n\n".join(
        [
            "### Planted models",
            render_models(found),
            "### AUROC over all edges",
            render_scores(found, "auroc"),
            "### Average precision",
            render_scores(found, "precision"),
            "### Planted parts",
            render_findings(found),
        ]
    )


def format_share(values: list[float]) -> str:
    """Mean of shares to four digits, cut and not rounded, so that 1.0000 is 1 on every seed."""
    return f"{int(sum(values) / len(values) * 10000 + 1e-9) / 10000:.4f}"


def format_range(values: list[float]) -> str:
    """Smallest to largest, or a dash where there is nothing."""
    return f"{min(values):.3f} to {max(values):.3f}" if values else "–"


def render_models(found: Validation) -> str:
    """One row a family: its graph, and how clearly its circuit stands out, from the smallest to the largest seed."""
    head = ["model", "layers", "positions", "edges", "planted", "unseen"]
    head += ["planted kept", "others kept", "weakest planted", "strongest other"]
    body = []
    for name in dict.fromkeys(size.family for size in found.sizes):
        sizes = [size for size in found.sizes if size.family == name]
        first = sizes[0]
        shares: list[list[float | None]] = [[s.kept for s in sizes], [s.others for s in sizes]]
        shares += [[s.weakest for s in sizes], [s.strongest for s in sizes]]
        cells = [format_range([share for share in column if share is not None]) for column in shares]
        counts = (first.layers, first.positions, first.edges, first.planted, first.unseen)
        body.append([name, *map(str, counts), *cells])
    return render_table(head, body)


def render_scores(found: Validation, field: str) -> str:
    """One row a method, one column a family."""
    families = list(dict.fromkeys(size.family for size in found.sizes))
    body = []
    for method in dict.fromkeys(score.method for score in found.scores):
        cells = [
            format_share([getattr(s, field) for s in found.scores if (s.method, s.family) == (method, family)])
            for family in families
        ]
        body.append([method, *cells])
    return render_table(["method", *families], body)


def render_findings(found: Validation) -> str:
    """One row a family and kind of part: how many there are, and how clearly the planted ones stand out."""
    head = ["planted part", "parts of the kind", "planted", "rank of the lowest", "weakest planted", "strongest other"]
    body = []
    for family, kind in dict.fromkeys((finding.family, finding.kind) for finding in found.findings):
        rows = [finding for finding in found.findings if (finding.family, finding.kind) == (family, kind)]
        ranks = sorted({row.worst for row in rows})
        rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        shares = [[r.weakest for r in rows], [r.strongest for r in rows], [r.exact for r in rows]]
        counts = str(rows[0].parts), str(rows[0].planted), rank
        body.append([f"{family}: {kind}", *counts, *map(format_range, shares)])
    return render_table([*head, "exact, weakest planted"], body)


def render_truths(classes: Sequence[ClassCount], shares: Sequence[PlantedShare]) -> str:
    """Two tables: components by kind over all seeds, and shares by format from the smallest to the largest seed."""
    names = ("components", "specific", "abstract", "inert", "errors", "levels")
    kinds = [
        [kind, *(str(sum(getattr(one, name) for one in classes if one.kind == kind)) for name in names)]
        for kind in dict.fromkeys(one.kind for one in classes)
    ]
    head = ["kind", "components", "planted specific", "abstract", "inert", "in another class", "to something else"]
    rows = []
    for removal, place in dict.fromkeys((one.removal, one.place) for one in shares):
        own = [one for one in shares if (one.removal, one.place) == (removal, place)]
        worst = max(abs(one.found - one.planted) for one in own)
        found = format_range([one.found for one in own])
        rows.append([f"{place}, {removal}", f"{own[0].planted:.3f}", found, f"{worst:.4f}"])
    return "\n\n".join(
        [
            "### Planted knowledge",
            render_table(head, kinds),
            "### Planted shares",
            render_table(["format, removal", "planted share", "found", "largest error"], rows),
        ]
    )


VALIDATE = Command(
    "validate",
    "Measure how well planted circuits are found, and planted knowledge classified and shared out.",
    "memory-circuits validate --model induction --method eap --method eap-ig",
    declare_validate,
    validate_methods,
)
