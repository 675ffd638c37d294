"""The model card's tables, from the rows that `memory-circuits demo evaluate` measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = dict[str, Any]
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def render_tables(rows: list[Row]) -> str:
    """All tables as Markdown, percent with the bootstrap 95% interval; the text that the model card carries."""
    parts = [
        "### Long tail: trained facts by frequency bucket (1 rarest, 5 most frequent)",
        *(_render_long_tail(rows, paraphrase) for paraphrase in ("seen", "held-out")),
        "### Explicit memory: facts that training never stated",
        _render_memory(rows),
        "### Abstract tasks, with each memory attached",
        _render_abstract(rows),
    ]
    return "\n\n".join(parts)


def _cell(rows: list[Row], **wanted: Any) -> str:
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if not found:
        return "-"
    row = found[0]
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _count(rows: list[Row], **wanted: Any) -> int:
    return next((int(row["n"]) for row in rows if all(row[key] == value for key, value in wanted.items())), 0)


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(line) + " |" for line in body])


def _conditions(rows: list[Row], experiment: str) -> list[str]:
    return list(dict.fromkeys(row["condition"] for row in rows if row["experiment"] == experiment))


def _render_long_tail(rows: list[Row], paraphrase: str) -> str:
    buckets = sorted({row["bucket"] for row in rows if row["experiment"] == "long tail"})
    head = [f"{paraphrase} paraphrase", *(f"bucket {bucket}" for bucket in buckets)]
    body = [
        [
            name,
            *(_cell(rows, experiment=kind, condition=name, bucket=b, paraphrase=paraphrase) for b in buckets),
        ]
        for kind in ("long tail", "routing")
        for name in _conditions(rows, kind)
    ]
    sizes = [str(_count(rows, experiment="long tail", bucket=bucket, paraphrase=paraphrase)) for bucket in buckets]
    return _table(head, [*body, ["n", *sizes]])


def _render_memory(rows: list[Row]) -> str:
    body = [
        [
            name,
            *(_cell(rows, experiment="explicit memory", condition=name, paraphrase=p) for p in ("seen", "held-out")),
        ]
        for name in _conditions(rows, "explicit memory")
    ]
    sizes = [str(_count(rows, experiment="explicit memory", paraphrase=p)) for p in ("seen", "held-out")]
    return _table(["condition", "seen paraphrase", "held-out paraphrase"], [*body, ["n", *sizes]])


def _render_abstract(rows: list[Row]) -> str:
    tasks = list(dict.fromkeys(row["experiment"] for row in rows if row["experiment"].startswith("abstract: ")))
    names = _conditions(rows, tasks[0]) if tasks else []
    body = [[name, *(_cell(rows, experiment=task, condition=name) for task in tasks)] for name in names]
    sizes = [str(_count(rows, experiment=task)) for task in tasks]
    return _table(["condition", *(task.removeprefix("abstract: ") for task in tasks)], [*body, ["n", *sizes]])


def read_tables(card: Path) -> str:
    """The tables that a card carries, between its two markers."""
    text = card.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def write_tables(card: Path, rows: list[Row]) -> None:
    """Put the tables of these rows in the place of the card's."""
    text = card.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    card.write_text(f"{text[:begin]}\n\n{render_tables(rows)}\n\n{text[end:]}")
