"""`units`: knowledge neurons of facts, and how much each layer's FFN changes the prediction."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.desk import TERMINAL, Desk
from workbench.commands.fact_sets import declare_facts, gather_known, read_settings, tell_skipped
from workbench.commands.terminal import format_table


def declare_units(parser: argparse.ArgumentParser) -> None:
    """The facts, and the method's numbers."""
    declare_facts(parser, limit=4, wordings=4)
    parser.add_argument("--steps", metavar="N", type=int, default=20, help="points of the path (default: %(default)s)")
    parser.add_argument(
        "--adaptive",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="a wording's neurons reach this share of its largest attribution (default: %(default)s)",
    )
    parser.add_argument(
        "--shared",
        metavar="SHARE",
        type=float,
        default=0.7,
        help="a fact's neurons are those of this share of its wordings (default: %(default)s)",
    )
    parser.add_argument("--show", metavar="N", type=int, default=20, help="units to print (default: %(default)s)")


def find_units(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Knowledge neurons of every fact, and PKS of every layer."""
    for name in ("adaptive", "shared"):
        if not 0 < getattr(options, name) <= 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give a share above 0, at most 1")
    if not 1 <= options.steps <= 1000:
        raise UserError(f"--steps is {options.steps}: give 1 to 1000")
    settings = read_settings(options)
    import numpy as np

    from circuits.head_sources import measure_parameter_scores
    from circuits.intervals import estimate_mean
    from circuits.knowledge_neurons import attribute_units, find_neurons

    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        items, skipped = gather_known(engine, options, settings, tick)
        scores: dict[str, list[Any]] = {}
        for done, item in enumerate(items):
            tick("knowledge neurons", done, len(items))
            scores.setdefault(item.fact, []).append(attribute_units(engine.model, item, options.steps))
        parametric = measure_parameter_scores(engine.model, items, tick)
    rows: list[dict[str, Any]] = []
    shares = Counter[str]()
    for fact, own in scores.items():
        mean = np.mean(own, axis=0)
        for layer, unit in np.argwhere(find_neurons(own, options.adaptive, options.shared)).tolist():
            shares[f"m{layer}.u{unit}"] += 1
            rows.append({"fact": fact, "unit": f"m{layer}.u{unit}", "score": float(mean[layer, unit])})
    for row in rows:
        row["facts"] = shares[row["unit"]]
    rows.sort(key=lambda row: (-row["score"], row["fact"], row["unit"]))
    layers = [
        {"layer": layer, **asdict(estimate_mean(parametric[:, layer], options.seed))}
        for layer in range(parametric.shape[1])
    ]
    document = {
        "method": "integrated gradients of the first answer token's probability over a layer's units at the last token",
        "unit": "probability",
        "facts": len(scores),
        "items": len(items),
        "steps": options.steps,
        "adaptive": options.adaptive,
        "shared": options.shared,
        "neurons": rows,
        "parametric_knowledge": {"unit": "nats", "layers": layers},
        "skipped": [asdict(one) for one in skipped],
    }
    neurons = format_table(
        ("unit", "score", "of facts", "fact"),
        [(row["unit"], row["score"], row["facts"], row["fact"]) for row in rows[: options.show]],
    )
    table = format_table(
        ("layer", "PKS (nats)", "low", "high"), [(str(r["layer"]), r["value"], r["low"], r["high"]) for r in layers]
    )
    title = f"{len(rows)} knowledge neurons of {len(scores)} facts, score in probability{tell_skipped(skipped)}"
    return Answer(
        document, f"{title}\n{neurons}\n\nhow much each FFN changes the prediction at the last token\n{table}"
    )


UNITS = Command(
    "units",
    "Knowledge neurons of facts by integrated gradients, and how much each layer's FFN changes the prediction (PKS).",
    "memory-circuits units --relation capital --limit 4",
    declare_units,
    find_units,
)
