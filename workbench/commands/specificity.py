"""`specificity`: for heads, FFN units, bank blocks and explicit memories, to which facts each matters."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.component_names import KINDS, find_kind
from probes.errors import UserError
from workbench.commands.command import PROGRAM, Answer, Command
from workbench.commands.desk import TERMINAL, Desk
from workbench.commands.fact_sets import declare_facts, describe_skipped, gather_items, read_settings, tell_skipped
from workbench.commands.terminal import format_table
from workbench.fact_items import keep_known
from workbench.ledgers.measuring import describe_source

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from circuits.specificity import Layout, Specificity
    from probes.models import Model
    from probes.progress import Tick

# Texts about no fact, on which removal shall change nothing; each is cut to what the model reads.
UNRELATED = 8
# What of the answer a table's file says of itself.
ABOUT = ("method", "metric", "unit", "facts", "relations", "items", "seed")


def declare_specificity(parser: argparse.ArgumentParser) -> None:
    """The facts, how many components are removed for real, and where the table goes."""
    declare_facts(parser, limit=8, wordings=3)
    parser.add_argument(
        "--negligible",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="inert: no fact's effect reaches this share of the largest of the component's kind (default: %(default)s)",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="first-order effects for all components, from one backward pass; else heads, bank blocks and memories are "
        "removed one by one (zero ablation) and FFN units alone are estimated",
    )
    parser.add_argument(
        "--confirm",
        metavar="N",
        type=int,
        default=3,
        help="components of each kind with the largest effects that are removed for real (default: %(default)s)",
    )
    parser.add_argument("--show", metavar="N", type=int, default=10, help="components of a kind (default: %(default)s)")
    parser.add_argument("--table", metavar="FILE.parquet", help="write a row for every component")


def measure(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Effects of all components on the facts that the model knows, divided, and the strongest confirmed."""
    if not 0 <= options.negligible < 1:
        raise UserError(f"--negligible is {options.negligible}: give a share from 0 to below 1")
    if min(options.confirm, options.show) < 0:
        raise UserError("--confirm and --show count components: give 0 or more")
    if options.table and not options.table.endswith(".parquet"):
        raise UserError(f"--table is {options.table[:80]}: its name must end in .parquet")
    settings = read_settings(options)
    from circuits.component_effects import Effects, correct_effects, measure_effects
    from circuits.specificity import lay_out, measure_specificity

    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        facts, items, skipped = gather_items(engine, options, settings)
        effects = measure_effects(engine.model, items, tick)
        kept, unknown = keep_known(items, effects.known.tolist())
        skipped += unknown
        items = [items[place] for place in kept]
        try:
            layout = lay_out(items)
        except UserError as error:
            raise UserError(f"{error}; {describe_skipped(skipped)}") from None
        effects = Effects(effects.components, effects.values[kept], effects.margins[kept], effects.known[kept])
        if not options.estimate:
            effects = correct_effects(engine.model, items, effects, tick)
        found = measure_specificity(effects, layout, options.negligible, options.seed)
        texts = list_unrelated(engine.model, [fact.document for fact in engine.facts], items, facts)
        confirmed = confirm(engine.model, items, layout, effects.values, found, texts, options.confirm, effects, tick)
    rows = [asdict(one) | {"kind": find_kind(one.component)} | confirmed.get(one.component, {}) for one in found]
    counts = {
        kind: {
            label: sum((r["kind"], r["label"]) == (kind, label) for r in rows)
            for label in ("specific", "abstract", "undecided", "inert")
        }
        for kind in KINDS
    }
    document = {
        "method": "zero ablation, " + ("first order" if options.estimate else "exact; FFN units first order"),
        "metric": "log-odds of the answer",
        "unit": "nats",
        "facts": len(layout.facts),
        "relations": len(layout.relations),
        "items": len(items),
        "negligible": options.negligible,
        "seed": options.seed,
        "counts": counts,
        "components": rows,
        "skipped": [asdict(one) for one in skipped],
    }
    if options.table:
        about = {name: document[name] for name in ABOUT} | describe_source(engine, settings)
        save_table(Path(options.table), rows, about | {"command": build_command(options)})
    return Answer(document, render(document, options.show, tell_skipped(skipped)))


def list_unrelated(
    model: Model, documents: Sequence[str], items: Sequence[Item], facts: Sequence[Any]
) -> list[tuple[int, ...]]:
    """Token ids of documents that name no subject of the facts."""
    subjects, start = {fact.subject for fact in facts}, tuple(model.tokenizer("")["input_ids"])
    free = (text for text in dict.fromkeys(documents) if text and not any(name in text for name in subjects))
    found: list[tuple[int, ...]] = []
    for text in free:
        ids = (*start, *model.encode_plain(text))[: min(model.context, 64)]
        if len(ids) > 2:
            found.append(ids)
        if len(found) == UNRELATED:
            break
    return found


def confirm(
    model: Model,
    items: Sequence[Item],
    layout: Layout,
    values: np.ndarray,
    found: Sequence[Specificity],
    texts: Sequence[tuple[int, ...]],
    count: int,
    effects: Any,
    tick: Tick,
) -> dict[str, dict[str, float | None]]:
    """Exact drops without the strongest components of each kind, by group of facts.

    `drop_own` on its facts (half the largest effect or more), `drop_neighbours` on other facts of their relations,
    `drop_others` on the rest, in nats of log-odds; `drop_text` on unrelated text, in nats a token.
    """
    from circuits.component_effects import remove_component, remove_from_text
    from circuits.specificity import average_facts

    chosen: list[Specificity] = []
    for kind in KINDS:
        own = [one for one in found if find_kind(one.component) == kind and one.label != "inert"]
        chosen += own[:count]
    means = average_facts(values, layout)
    rows: dict[str, dict[str, float | None]] = {}
    for done, one in enumerate(chosen):
        tick("components removed", done, len(chosen))
        size = np.abs(means[:, effects.components.index(one.component)])
        own_facts = size >= size.max() / 2
        near = np.isin(layout.fact_relation, layout.fact_relation[own_facts]) & ~own_facts
        drops = average_facts(remove_component(model, items, one.component)[:, None], layout)[:, 0]
        groups = {"drop_own": own_facts, "drop_neighbours": near, "drop_others": ~own_facts & ~near}
        row: dict[str, float | None] = {n: float(drops[g].mean()) if g.any() else None for n, g in groups.items()}
        reading = next(
            (i for i in items if one.component in (*i.blocks, *(f"memory {m}" for m in i.memories))), items[0]
        )
        row["drop_text"] = measure_text(model, texts, one.component, reading, remove_from_text) if texts else None
        rows[one.component] = row
    return rows


def measure_text(model: Model, texts: Sequence[tuple[int, ...]], component: str, item: Item, remove: Any) -> float:
    """Mean drop on unrelated texts, read with the memories of an item that reads the component."""
    from circuits.component_effects import detach_component

    return float(remove(model, texts, component, item.attachment, detach_component(item, component)).mean())


def build_command(options: argparse.Namespace) -> str:
    """The command line of these options, defaults left out."""
    parser, words = argparse.ArgumentParser(add_help=False), [PROGRAM, "specificity"]
    declare_specificity(parser)
    for action in parser._actions:
        value = getattr(options, action.dest, action.default)
        if value == action.default:
            continue
        words.append(action.option_strings[-1])
        if action.nargs != 0:
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return shlex.join(words)


def save_table(path: Path, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """A Parquet table with a row for every component, written whole or not at all.

    `about` says of how many facts, how measured, on which model and by which command; it stands in the file's metadata
    as JSON, where a figure's caption finds it.
    """
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from workbench.storage import write_file

    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    table = table.replace_schema_metadata({PROGRAM: json.dumps(about, sort_keys=True)})
    pq.write_table(table, buffer, compression="zstd")
    write_file(path, buffer.getvalue())


def render(document: dict[str, Any], show: int, skipped: str) -> str:
    """A table for each kind that has components, the strongest first."""
    lines = [
        f"{document['facts']} facts of {document['relations']} relations in {document['items']} prompts; "
        f"{document['method']}, {document['metric']}, {document['unit']}{skipped}"
    ]
    headings = (
        "component",
        "effect",
        "largest",
        "on",
        "facts",
        "relations",
        "index",
        "class",
        "own",
        "near",
        "others",
        "text",
    )
    for kind in KINDS:
        own = [row for row in document["components"] if row["kind"] == kind]
        if not own:
            continue
        counts = ", ".join(f"{number} {label}" for label, number in document["counts"][kind].items())
        cells = [list_cells(row) for row in own[:show]]
        lines += ["", f"{kind}: {counts}", format_table(headings, cells) if cells else ""]
    return "\n".join(lines)


def list_cells(row: dict[str, Any]) -> list[object]:
    """Cells of one component."""
    index = None if row["low"] is None else f"{row['index']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    label = row["label"] if row["label"] != "abstract" else f"abstract ({row['level']})"
    drops = [row.get(name) for name in ("drop_own", "drop_neighbours", "drop_others", "drop_text")]
    return [
        row["component"], row["effect"], row["largest"], row["strongest"], row["participation"], row["relations"],
        index, label, *drops,
    ]  # fmt: skip


SPECIFICITY = Command(
    "specificity",
    "To which facts each head, FFN unit, bank block and memory matters: one, a relation, or everything.",
    "memory-circuits specificity --limit 4 --wordings 2 --table components.parquet",
    declare_specificity,
    measure,
)
