"""The strongest FFN units, bank units, memory slots and attention edges of a run, after `trace` and in `show`."""

from __future__ import annotations

from typing import Any

from circuits.graph import Kind
from circuits.parts import PART_KINDS, WEIGHED
from workbench.commands.terminal import clean_text, format_table, quote
from workbench.runs import Run
from workbench.settings import ABLATIONS, METHODS
from workbench.views.memories import find_source

PARTS_SHOWN = 5


def list_parts(run: Run, count: int) -> list[dict[str, Any]]:
    """The `count` strongest kept parts of each kind, as nodes and into each reader, as JSON objects."""
    kept = run.parts
    if kept is None:
        return []
    return [
        {
            "id": part.id,
            "kind": PART_KINDS[kind],
            "reader": part.reader,
            "token": run.tokens[part.position] if part.position < len(run.tokens) else "",
            "source": find_source(run, part.component),
            "score": part.score,
            "contribution": part.contribution,
            "renormalised": part.renormalised,
        }
        for reader in ("", *kept.readers)
        for kind in PART_KINDS
        for part in kept.list_strongest(kind, reader)[:count]
    ]


def add_parts(run: Run, count: int, text: str, summary: dict[str, Any]) -> str:
    """A run's summary with its strongest parts, in both its forms; as it was for a run without parts."""
    if run.parts is None or count < 1:
        return text
    summary["parts"] = list_parts(run, count)
    return f"{text}\n\n{format_parts(run, summary['parts'])}"


def format_parts(run: Run, rows: list[dict[str, Any]]) -> str:
    """Tables of parts, one a kind and reader, under a line that says how they were scored."""
    kept = run.parts
    assert kept is not None
    method = METHODS[kept.method].label if kept.method in METHODS else kept.method
    ablation = ABLATIONS[kept.ablation].label if kept.ablation in ABLATIONS else kept.ablation
    lines = [
        f"parts: estimates by {clean_text(method)}, ablation: {clean_text(ablation)}; drop in {clean_text(kept.unit)} "
        f"when that part alone is removed; the {kept.asked} strongest of each kind were kept"
    ]
    lines += [f"not scored: {clean_text(reason)}" for reason in kept.left_out]
    tables = []
    for reader in ("", *kept.readers):
        for kind, name in PART_KINDS.items():
            found = [row for row in rows if (row["kind"], row["reader"]) == (name, reader)]
            if found:
                into = f"into {clean_text(reader)}\n" if reader else ""
                tables.append(into + format_kind(kind, found))
    return "\n\n".join(["\n".join(lines), *tables])


def format_kind(kind: Kind, rows: list[dict[str, Any]]) -> str:
    """Table of parts of one kind; those with attention weights have three ways of removal."""
    name = PART_KINDS[kind]
    if kind not in WEIGHED:
        return format_table((name, "at token", "ablated"), [(r["id"], quote(r["token"]), r["score"]) for r in rows])
    cells = [
        (r["id"], quote(r["token"]), quote(r["source"]), r["score"], r["contribution"], r["renormalised"]) for r in rows
    ]
    return format_table((name, "at token", "brings", "ablated", "contribution", "renormalised"), cells)
