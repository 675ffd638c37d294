"""`quality`: how good a saved run's circuit is, measured on the model again and kept beside the run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from workbench import pipeline, quality
from workbench.commands.command import Answer, Command
from workbench.commands.summaries import format_number, open_run
from workbench.commands.terminal import format_pairs, format_table, show_progress
from workbench.settings import restore_settings

DROPS_SHOWN = 5


def declare_quality(parser: argparse.ArgumentParser) -> None:
    """The run, what to measure of it and how much is sampled."""
    effort = quality.Effort()
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name in the runs folder")
    parser.add_argument(
        "--part",
        choices=quality.PARTS,
        action="append",
        help="measure this part alone; again for another (default: all)",
    )
    parser.add_argument(
        "--draws",
        metavar="N",
        type=int,
        default=effort.draws,
        help="random circuits and knock-outs (default: %(default)s)",
    )
    parser.add_argument(
        "--sample",
        metavar="N",
        type=int,
        default=effort.sample,
        help="edges patched exactly to compare with their estimate (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=effort.seed, help="seed of everything sampled (default: %(default)s)"
    )


def format_share(value: float | None) -> str:
    """Three decimals; a dash where there is no number."""
    return "–" if value is None else format_number(value)


def format_curves(found: dict[str, Any]) -> str:
    """Normalised faithfulness at every size of the grid, with the two areas."""
    kinds = ("absolute", "signed", "random")
    rows: list[tuple[object, ...]] = [
        (f"{100 * share:g} % of edges", *(format_number(found[kind]["faithfulness"][place]) for kind in kinds))
        for place, share in enumerate(found["absolute"]["shares"])
    ]
    for area, name in (("cpr", "CPR, larger is better"), ("cmd", "CMD, 0 is best")):
        rows.append((name, *(format_number(found[kind][area]) for kind in kinds)))
    heading = ("faithfulness of", "by absolute score", "by signed score", f"random (mean of {found['draws']})")
    return format_table(heading, rows)


def format_minimality(found: dict[str, Any], what: str) -> str:
    """How many parts matter, and which most."""
    some = "" if found["measured"] == found["parts"] else f" ({found['measured']} sampled)"
    best = ", ".join(f"{drop['name']} {format_number(drop['drop'])}" for drop in found["drops"][:DROPS_SHOWN])
    return (
        f"{found['parts']} {what}{some}: {100 * found['share_without_effect']:.0f} % do not matter alone "
        f"(|drop| below {found['tolerance']:g}); most: {best}"
    )


def format_ablations(found: dict[str, Any]) -> str:
    """Sufficiency, necessity, completeness and minimality."""
    complete = found["completeness"]
    return format_pairs(
        [
            ("sufficiency", f"{format_number(found['sufficiency'])}, the circuit alone; 1 is the whole model"),
            (
                "necessity",
                f"{format_number(found['necessity'])}, lost without its edges; the rest keeps "
                f"{format_number(found['without_circuit'])}",
            ),
            (
                "completeness",
                f"{format_number(complete['mean'])} apart from the model after {len(complete['knock_outs'])} "
                f"knock-outs in both (largest {format_number(complete['largest'])}); 0 is complete",
            ),
            ("minimality", format_minimality(found["edges"], "edges")),
            ("", format_minimality(found["nodes"], "nodes")),
        ]
    )


def format_agreement(found: dict[str, Any]) -> str:
    """Estimate against exact patching, with the worst misses."""
    if "reason" in found:
        return f"estimate against exact patching: {found['reason']}"
    line = (
        f"estimate against exact patching, {found['sampled']} edges from strongest to weakest: Spearman "
        f"{format_share(found['spearman'])}, same sign {100 * found['sign']:.0f} %"
    )
    rows = [(miss["edge"], miss["estimate"], miss["exact"]) for miss in found["misses"]]
    return f"{line}\n{format_table(('furthest apart', 'estimate', 'exact'), rows)}"


def format_overlap(found: list[dict[str, Any]]) -> str:
    """Overlap with the circuits of other seeds, ablations and paraphrases."""
    rows = [
        (row["name"], row["kind"], format_share(row["jaccard"]), format_share(row["spearman"]), row["reason"])
        for row in found
    ]
    return format_table(("same selection from", "", "Jaccard", "Spearman", "not measured because"), rows, 80)


FORMATS: dict[str, Callable[[Any], str]] = {
    "curves": format_curves,
    "ablations": format_ablations,
    "agreement": format_agreement,
    "overlap": format_overlap,
}


def measure_quality(options: argparse.Namespace) -> Answer:
    """Measure a run's circuit and keep what was found as `quality.json` in the run's folder."""
    effort = quality.Effort(tuple(options.part or quality.PARTS), options.draws, options.sample, options.seed)
    effort.check()
    folder, run = open_run(options.run)
    settings = restore_settings(run.about["settings"])
    with show_progress() as tick:
        found = quality.measure_run(pipeline.open_engine(settings, tick), run, effort, tick)
    quality.save_quality(folder, found)
    parts = [FORMATS[part](found[part]) for part in quality.PARTS if part in found]
    return Answer({"run": str(folder), **found}, "\n\n".join(parts))


QUALITY = Command(
    "quality",
    "Measure how good a saved run's circuit is: faithfulness by size, necessity, completeness, minimality, agreement "
    "with exact patching, overlap with other circuits.",
    "memory-circuits quality runs/france-capital-1a2b3c4d --part curves --part ablations",
    declare_quality,
    measure_quality,
)
