"""From laid questions to ledgers at rest: formats named, the strongest parts with their tokens, the rest summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from circuits.circuit import UNITS
from circuits.graph import Kind, parse_component
from workbench.engine import Engine
from workbench.ledgers.prompts import Laid, build_asked
from workbench.ledgers.table import Entry, Interaction, Ledger, Part

if TYPE_CHECKING:
    from circuits.anchors import Anchor
    from circuits.coalitions import Format
    from circuits.ledgers import Division, Ledgers
    from circuits.parts import Removal

# Tokens and heads listed in the sums of one memory.
SUMS_SHOWN = 10

# Token of a part, by its component's name.
Reader = Callable[[str], str]


def measure_batch(
    engine: Engine,
    batch: Sequence[Laid],
    removal: Removal,
    metric: str,
    top: int,
    threshold: float,
    describe: bool = True,
) -> tuple[Ledger, ...]:
    """Ledgers of a batch of one condition, at most `top` parts of each format whose share is `threshold` or more.

    `describe` also sums parts by token and by head. Raises UserError for what cannot be measured.
    """
    from circuits.ledgers import measure_ledgers
    from circuits.limits import explain_memory
    from circuits.shapley import measure_interactions

    with explain_memory("running the combinations of formats"):
        found = measure_ledgers(engine.model, build_asked(engine, batch), removal, metric)
    pairs = measure_interactions(found.values)
    return tuple(
        read_ledger(engine, laid, found, row, pairs[..., row], top, threshold, describe)
        for row, laid in enumerate(batch)
    )


def read_ledger(
    engine: Engine,
    laid: Laid,
    found: Ledgers,
    row: int,
    pairs: Float[np.ndarray, "format format"],
    top: int,
    threshold: float,
    describe: bool,
) -> Ledger:
    """Ledger of one row of a batch, given the interactions of its formats."""
    from circuits.coalitions import name_format
    from circuits.shapley import list_coalitions

    names = [name_format(form) for form in found.formats]
    values, bare = found.values[:, row], float(found.anchor.value[row])
    # What stays of removed memories is their attention; where they leave the softmax the two runs are the same.
    held = float(values[0]) - bare if found.removal == "contribution" and "memory 1" in names else 0.0
    listed = list_anchor(found.anchor, row, top, threshold)
    share = float(values[0]) - held
    entries = [
        make_entry("anchor", "anchor", "nothing attached", (share, share, share), listed, found.anchor.direct[row])
    ]
    on = list_coalitions(len(names))
    for index, (form, division) in enumerate(zip(found.formats, found.divisions, strict=True)):
        reader = read_tokens(engine, laid, form)
        parts = list_parts(division.components, division.values[row], reader, top, threshold)
        numbers = float(found.shares[index, row]), *find_ends(values, index)
        sums = sum_parts(form, division, row, reader, engine.model.layers) if describe else ((), ())
        label = label_format(laid, form)
        entries.append(make_entry(names[index], form.kind, label, numbers, parts, division.values[row], *sums))
    return Ledger(
        fact=laid.id,
        prompt=laid.prompt,
        answer=laid.answer,
        foil=laid.foil,
        metric=found.metric,
        unit=UNITS[found.metric],
        removal=found.removal,
        margin=float(values[-1]),
        held=held,
        entries=tuple(entries),
        interactions=tuple(
            Interaction(names[first], names[second], float(pairs[first, second]))
            for second in range(len(names))
            for first in range(second)
        ),
        combinations=tuple(
            (tuple(name for name, there in zip(names, some, strict=True) if there), float(value))
            for some, value in zip(on, values, strict=True)
        ),
        known=bool(found.known[row]),
        said="" if found.known[row] else engine.model.decode(int(found.best[row])),
    )


def find_ends(values: np.ndarray, index: int) -> tuple[float, float]:
    """What a format brings alone, and last."""
    bit, everything = 1 << index, len(values) - 1
    return float(values[bit] - values[0]), float(values[everything] - values[everything & ~bit])


def rank_parts(values: np.ndarray, top: int, threshold: float) -> Int[np.ndarray, " place"]:
    """Places of the strongest parts, at most `top`, none whose share is below the threshold in size, or 0.

    Equals come in their own order.
    """
    sizes = np.abs(values)
    places = np.arange(len(sizes))
    if 0 < top < len(sizes):
        # What is smaller than the last that is kept need not be sorted.
        places = np.flatnonzero(sizes >= np.partition(sizes, len(sizes) - top)[len(sizes) - top])
    order = places[np.argsort(-sizes[places], kind="stable")][:top]
    kept: Int[np.ndarray, " place"] = order[(sizes[order] >= threshold) & (sizes[order] > 0)]
    return kept


def list_parts(
    components: Sequence[str], values: np.ndarray, reader: Reader, top: int, threshold: float
) -> tuple[Part, ...]:
    """The strongest parts (`rank_parts`) with their tokens."""
    kept = rank_parts(values, top, threshold)
    return tuple(
        Part(components[place], value, reader(components[place]))
        for place, value in zip(kept.tolist(), values[kept].tolist(), strict=True)
    )


def list_anchor(anchor: Anchor, row: int, top: int, threshold: float) -> tuple[Part, ...]:
    """The strongest parts of the model by itself, each with its effect when it counts as zero."""
    direct, effect = anchor.direct[row], anchor.effect[row]
    kept = rank_parts(direct, top, threshold)
    numbers = zip(kept.tolist(), direct[kept].tolist(), effect[kept].tolist(), strict=True)
    return tuple(Part(anchor.components[place], share, "", whole) for place, share, whole in numbers)


def make_entry(
    name: str,
    kind: str,
    label: str,
    numbers: tuple[float, float, float],
    parts: tuple[Part, ...],
    values: np.ndarray,
    tokens: tuple[tuple[str, float], ...] = (),
    heads: tuple[tuple[str, float], ...] = (),
) -> Entry:
    """Entry of a format, whose parts listed, other parts and residual add up to its share."""
    share, alone, last = numbers
    shown = float(sum(part.share for part in parts))
    rest = float(values.sum()) - shown
    return Entry(
        name,
        kind,
        label,
        share,
        alone,
        last,
        parts,
        len(values) - len(parts),
        rest,
        share - shown - rest,
        tokens,
        heads,
    )


def label_format(laid: Laid, form: Format) -> str:
    """Which memory, cluster or text a format is."""
    if form.kind == "bank":
        return f"cluster {laid.path[form.index]}"
    if form.kind == "text":
        return "text before the prompt"
    if laid.explicit is not None:
        return laid.explicit.ids[form.index]
    return laid.found[form.index].id if form.index < len(laid.found) else "prefix"


def read_tokens(engine: Engine, laid: Laid, form: Format) -> Reader:
    """What gives the token of a part: kept tokens of slots, tokens of text positions, nothing for units."""
    from workbench.provenance import describe_block

    layers = engine.model.layers
    if form.kind == "text":
        decode = lru_cache(maxsize=None)(engine.model.decode)
        return lambda name: decode(laid.behind[parse_component(name, layers).part])
    source, block = laid.explicit or engine.memories, laid.written
    if laid.explicit is None and form.kind == "explicit" and form.index < len(laid.found):
        block = describe_block(engine, laid.found[form.index])
    if form.kind != "explicit" or block is None or source is None:
        return lambda _: ""
    tokens, places = block["tokens"], block["kept"]
    group, memory_layers = engine.model.heads // engine.model.kv_heads, source.layers

    def read(name: str) -> str:
        part = parse_component(name, layers)
        if part.layer not in memory_layers:
            return ""
        kept = places[memory_layers.index(part.layer)][part.head // group][part.part]
        return str(tokens[kept]) if 0 <= kept < len(tokens) else ""

    return read


def sum_parts(
    form: Format, division: Division, row: int, reader: Reader, layers: int
) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """Sums over parts by token and by head, strongest first; of a bank level, whose units have neither, nothing."""
    if form.kind == "bank":
        return (), ()
    tokens, heads = dict[str, float](), dict[str, float]()
    for name, value in zip(division.components, division.values[row].tolist(), strict=True):
        if not value:
            continue
        part, word = parse_component(name, layers), reader(name)
        whole = part.whole.name if part.kind is Kind.HEAD else f"a{part.layer}.h{part.head}"
        heads[whole] = heads.get(whole, 0.0) + value
        if word:
            tokens[word] = tokens.get(word, 0.0) + value

    def rank(sums: dict[str, float]) -> tuple[tuple[str, float], ...]:
        return tuple(sorted(sums.items(), key=lambda item: (-abs(item[1]), item[0]))[:SUMS_SHOWN])

    return rank(tokens), rank(heads)


def describe_source(engine: Engine, settings: Any) -> dict[str, Any]:
    """JSON object of what ledgers were measured on: model, memories' hashes, settings, versions."""
    from workbench.provenance import list_versions

    return {
        "model": engine.model.describe(),
        "bank": None if engine.bank is None else engine.bank.sha256,
        "memory": None if engine.memories is None else engine.memories.sha256,
        "settings": settings.to_json(),
        "versions": list_versions(),
    }
