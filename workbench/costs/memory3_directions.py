"""The directions that Memory^3 (Yang et al. 2024) reports, on the shipped model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from workbench.costs.directions import Direction, Evaluation, Relation, list_measured, read_evaluation, read_heads

EXPLICIT, STAGES, LAYERS = "explicit memory", "two stages", "memory layers"
SEEDS = (
    "Mean over pairs of seeds of the difference in never-seen facts right with one memory; the interval is the "
    "smallest and the largest of a pair. Shown only where every seed agrees."
)
WINDOW = "Heads that lose most when they see only the 16 tokens before and the first (the paper: 100); short texts."


def list_directions(folder: Path) -> list[Direction]:
    """Every direction whose measurement lies in the folder of a demo model."""
    rows = read_evaluation(folder)
    return list_measured([
        partial(compare_reading, rows, "one memory", "none", "above", "+3.70 (54.54 to 58.23)", "table 24, 0-shot"),
        partial(compare_reading, rows, "five memories", "none", "above", "+3.70 (54.54 to 58.23)", "table 24, 0-shot"),
        partial(compare_reading, rows, "one dense memory", "one memory", "alike", "few tokens suffice", "remark 1"),
        partial(compare_middle, rows),
        partial(compare_stages, rows, "with gradient"),
        partial(compare_stages, rows, "without gradient"),
        *(partial(compare_heads, folder, finder) for finder in ("retrieval", "induction")),
    ])  # fmt: skip


def compare_reading(
    rows: Evaluation, condition: str, other: str, relation: Relation, published: str, source: str
) -> Direction:
    """Never-seen facts right in one condition less another."""
    name = f"never-seen facts: {condition} over {other}"
    plus, minus = (rows.find(EXPLICIT, one) for one in (condition, other))
    return rows.compare(name, published, relation, source, plus=[plus], minus=[minus])


def compare_middle(rows: Evaluation) -> Direction:
    """Memories at the middle layers against the first half, one memory, after the same short training."""
    trained = [name for name in rows.list_values("condition", LAYERS) if not name.endswith(", untrained")]
    sets = {name: [int(layer) for layer in name.removeprefix("layers ").split(", ")] for name in trained}
    depth = 1 + max((layer for layers in sets.values() for layer in layers), default=0)
    half = range(depth // 2)
    first = next((name for name, layers in sets.items() if layers == list(half)), None)
    middle = next(
        (name for name, layers in sets.items() if len(layers) == len(half) and layers[0] >= depth / 4), None
    )  # fmt: skip
    if first is None or middle is None:
        raise LookupError("the sweep has no first half or no middle")
    name = f"memory {middle} over {first}"
    plus, minus = (rows.find(LAYERS, one, paraphrase="one memory") for one in (middle, first))
    note = "After a short training: how fast a choice of layers is learnt, not how good it is in the end."
    return rows.compare(
        name, "middle layers more sensible", "above", "section 3.3", plus=[plus], minus=[minus], note=note
    )


def compare_stages(rows: Evaluation, gradient: str) -> Direction:
    """Memory after warm-up less memory from the start, seed by seed."""
    differences = []
    for condition in rows.list_values("condition", STAGES):
        if condition.startswith(f"after warm-up, {gradient}, "):
            other = condition.replace("after warm-up", "from the start")
            late, early = (rows.find(STAGES, one, paraphrase="one memory") for one in (condition, other))
            differences.append(100 * (late.value - early.value))
    if not differences:
        raise LookupError("two stages were not trained")
    mean = sum(differences) / len(differences)
    return Direction(
        f"memory after warm-up over from the start, {gradient} through the write", "loss falls only after warm-up",
        "above", round(mean, 2), round(min(differences), 2), round(max(differences), 2), len(differences), "seeds",
        "section 3.6, figure 11", note=SEEDS,
    )  # fmt: skip


def compare_heads(folder: Path, finder: str) -> Direction:
    """Rank correlation over heads of the memory-head finder's drop with another finder."""
    for row in read_heads(folder):
        if row["finders"] == ["memory", finder] and row["spearman"] is not None:
            return Direction(
                f"memory-head finder agrees with {finder} heads", "candidates are retrieval heads", "above",
                row["spearman"], row["low"], row["high"], row["n"], "heads", "remark 4", "rank correlation", WINDOW,
            )  # fmt: skip
    raise LookupError(f"the finder {finder} was not compared")
