"""What a run found, in short: the same summary after `trace` and in `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.circuit_files import Traced
from workbench.commands.terminal import clean_text, format_pairs, format_table, quote
from workbench.exports_json import read_json
from workbench.library import find_runs
from workbench.runs import Run, load_run
from workbench.settings import ABLATIONS, METHODS, METRICS
from workbench.storage import read_bytes

NODES_SHOWN = 10


def resolve_run(text: str) -> Path:
    """Folder of a run: a path, or the name of a run in the runs folder. Raises UserError when neither is there."""
    for folder in (Path(text), find_runs() / text):
        if (folder / "run.json").is_file():
            return folder
    raise UserError(f"no run at {text[:200]!r}: `memory-circuits runs` lists those in {find_runs()}")


def open_run(text: str) -> tuple[Path, Run]:
    """Folder and run of a path or name. Raises UserError when it is missing, damaged, or lacks what we show of it."""
    folder = resolve_run(text)
    run = load_run(folder)
    try:
        whole = all(node.position < len(run.tokens) for node in run.circuit.nodes)
        describe_memories(run.about["memories"])
        describe_faithfulness(run.about["faithfulness"])
        describe_metric(run.about["faithfulness"])
        describe_model(run.about["model"], run.about["settings"]["model"])
        whole = whole and all({"answer", "foil", "counterfactual"} <= pair.keys() for pair in run.pairs)
        whole = whole and {"question", "versions", "command"} <= run.about.keys()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        whole = False
    if not whole:
        raise UserError(f"{folder} was edited or is of another release: its run.json lacks what is shown; trace again")
    return folder, run


def open_traced(text: str) -> tuple[Path, Traced]:
    """Path and run of a path or name, or the circuit of a file of ours. Raises UserError as `open_run`."""
    path = Path(text)
    if path.is_file() and path.suffix == ".json" and path.name != "run.json":
        return path, read_json(read_bytes(path))
    return open_run(text)


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


def describe_tokens(tokens: list[str]) -> str | None:
    """Tokens of an answer of several, None of one."""
    return " ".join(map(quote, tokens)) if len(tokens) > 1 else None


def name_block(block: dict[str, Any]) -> str:
    """A memory's id, and its cosine with the prompt where it was found by it."""
    similarity = block.get("similarity")
    return str(block["id"]) if similarity is None else f"{block['id']} (cosine {similarity:.2f})"


def describe_memories(memories: dict[str, Any]) -> str:
    """Which memories were attached, in words; `none` when there was none."""
    attached = []
    if bank := memories.get("bank"):
        path = " > ".join(map(str, bank.get("path", ())))
        attached.append(f"bank, clusters {path or 'of each pair'}")
    if explicit := memories.get("explicit"):
        blocks = ", ".join(map(name_block, explicit.get("blocks", ())))
        attached.append(f"explicit memory of {blocks or 'each pair'}")
    if memories.get("text"):
        attached.append("text before the prompt")
    return "; ".join(attached) or "none"


def describe_model(model: dict[str, Any], chosen: str) -> str:
    """The model as it was chosen, its architecture and the first digits of its hash."""
    return f"{chosen} ({model.get('architecture')}, sha256 {str(model.get('sha256'))[:12]})"


def summarise_run(run: Run, folder: Path) -> dict[str, Any]:
    """Summary of a run as a JSON object: what was asked, how it was measured, what was found."""
    circuit = run.circuit
    return {
        "run": str(folder),
        "title": run.title,
        "question": run.about["question"],
        "settings": run.about["settings"],
        "model": run.about["model"],
        "memories": run.about["memories"],
        "pairs": len(run.pairs),
        "answer": run.pair["answer"],
        "answer_tokens": run.pair["answer_tokens"],
        "foil": run.pair["foil"],
        "counterfactual": run.pair["counterfactual"],
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


def format_number(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    text = f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def describe_faithfulness(value: dict[str, Any]) -> str:
    """Normalised faithfulness beside that of random circuits, in words."""
    if not value:
        return "not measured"
    own, random = format_number(value["normalised"]), value.get("random")
    if random:
        mean, low, high = (format_number(random[name]) for name in ("mean", "low", "high"))
        own += f", random circuits of that size {mean} ({low} to {high})"
    return f"{own}; the whole model is 1"


def describe_metric(value: dict[str, Any]) -> str:
    """What the metric was on the whole model, on the circuit, and with everything ablated."""
    if not value:
        return "not measured"
    whole, circuit, empty = (format_number(value[f"metric_{name}"]) for name in ("whole", "circuit", "empty"))
    return f"{whole} {value.get('unit', '')} whole model, {circuit} circuit, {empty} everything ablated"


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
            ("answer tokens", describe_tokens(summary["answer_tokens"])),
            ("pairs", f"{summary['pairs']}, the first shown; positions are summed" if summary["pairs"] > 1 else None),
            ("model", describe_model(summary["model"], str(summary["settings"].get("model")))),
            ("memories", describe_memories(summary["memories"])),
            ("method", f"{method}; ablation: {ablation}"),
            ("metric", f"{metric}, in {summary['unit']}; positive helps the answer"),
            ("circuit", f"{summary['edges']} edges of {summary['total']} ({summary['requested']} asked for)"),
            ("measured", describe_metric(summary["faithfulness"])),
            ("faithfulness", describe_faithfulness(summary["faithfulness"])),
        ]
    )
    rows = [(node["id"], node["kind"], quote(node["token"]), node["score"]) for node in summary["nodes"]]
    return f"{pairs}\n\n{format_table(('node', 'kind', 'at token', clean_text(summary['unit'])), rows)}"
