"""Whether bank blocks are more specific than the model's own heads: their specificity indices, with an effect size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from workbench.findings.record import UNMEASURED, Finding, Method, Row, format_number, judge, make_row
from workbench.findings.study import Components, Study

if TYPE_CHECKING:
    from circuits.effect_sizes import Contrast

HOW = Method(
    "variance decomposition of effects", "zero ablation, exact; FFN units first order", "log-odds of the answer"
)
EXPECTED = (
    "the specificity index of bank blocks lies above that of the anchor's heads: the interval of Cliff's delta of all "
    "blocks against all heads lies above 0"
)
INSIDE = (
    "a block also tells the facts of its own leaf apart, more than the heads do: over those facts alone, the interval "
    "of its index less the heads' mean lies above 0"
)
RESAMPLES = 500
# Facts of a leaf that the model answers, without which its block is not compared within the leaf.
LEAST = 4


def compare_indexes(study: Study) -> Finding:
    """Classes and mean index of every kind, and effect sizes of the blocks' indices against the heads'."""
    found = study.components
    kinds = {"heads": found.pick("a"), "FFN units": found.pick("m")}
    levels = sorted({name.split(":")[0] for name in found.effects.components if name.startswith("bank ")})
    kinds |= {level.replace("bank", "bank level"): found.pick(f"{level}:") for level in levels}
    rows = [*count_classes(found), *average_indexes(study, kinds)]
    blocks = [at for name in kinds if name.startswith("bank") for at in kinds[name]]
    if not blocks or not kinds["heads"]:
        note = "No bank block, or no head, has an effect that is not negligible: there is nothing to compare."
        return Finding(
            "index", "Specificity index of bank blocks against heads", EXPECTED, HOW, UNMEASURED, (), (note,)
        )
    whole = contrast_places(study, blocks, kinds["heads"])
    deltas = {"all bank blocks": whole}
    deltas |= {
        name: contrast_places(study, own, kinds["heads"]) for name, own in kinds.items() if own and name != "heads"
    }
    rows += [
        Row(f"Cliff's delta, {name} against heads", d.delta, d.first, "components", "from -1 to 1", d.low, d.high)
        for name, d in deltas.items()
    ]
    rows += [
        Row(f"Hedges' g, {name} against heads", d.g, d.first, "components", "standard deviations")
        for name, d in deltas.items()
    ]
    verdict = judge(whole.low is not None and whole.low > 0)
    return Finding(
        "index",
        "Specificity index of bank blocks against heads",
        EXPECTED,
        HOW,
        verdict,
        tuple(rows),
        tuple(describe(study, whole)),
    )


def compare_inside(study: Study) -> Finding:
    """The index of every leaf's block against the heads', over the facts of the leaf alone: routing plays no part."""
    from circuits.intervals import estimate_mean

    title = "Within a leaf: is its block about single facts?"
    inside = list(compare_leaves(study.components))
    if not inside:
        note = f"No leaf has {LEAST} facts that the model answers and a block with an effect."
        return Finding("index-within", title, INSIDE, HOW, UNMEASURED, (), (note,))
    names = ("index of a leaf's block", "mean index of the heads on its facts", "difference")
    columns = np.array([(block, heads, block - heads) for block, heads in inside]).T
    rows = [
        make_row(name, estimate_mean(column, study.seed), "leaves", "share")
        for name, column in zip(names, columns, strict=True)
    ]
    low, high = rows[-1].low, rows[-1].high
    assert low is not None and high is not None
    side = "more specific than" if low > 0 else "less specific than" if high < 0 else "no more specific than"
    note = (
        f"In {len(inside)} leaves of {LEAST} known facts or more, a block is {side} the heads: what it adds to its "
        "facts in common counts as theirs together, not as each one's."
    )
    return Finding("index-within", title, INSIDE, HOW, judge(low > 0), tuple(rows), (note,))


def count_classes(found: Components) -> Iterator[Row]:
    """How many components of each kind are specific, abstract, undecided and inert."""
    from circuits.component_names import KINDS, find_kind

    for kind in KINDS:
        own = [one for one in found.found if find_kind(one.component) == kind]
        for label in ("specific", "abstract", "undecided", "inert"):
            if own:
                yield Row(
                    f"{kind} that are {label}", sum(one.label == label for one in own), len(own), kind, "components"
                )


def average_indexes(study: Study, kinds: dict[str, list[int]]) -> Iterator[Row]:
    """Mean index of the components of each kind that are not inert, its interval over resampled facts."""
    from circuits.specificity import draw_indices

    found = study.components
    index = {one.component: one.index for one in found.found}
    for name, places in kinds.items():
        if not places:
            continue
        own = [value for at in places if (value := index[found.effects.components[at]]) is not None]
        draws = draw_indices(found.effects.values[:, places], found.layout, study.seed, RESAMPLES)
        means = np.nanmean(draws[~np.isnan(draws).all(axis=1)], axis=1)
        value, reach = float(np.mean(own)), 1.96 * float(means.std()) if means.size else 1.0
        low, high = max(0.0, value - reach), min(1.0, value + reach)
        yield Row(f"mean index, {name}", value, len(own), "components", "share", low, high)


def contrast_places(study: Study, first: list[int], second: list[int]) -> Contrast:
    """Effect sizes of the indices of some components against others, in the same resamples of the facts."""
    from circuits.effect_sizes import contrast
    from circuits.specificity import draw_indices

    found = study.components
    index = {one.component: np.nan if one.index is None else one.index for one in found.found}
    numbers = [np.array([index[found.effects.components[at]] for at in places]) for places in (first, second)]
    draws = draw_indices(found.effects.values[:, [*first, *second]], found.layout, study.seed, RESAMPLES)
    return contrast(numbers[0], numbers[1], draws[:, : len(first)], draws[:, len(first) :])


def compare_leaves(found: Components) -> Iterator[tuple[float, float]]:
    """For every leaf, over its own facts alone: the index of its deepest block, and the mean index of the heads."""
    from circuits.specificity import divide, lay_out, summarise

    heads = found.pick("a")
    for leaf in dict.fromkeys(item.blocks[-1] for item in found.items if item.blocks):
        rows = [row for row, item in enumerate(found.items) if item.blocks and item.blocks[-1] == leaf]
        own = [found.items[row] for row in rows]
        block = found.effects.components.index(leaf) if leaf in found.effects.components else -1
        if block < 0 or len({item.fact for item in own}) < LEAST:
            continue
        layout = lay_out(own)
        parts = summarise(found.effects.values[np.ix_(rows, [block, *heads])], layout)
        index = divide(*parts, layout, np.ones(len(layout.facts))).index
        if not np.isnan(index[0]) and not np.isnan(index[1:]).all():
            yield float(index[0]), float(np.nanmean(index[1:]))


def describe(study: Study, whole: Contrast) -> Iterator[str]:
    """Sentences on what was compared."""
    found = study.components
    leaves = len({item.path for item in found.items if item.path})
    yield (
        f"{len(found.layout.facts)} facts that the model answers, of {len(found.layout.relations)} relations and "
        f"{leaves} leaves, in {len(found.items)} prompts; {len(found.skipped)} drawn facts are left out (their answer "
        "is not the model's in any wording, or they cannot be asked)."
    )
    yield (
        f"Over all facts the effect is {whole.word} (delta {format_number(whole.delta)}), of {whole.first} blocks "
        f"against {whole.second} heads that are not inert. Part of it is routing: a block has no effect on facts that "
        "do not read it."
    )
