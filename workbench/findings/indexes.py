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
RESAMPLES = 500
# Facts of a leaf that the model answers, without which its block is not compared within the leaf.
LEAST = 4


def compare_indexes(study: Study) -> Finding:
    """Mean index of every kind, Cliff's delta of blocks against heads, and the same comparison within single leaves."""
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
    inside = list(compare_leaves(found))
    if inside:
        from circuits.intervals import estimate_mean

        rows.append(
            make_row(
                "index of a leaf's block less the heads' mean, within its leaf",
                estimate_mean(inside, study.seed),
                "leaves",
                "share",
            )
        )
    verdict = judge(whole.low is not None and whole.low > 0)
    return Finding(
        "index",
        "Specificity index of bank blocks against heads",
        EXPECTED,
        HOW,
        verdict,
        tuple(rows),
        tuple(describe(study, whole, inside)),
    )


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
        low, high = np.percentile(means, (2.5, 97.5)) if means.size else (np.nan, np.nan)
        yield Row(f"mean index, {name}", float(np.mean(own)), len(own), "components", "share", float(low), float(high))


def contrast_places(study: Study, first: list[int], second: list[int]) -> Contrast:
    """Effect sizes of the indices of some components against others, in the same resamples of the facts."""
    from circuits.effect_sizes import contrast
    from circuits.specificity import draw_indices

    found = study.components
    index = {one.component: np.nan if one.index is None else one.index for one in found.found}
    numbers = [np.array([index[found.effects.components[at]] for at in places]) for places in (first, second)]
    draws = draw_indices(found.effects.values[:, [*first, *second]], found.layout, study.seed, RESAMPLES)
    return contrast(numbers[0], numbers[1], draws[:, : len(first)], draws[:, len(first) :])


def compare_leaves(found: Components) -> Iterator[float]:
    """For every leaf, over its own facts alone: the index of its deepest block less the mean index of the heads.

    There routing plays no part: the block is read by each of these facts.
    """
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
            yield float(index[0] - np.nanmean(index[1:]))


def describe(study: Study, whole: Contrast, inside: list[float]) -> Iterator[str]:
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
    if inside:
        side = "above" if np.mean(inside) > 0 else "not above"
        yield (
            f"Within a leaf, where every fact reads the block, its index is {side} that of the heads: "
            f"{format_number(float(np.mean(inside)))} on the mean of {len(inside)} leaves."
        )
