"""What a run found, in short: the same summary after `trace` and in `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.terminal import clean_text, format_pairs, format_table, quote
from workbench.library import find_runs
from workbench.runs import Run
from workbench.settings import ABLATIONS, METHODS, METRICS

NODES_SHOWN = 10


def resolve_run(text: str) -> Path:
    """Folder of a run: a path, or the name of a run in the runs folder. Raises UserError when neither is there."""
    for folder in (Path(text), find_runs() / text):
        if (folder / "run.json").is_file():
            return folder
    raise UserError(f"no run at {text[:200]!r}: `memory-circuits runs` lists those in {find_runs()}")


def rank_nodes(run: Run, count: int) -> list[dict[str, Any]]:
    """The `count` strongest nodes of a run's circuit as JSON objects, by size of score."""
    ranked = sorted(run.circuit.nodes, key=lambda node: (-abs(node.score), node.id))
    return [
        {
            "id": node.id,
            "kind": str(node.component.kind),
            "token": run.tokens[node.position],
            "score": node.score,
        }
        for node in ranked[:count]
    ]


def describe_memories(memories: dict[str, Any]) -> str:
    """Which memories were attached, in words; `none` when there was none."""
    attached = []
    for name, value in memories.items():
        if value:
            detail = value.get("name", "") if isinstance(value, dict) else value
            attached.append(f"{name} ({detail})" if detail else name)
    return ", ".join(attached) or "none"


def summarise_run(run: Run, folder: Path) -> dict[str, Any]:
    """Summary of a run as a JSON object: what was asked, how it was measured, what was found."""
    circuit = run.circuit
    return {
        "run": str(folder),
        "title": run.title,
        "question": run.about["question"],
        "model": run.about["model"],
        "memories": run.about["memories"],
        "answer": run.about["pair"]["answer"],
        "foil": run.about["pair"]["foil"],
        "counterfactual": run.about["pair"]["counterfactual"],
        "method": circuit.method,
        "ablation": circuit.ablation,
        "metric": circuit.metric,
        "unit": circuit.unit,
        "edges": len(circuit.edges),
        "requested": circuit.requested,
        "total": circuit.total,
        "faithfulness": run.about["faithfulness"],
        "nodes": rank_nodes(run, NODES_SHOWN),
    }


def describe_faithfulness(value: dict[str, Any] | None) -> str | None:
    """Faithfulness beside its random baseline, in words; None when it was not measured."""
    if not value or value.get("normalised") is None:
        return None
    text = f"{value['normalised']:.3f}"
    random = value.get("random")
    if random:
        text += f"; random circuits of that size {random['mean']:.3f} ({random['low']:.3f} to {random['high']:.3f})"
    return f"{text}; 0 is everything ablated, 1 the whole model"


def format_summary(summary: dict[str, Any]) -> str:
    """Summary of a run as text for a terminal."""
    method, ablation, metric = (
        table[summary[name]].label if summary[name] in table else summary[name]
        for name, table in (("method", METHODS), ("ablation", ABLATIONS), ("metric", METRICS))
    )
    pairs = format_pairs(
        [
            ("run", summary["run"]),
            ("prompt", summary["title"]),
            ("counterfactual", summary["counterfactual"]),
            ("answer, foil", f"{quote(summary['answer'])}, {quote(summary['foil'])}"),
            ("model", summary["model"].get("name")),
            ("memories", describe_memories(summary["memories"])),
            ("method", f"{method}; ablation: {ablation}"),
            ("metric", f"{metric}, in {summary['unit']}; positive helps the answer"),
            ("circuit", f"{summary['edges']} edges of {summary['total']} ({summary['requested']} asked for)"),
            ("faithfulness", describe_faithfulness(summary["faithfulness"])),
        ]
    )
    rows = [(node["id"], node["kind"], quote(node["token"]), node["score"]) for node in summary["nodes"]]
    return f"{pairs}\n\n{format_table(('node', 'kind', 'at token', clean_text(summary['unit'])), rows)}"
