"""Findings as Markdown: a summary, then each with what was expected, how it was measured, its numbers and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.documents import render_table
from workbench.findings.record import AS_EXPECTED, DESCRIBED, NOT_SO, UNMEASURED, Finding, format_interval

if TYPE_CHECKING:
    from workbench.findings.study import Study


def clean_cell(text: str) -> str:
    """Text of a model or file as it may stand in a table of Markdown."""
    return "".join(
        " " if not character.isprintable() else "\\|" if character == "|" else character for character in text
    )


def describe_source(study: Study) -> dict[str, Any]:
    """What was measured: model, bank, memories by hash, facts a measure, seed."""
    engine = study.engine
    return {
        "model": engine.model.sha256,
        "bank": None if engine.bank is None else engine.bank.sha256,
        "memory": None if engine.memories is None else engine.memories.sha256,
        "facts": study.count,
        "seed": study.seed,
    }


def render_findings(findings: Sequence[Finding], source: dict[str, Any]) -> str:
    """The whole text."""
    hashes = ", ".join(f"{name} `{str(source[name])[:12]}`" for name in ("model", "bank", "memory") if source[name])
    counts = Counter(finding.verdict for finding in findings)
    words = ", ".join(f"{counts[name]} {name}" for name in (AS_EXPECTED, NOT_SO, DESCRIBED, UNMEASURED) if counts[name])
    head = (
        f"Measured on {hashes}; about {source['facts']} facts a measure, seed {source['seed']}. {words.capitalize()}."
    )
    table = render_table(["question", "found"], [[finding.title, finding.verdict] for finding in findings])
    return "\n\n".join([head, table, *map(render_finding, findings)])


def render_finding(finding: Finding) -> str:
    """One finding."""
    parts = [f"### {finding.title}"]
    if finding.expected:
        parts.append(f"Expected: {finding.expected}. **Found: {finding.verdict}.**")
    elif finding.verdict == UNMEASURED:
        parts.append(f"**{finding.verdict.capitalize()}.**")
    parts += [clean_cell(note) for note in finding.notes]
    how = finding.how
    parts.append(f"Method: {how.method}. Ablation: {how.ablation}. Metric: {how.metric}.")
    if finding.rows:
        body = [[clean_cell(r.name), format_interval(r), r.unit, f"{r.n} {r.counted}"] for r in finding.rows]
        parts.append(render_table(["what", "value [95 % interval]", "unit", "n"], body))
    return "\n\n".join(parts)
