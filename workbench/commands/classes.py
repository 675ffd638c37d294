"""`classes`: circuits as classes of subgraphs across texts, how often each occurs, specific or abstract."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.desk import TERMINAL, Desk
from workbench.commands.fact_sets import declare_facts, gather_known, read_settings, tell_skipped
from workbench.commands.terminal import clean_text, format_table

if TYPE_CHECKING:
    from circuits.classes import CircuitClass

# By the names of `circuits/classes.py`, which imports torch.
PIECES = ("edges", "pairs", "joined", "whole")
WEIGHTS = ("ablation", "gradient", "activation-gradient")


def declare_classes(parser: argparse.ArgumentParser) -> None:
    """The texts, the weight of an edge, how subgraphs are cut, and the thresholds."""
    declare_facts(parser, limit=4, wordings=3)
    parser.add_argument(
        "--weight",
        choices=WEIGHTS,
        default="ablation",
        help="what an edge weighs: exact zero ablation of its attention weight or activation, the gradient by it, or "
        "their product (default: %(default)s)",
    )
    parser.add_argument(
        "--pieces",
        choices=PIECES,
        default="pairs",
        help="subgraphs of a text: single edges, pairs of which one feeds the other, all that hangs together, or the "
        "whole (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="edges below this share of the text's strongest are negligible (default: %(default)s)",
    )
    parser.add_argument(
        "--fraction",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="specific: at most this share of members have another output than the most frequent; the paper says "
        "“a small fraction” (default: %(default)s)",
    )
    parser.add_argument(
        "--candidates",
        metavar="N",
        type=int,
        default=256,
        help="edges of a text that are ablated, the strongest by activation x gradient (default: %(default)s)",
    )
    parser.add_argument("--show", metavar="N", type=int, default=20, help="classes to print (default: %(default)s)")


def find_classes(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Classes over the facts' prompts, each with its answer as the target."""
    for name in ("threshold", "fraction"):
        if not 0 <= getattr(options, name) <= 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give a share from 0 to 1")
    for name in ("candidates", "show"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give 1 or more")
    settings = read_settings(options)
    from circuits.classes import find_circuits
    from circuits.text_graph import Text

    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        items, skipped = gather_known(engine, options, settings, tick)
        texts = [
            Text((*item.ids, *item.answer_ids), tuple(range(len(item.ids), len(item.ids) + len(item.answer_ids))))
            for item in items
        ]
        attachments = [item.attachment for item in items]
        found, kept = find_circuits(
            engine.model,
            texts,
            attachments,
            options.pieces,
            options.weight,
            options.threshold,
            options.fraction,
            options.candidates,
            options.seed,
            tick,
        )
    rows = [describe_class(circuit, [item.fact for item in items], engine.model.decode) for circuit in found]
    names = ("weight", "pieces", "threshold", "fraction", "candidates", "seed")
    document = {
        "settings": {name: getattr(options, name) for name in names},
        "unit": "nats a unit of a" if options.weight == "gradient" else "nats",
        "texts": len(texts),
        "facts": len({item.fact for item in items}),
        "targets": len({item.answer_ids for item in items}),
        "subgraphs": sum(len(circuit.members) for circuit in found),
        "edges_kept": sum(len(one.edges) for one in kept),
        "classes": rows,
        "skipped": [asdict(one) for one in skipped],
    }
    return Answer(document, render(document, rows[: options.show], tell_skipped(skipped)))


def describe_class(circuit: CircuitClass, facts: Sequence[str], decode: Callable[[int], str]) -> dict[str, Any]:
    """One class as a JSON object: its first member stands for it."""
    place, subgraph = circuit.members[0]

    def count(tokens: Sequence[tuple[int, ...]]) -> list[dict[str, Any]]:
        texts = Counter("".join(map(decode, ids)) for ids in tokens)
        return [{"text": text, "members": number} for text, number in texts.most_common(8)]

    return {
        "edges": [edge.name for edge in sorted(subgraph)],
        "example": facts[place],
        "members": len(circuit.members),
        "facts": [
            {"fact": fact, "members": number}
            for fact, number in Counter(facts[text] for text, _ in circuit.members).most_common()
        ],
        "rate": asdict(circuit.rate),
        "weight": circuit.weight,
        "inputs": count(circuit.inputs),
        "outputs": count(circuit.outputs),
        "variability": circuit.variability,
        "verdict": circuit.verdict,
    }


def render(document: dict[str, Any], rows: Sequence[dict[str, Any]], skipped: str) -> str:
    """One line a class, the most frequent first."""
    cells = [
        (
            " + ".join(row["edges"]),
            f"{row['rate']['value']:.2f} [{row['rate']['low']:.2f}, {row['rate']['high']:.2f}]",
            row["members"],
            row["weight"],
            row["verdict"],
            row["variability"],
            ", ".join(clean_text(one["text"]).strip() for one in row["inputs"][:3]),
            ", ".join(clean_text(one["text"]).strip() for one in row["outputs"][:3]),
        )
        for row in rows
    ]
    settings = document["settings"]
    share = f"{settings['threshold']:g}"
    about = (
        f"{document['edges_kept']} edges of {document['texts']} texts on {document['facts']} facts, "
        f"{document['subgraphs']} subgraphs "
        f"({settings['pieces']}) in {len(document['classes'])} classes; "
        f"weight: {settings['weight']} in {document['unit']}, at least {share} of the text's strongest edge{skipped}"
    )
    if document["targets"] == 1:
        about += (
            "\nall texts have one and the same answer, so no class can be told specific or abstract: give more facts"
        )
    headings = ("edges (first member)", "rate", "members", "weight", "verdict", "variability", "t_in", "t_out")
    table = format_table(headings, cells) if cells else "no subgraph: choose --pieces edges, or a lower --threshold"
    return f"{about}\n\n{table}"


CLASSES = Command(
    "classes",
    "Circuits as classes of subgraphs across texts (Memory^3, definitions 1 to 5): rate, specific or abstract.",
    "memory-circuits classes --relation capital --limit 8 --pieces edges",
    declare_classes,
    find_classes,
)
