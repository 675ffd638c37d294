"""`findings`: the measures on one model, what theory expects, and whether it is so; writes docs/findings.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.questions import DEFAULTS, declare_seed
from workbench.commands.terminal import clean_lines, show_progress
from workbench.documents import place_tables, read_tables
from workbench.settings import Settings

if TYPE_CHECKING:
    from workbench.findings.record import Finding
    from workbench.findings.study import Study

NAMES = ("index", "index-within", "induction", "blocking", "ledger", "agreement", "heads", "lens", "probe", "classes")


def declare_findings(parser: argparse.ArgumentParser) -> None:
    """The model, how many facts, which findings, and where the text goes."""
    for name in ("model", "bank", "memory", "device"):
        parser.add_argument(
            f"--{name}",
            metavar="NAME|FOLDER",
            default=getattr(DEFAULTS, name),
            help="as in trace (default: %(default)s)",
        )
    parser.add_argument("--facts", metavar="N", type=int, default=96, help="facts of a measure (default: %(default)s)")
    parser.add_argument(
        "--only", choices=NAMES, action="append", default=[], help="this finding; repeatable; left out, all"
    )
    parser.add_argument("--into", metavar="FILE", help="also put the text between the markers of this document")
    declare_seed(parser)


def list_measures() -> dict[str, Callable[[Study], Finding]]:
    """What measures each finding, in the order of the document."""
    from workbench.findings.classes import count_classes
    from workbench.findings.forgetting import measure_forgetting
    from workbench.findings.heads import describe_heads, judge_induction
    from workbench.findings.indexes import compare_indexes, compare_inside
    from workbench.findings.origins import check_attribution, divide_by_bucket
    from workbench.findings.readability import probe_positions, read_answers

    return dict(
        zip(
            NAMES,
            (
                compare_indexes,
                compare_inside,
                judge_induction,
                measure_forgetting,
                divide_by_bucket,
                check_attribution,
                describe_heads,
                read_answers,
                probe_positions,
                count_classes,
            ),
            strict=True,
        )
    )


def measure(study: Study, name: str, measures: Mapping[str, Callable[[Study], Finding]]) -> Finding:
    """One finding; where its facts cannot be measured, one that says why."""
    from workbench.findings.record import UNMEASURED, Finding, Method

    try:
        return measures[name](study)
    except UserError as error:
        return Finding(name, name.capitalize(), "", Method("-", "-", "-"), UNMEASURED, (), (str(error),))


def show_findings(options: argparse.Namespace) -> Answer:
    """Measure, say what is so, and put it into the document."""
    if options.facts < 2:
        raise UserError(f"--facts is {options.facts}: give 2 or more")
    if options.into is not None:
        read_tables(Path(options.into))
    settings = Settings(**{name: getattr(options, name) for name in ("model", "bank", "memory", "device", "seed")})
    from workbench import pipeline
    from workbench.findings.document import describe_source, render_findings
    from workbench.findings.study import Study

    with show_progress() as tick:
        study = Study(pipeline.open_engine(settings, tick), settings, options.facts, tick)
        measures = list_measures()
        found = [measure(study, name, measures) for name in NAMES if not options.only or name in options.only]
        source = describe_source(study)
    text = render_findings(found, source)
    if options.into is not None:
        place_tables(Path(options.into), text)
    rows = [row for finding in found for row in finding.to_json(study.seed)]
    return Answer(source | {"rows": rows}, clean_lines(text))


FINDINGS = Command(
    "findings",
    "What the measures say of a model: is knowledge where theory expects it, specific or abstract? Found as it is.",
    "memory-circuits findings --into docs/findings.md",
    declare_findings,
    show_findings,
)
