"""Circuits as classes of subgraphs across texts: how often each occurs, and whether it is specific or abstract.

Source: Yang et al. 2024 (Memory^3), section 2.2, definitions 3 to 5. From each text the edges that are not negligible
are kept, cut into pieces, and pieces of all texts that are homomorphic each way are one circuit. Its rate is the share
of texts whose kept edges hold a member. It is *specific* when its outputs are "the same or differ by at most a small
fraction", else *abstract*. The paper gives neither number; ours:

- negligible: below `THRESHOLD` of the text's strongest edge, by exact ablation, or below `FLOOR` in any text (where a
  model does not know an answer, its strongest edges are noise; nats, or nats a unit for gradients);
- small fraction: members whose output differs from the most frequent one are at most `FRACTION` of all;
- undecided where fewer than `LEAST` texts have a member, or where all texts of the sample have one and the same
  target, so that outputs could not have differed.

That the inputs "share interpretable meaning" is for a person to judge; the tokens are listed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.homomorphism import Subgraph, classify_subgraphs, find_member, join_edges, list_pairs
from circuits.intervals import Estimate, estimate_mean
from circuits.text_graph import (
    Text,
    TextEdge,
    TracedText,
    Weight,
    ablate_edges,
    find_large,
    measure_inputs,
    trace_text,
    weigh_edges,
)
from probes.attachments import NOTHING, Attachment
from probes.models import Model
from probes.progress import Tick, quiet

THRESHOLD, FLOOR, FRACTION, LEAST = 0.1, 0.05, 0.2, 3
# Edges of a text that are ablated, the strongest by activation-gradient: many, since where a softmax is saturated that
# is near 0 for edges without which all is lost.
CANDIDATES = 256

Verdict = Literal["specific", "abstract", "undecided"]

# How the kept edges of a text are cut into subgraphs.
PIECES: dict[str, Callable[[Sequence[TextEdge]], list[Subgraph]]] = {
    "edges": lambda edges: [frozenset([edge]) for edge in edges],
    "pairs": list_pairs,
    "joined": join_edges,
    "whole": lambda edges: [frozenset(edges)] if edges else [],
}


@dataclass(frozen=True, slots=True)
class KeptEdges:
    """Edges of a text that are not negligible, each with its weight (nats), and places in the text of the tokens that
    it depends on (t_in) and whose likelihood it carries (t_out).
    """

    edges: tuple[TextEdge, ...]
    weights: tuple[float, ...]
    inputs: tuple[frozenset[int], ...]
    outputs: tuple[frozenset[int], ...]

    def join(self, places: Sequence[frozenset[int]], subgraph: Subgraph) -> tuple[int, ...]:
        """Places of all edges of a subgraph together, in order."""
        own = [place for place, edge in zip(places, self.edges, strict=True) if edge in subgraph]
        return tuple(sorted(frozenset().union(*own)))


@dataclass(frozen=True, slots=True)
class CircuitClass:
    """One class. `members` are (text, subgraph), the first of which stands for it; `inputs` and `outputs` are token ids
    of a member each. `variability` is the share of members whose output is not the most frequent one.
    """

    members: tuple[tuple[int, Subgraph], ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    rate: Estimate
    weight: float
    variability: float
    verdict: Verdict


def keep_edges(
    traced: TracedText,
    weight: Weight = "ablation",
    threshold: float = THRESHOLD,
    candidates: int = CANDIDATES,
    tick: Tick = quiet,
) -> KeptEdges:
    """Edges of a text whose weight reaches `threshold` of the largest, and `FLOOR`.

    For ablation only the `candidates` strongest by activation-gradient are run. t_out is by ablation, or for the other
    weights by that too: one run for each edge that is kept.
    """
    chosen = weigh_edges(traced, "activation-gradient" if weight == "ablation" else weight)
    ranked = chosen.rank(candidates, 0.0 if weight == "ablation" else threshold)
    drops = ablate_edges(traced, ranked, tick)
    sizes = drops.sum(axis=1).tolist() if weight == "ablation" else [chosen.find(edge) for edge in ranked]
    largest = max(map(abs, sizes), default=0.0)
    kept = [place for place, size in enumerate(sizes) if abs(size) >= max(threshold * largest, FLOOR)]
    edges = tuple(ranked[place] for place in kept)
    targets = traced.text.targets
    outputs = [frozenset(targets[place] for place in places) for places in find_large(abs(drops[kept]))]
    inputs = find_large(measure_inputs(traced, edges))
    return KeptEdges(edges, tuple(sizes[place] for place in kept), tuple(inputs), tuple(outputs))


def judge(outputs: Sequence[tuple[int, ...]], texts: int, targets: int, fraction: float) -> tuple[float, Verdict]:
    """Variability of a class's outputs, and the verdict; `targets` is how many different ones the sample has."""
    variability = 1 - Counter(outputs).most_common(1)[0][1] / len(outputs)
    if texts < LEAST or targets < 2:
        return variability, "undecided"
    return variability, "specific" if variability <= fraction else "abstract"


def find_circuits(
    model: Model,
    texts: Sequence[Text],
    attachments: Sequence[Attachment] = (),
    pieces: str = "pairs",
    weight: Weight = "ablation",
    threshold: float = THRESHOLD,
    fraction: float = FRACTION,
    candidates: int = CANDIDATES,
    seed: int = 0,
    tick: Tick = quiet,
) -> tuple[list[CircuitClass], list[KeptEdges]]:
    """Circuits of these texts, those of the most texts first, and the kept edges of each text.

    `attachments` holds one for each text, or none. A circuit's weight is the mean over members of the smallest
    absolute weight of their edges. The rate's interval is a bootstrap over texts.
    """
    kept = []
    for place, text in enumerate(texts):
        tick("texts", place, len(texts))
        traced = trace_text(model, text, attachments[place] if attachments else NOTHING)
        kept.append(keep_edges(traced, weight, threshold, candidates))
    members = [(place, piece) for place, own in enumerate(kept) for piece in PIECES[pieces](own.edges)]
    grouped: dict[int, list[tuple[int, Subgraph]]] = defaultdict(list)
    for number, member in zip(classify_subgraphs([piece for _, piece in members]), members, strict=True):
        grouped[number].append(member)
    targets = {tuple(text.ids[place] for place in text.targets) for text in texts}
    found = [describe(own, texts, kept, len(targets), fraction, seed) for own in grouped.values()]
    return sorted(found, key=lambda circuit: (-circuit.rate.value, -circuit.weight)), kept


def describe(
    members: Sequence[tuple[int, Subgraph]],
    texts: Sequence[Text],
    kept: Sequence[KeptEdges],
    targets: int,
    fraction: float,
    seed: int,
) -> CircuitClass:
    """One class with its rate, inputs, outputs and verdict."""
    representative = members[0][1]
    hits = [float(find_member(representative, frozenset(own.edges)) is not None) for own in kept]

    def spell(name: Literal["inputs", "outputs"]) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(texts[place].ids[at] for at in kept[place].join(getattr(kept[place], name), piece))
            for place, piece in members
        )

    weights = [
        min(abs(w) for e, w in zip(kept[place].edges, kept[place].weights, strict=True) if e in piece)
        for place, piece in members
    ]
    outputs = spell("outputs")
    return CircuitClass(
        tuple(members),
        spell("inputs"),
        outputs,
        estimate_mean(hits, seed),
        sum(weights) / len(weights),
        *judge(outputs, int(sum(hits)), targets, fraction),
    )
