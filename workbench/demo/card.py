"""The model card's tables, from the rows that `memory-circuits demo evaluate` measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.demo.charts import Series, draw_bars, draw_lines
from workbench.documents import place_tables, render_table

Row = dict[str, Any]
EXPERIMENTS = {
    "memory kinds": "Memory kinds: blocks of one size on the frozen anchor trained alone, by bucket",
    "depth": "Depth: FFN blocks of one size in some layers, by bucket",
    "memory layers": "Memory layers: never-seen facts before and after the same short training",
    "two stages": "Two stages: memory from the start or after warm-up, mean over seeds (each seed)",
}


def render_tables(rows: list[Row]) -> str:
    """All tables as Markdown, percent with the bootstrap 95% interval; the text that the model card carries."""
    parts = [
        "### Long tail: trained facts by frequency bucket (1 rarest, 5 most frequent)",
        *(render_long_tail(rows, paraphrase) for paraphrase in ("seen", "held-out")),
        "### Explicit memory: facts that training never stated",
        render_grid(rows, "explicit memory", "paraphrase", " paraphrase"),
        "### Abstract tasks, with each memory attached",
        render_abstract(rows),
    ]
    for experiment, title in EXPERIMENTS.items():
        if any(row["experiment"] == experiment for row in rows):
            column = "bucket" if experiment in ("memory kinds", "depth") else "paraphrase"
            parts += [f"### {title}", render_grid(join_seeds(rows, experiment), experiment, column)]
    return "\n\n".join(parts)


def join_seeds(rows: list[Row], experiment: str) -> list[Row]:
    """Rows of one experiment; those that differ in their seed alone become one, with the mean and each seed's own."""
    groups: dict[tuple[str, Any, str], list[Row]] = {}
    for row in rows:
        if row["experiment"] == experiment:
            name = row["condition"].split(", seed ")[0]
            groups.setdefault((name, row["bucket"], row["paraphrase"]), []).append(row)
    return [
        {
            **group[0],
            "condition": name,
            "accuracy": sum(row["accuracy"] for row in group) / len(group),
            "seeds": [row["accuracy"] for row in group] if len(group) > 1 else None,
        }
        for (name, _, _), group in groups.items()
    ]


def render_cell(rows: list[Row], **wanted: Any) -> str:
    """Percent right of the first row with these values, with its interval, or with each seed's percent."""
    row = next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)
    if row is None:
        return "-"
    if row.get("seeds"):
        return f"{100 * row['accuracy']:.1f} ({', '.join(f'{100 * seed:.0f}' for seed in row['seeds'])})"
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def list_values(rows: list[Row], experiment: str, key: str) -> list[Any]:
    """Distinct values of one column within an experiment, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows if row["experiment"] == experiment))


def render_grid(rows: list[Row], experiment: str, column: str, suffix: str = "") -> str:
    """Conditions by the values of another column."""
    values = list_values(rows, experiment, column)
    body = [
        [name, *(render_cell(rows, experiment=experiment, condition=name, **{column: value}) for value in values)]
        for name in list_values(rows, experiment, "condition")
    ]
    sizes = ["n", *(find_size(rows, experiment=experiment, **{column: value}) for value in values)]
    names = [f"bucket {value}" if column == "bucket" else f"{value}{suffix}" for value in values]
    return render_table(["condition", *names], [*body, sizes])


def find_size(rows: list[Row], **wanted: Any) -> str:
    """Number of questions of the first row with these values."""
    return next((str(row["n"]) for row in rows if all(row[key] == value for key, value in wanted.items())), "0")


def render_long_tail(rows: list[Row], paraphrase: str) -> str:
    """Every way to use the bank by bucket, with the leaf hit rate of the same prompts below."""
    own = [row for row in rows if row["paraphrase"] == paraphrase]
    joined = [{**row, "experiment": "long tail"} for row in own if row["experiment"] in ("long tail", "routing")]
    joined.sort(key=lambda row: row["condition"].startswith("leaf hit"))
    return f"With a {paraphrase} paraphrase:\n\n{render_grid(joined, 'long tail', 'bucket')}"


def render_abstract(rows: list[Row]) -> str:
    """Conditions by task."""
    own = [
        {**row, "experiment": "abstract", "paraphrase": row["experiment"].removeprefix("abstract: ")}
        for row in rows
        if row["experiment"].startswith("abstract: ")
    ]
    return render_grid(own, "abstract", "paraphrase")


def write_tables(card: Path, rows: list[Row]) -> None:
    """Put the tables of these rows in the place of the card's. Raises `UserError` for a file without the markers."""
    place_tables(card, render_tables(rows))


def draw_figures(arms: list[Row]) -> dict[str, str]:
    """SVG figures of the experiments, by file name; only of those that were run."""
    figures = {}
    layers = [row for arm in arms if arm["experiment"] == "memory layers" for row in arm["rows"]]
    if layers:
        names = list(dict.fromkeys(row["condition"] for row in layers if not row["condition"].endswith(", untrained")))
        series = [
            Series(
                f"{reading}{suffix}",
                [
                    (number, 100 * row["accuracy"])
                    for number, name in enumerate(names)
                    for row in layers
                    if row["condition"] == name + suffix and row["paraphrase"] == reading
                ],
            )
            for reading in ("one memory", "five memories")
            for suffix in (", untrained", "")
        ]
        groups = [name.removeprefix("layers ") for name in names]
        figures["memory-layers.svg"] = draw_bars("Never-seen facts right, by memory layers", "layers", groups, series)
    stages = [arm for arm in arms if arm["experiment"] == "two stages"]
    if stages:
        figures["two-stages.svg"] = draw_lines(
            "One memory: never-seen facts right, mean over seeds", "steps", list(average_curves(stages))
        )
    return figures


def average_curves(arms: list[Row]) -> Iterator[Series]:
    """Curves of accuracy with one memory, averaged over the seeds of each schedule."""
    for name in dict.fromkeys(arm["condition"].split(", seed ")[0] for arm in arms):
        curves = [arm["curve"] for arm in arms if arm["condition"].split(", seed ")[0] == name]
        points = [
            (step[0]["step"], 100 * sum(point["one memory"] for point in step) / len(step))
            for step in zip(*curves, strict=True)
        ]
        yield Series(name, points)
