"""Data sets of questions: several shipped facts, or a table of prompts with their answers.

A table is a .csv, .jsonl or .parquet file, one pair a row:

    prompt           text up to the answer
    answer           what should follow; one token or several
    counterfactual   prompt of as many tokens that leads to the foil (may be left out for mean and zero ablation)
    foil             answer to compare with, of as many tokens as the answer (chosen by the model when left out)

Other columns are ignored. Lengths may differ from row to row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.facts import read_rows
from workbench.settings import Question, Settings

REQUIRED = ("prompt", "answer")
OPTIONAL = ("counterfactual", "foil")
# A larger data set is likelier a mistake than a question; the mean over several runs says as much.
MOST_PAIRS = 100_000


def list_questions(question: Question, settings: Settings) -> tuple[Question, ...]:
    """The single questions of what is asked, each complete for a trace; itself when it is one.

    Raises UserError for a table that cannot be read, is empty, lacks a column, repeats a row or has a row that cannot
    be compared; it names the row. No model is needed.
    """
    question.check_traceable(settings)
    if question.facts:
        single = [Question(fact=name) for name in question.facts]
    elif question.pairs:
        single = read_pairs(Path(question.pairs).expanduser())
    else:
        return (question,)
    if len(single) > MOST_PAIRS:
        raise UserError(f"{len(single)} pairs are asked about, more than {MOST_PAIRS}: split them")
    refuse_duplicates(single)
    for row, one in enumerate(single, start=1):
        check_row(one, row, settings)
    return tuple(single)


def check_row(question: Question, row: int, settings: Settings) -> None:
    """Raise UserError, naming the row, for a question that cannot be traced under the settings."""
    if settings.ablation == "counterfactual" and question.prompt and not question.counterfactual:
        raise UserError(f"row {row} has no counterfactual: fill the column in, or choose --ablation zero or mean")
    if settings.metric == "logit-diff" and question.foil and question.foil.strip() == question.answer.strip():
        raise UserError(f"row {row}: answer and foil are both {question.answer.strip()[:80]!r}: choose another foil")


def read_pairs(path: Path) -> list[Question]:
    """Questions of a table. Raises UserError when it cannot be read, is empty, or lacks a column or a cell."""
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path} has no rows: give one prompt a row, under the columns {', '.join(REQUIRED)}")
    columns = set().union(*(row.keys() for row in rows if isinstance(row, dict)))
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        known = ", ".join(sorted(map(str, columns)))[:200] or "none"
        raise UserError(f"{path} lacks the column {' and '.join(missing)}: it has {known}")
    return [read_pair(row, number) for number, row in enumerate(rows, start=1)]


def read_pair(row: Any, number: int) -> Question:
    """Question of one row. Raises UserError for a cell that is empty or no text."""
    if not isinstance(row, dict):
        raise UserError(f"row {number} is not an object with a prompt and an answer: {str(row)[:80]!r}")
    cells: dict[str, Any] = {name: "" if row.get(name) is None else row[name] for name in (*REQUIRED, *OPTIONAL)}
    for name, value in cells.items():
        if not isinstance(value, str):
            raise UserError(f"row {number}: {name} is {str(value)[:80]!r} and must be text")
        if name in REQUIRED and not value.strip():
            raise UserError(f"row {number} has no {name}: fill it in or remove the row")
    return Question(**cells)


def refuse_duplicates(questions: Sequence[Question]) -> None:
    """Raise UserError when a question is asked twice: it would weigh double in every mean."""
    seen: dict[Question, int] = {}
    for row, question in enumerate(questions, start=1):
        if question in seen:
            raise UserError(
                f"{question.words[:80]!r} is asked twice (rows {seen[question]} and {row}): a pair that occurs twice "
                "weighs double, remove one"
            )
        seen[question] = row
