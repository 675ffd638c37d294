"""The table of attribution methods: what each computes, whether it is exact, what it needs and what it costs.

No torch here, so that commands and pages can list it; the functions stand in `circuits/scoring.py` under the same
names. Costs count passes over all prompts at once, beyond the two of the problem itself (clean and ablated run).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from circuits.graph import Wiring


@dataclass(frozen=True, slots=True)
class Options:
    """What a method may need beside the problem; each method's `needs` names those it reads.

    `steps` are the points of a path of integrated gradients; `threshold` the change of the metric, in its unit, below
    which pruning lets an edge go; `edges` how many edges training shall keep, `updates` its length and `seed` what
    decides its draws.
    """

    steps: int = 5
    threshold: float = 0.01
    edges: int = 200
    updates: int = 200
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    """What decides a method's cost: `stages` of writers that cannot see each other, `nodes` and `edges` of the whole
    graph (all positions), and `ends`, the positions at which the logits are read.
    """

    stages: int
    nodes: int
    edges: int
    writers: int
    ends: int


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward and backward passes of the model over all prompts, beyond the clean and the ablated run."""

    forward: int
    backward: int


@dataclass(frozen=True, slots=True)
class Method:
    """One attribution method.

    `level` says what is measured: every edge, or every node. A node method gives an edge the score of its weaker end
    (`circuits/effects.py`), so that the strongest edges are those between the strongest nodes. `exact` methods measure
    the metric again with something ablated, others estimate. `needs` are the fields of Options it reads; `cost` is its
    formula in words and `count` the same as a function, an upper bound where `bounded`. `unit` is empty where scores
    are in the metric's unit. `at_clean`: it takes one gradient at the clean run, which is 0 for the metric KL;
    `reuses_run`: that run may be the problem's own (`differentiable`). Scores of an `additive` method over several
    pairs are the mean of its scores over each; others decide on all pairs at once.
    """

    name: str
    label: str
    explanation: str
    source: str
    level: Literal["edges", "nodes"]
    exact: bool
    cost: str
    count: Callable[[Size, Options], Passes]
    needs: tuple[str, ...] = ()
    unit: str = ""
    at_clean: bool = False
    reuses_run: bool = False
    bounded: bool = False
    additive: bool = True


def measure_size(wiring: Wiring, positions: int, ends: int) -> Size:
    """Size of a graph at `positions` positions, read at `ends` of them."""
    return Size(
        stages=len(list_stages(wiring)),
        nodes=len(wiring.writers) * positions,
        edges=wiring.edges * positions,
        writers=len(wiring.writers),
        ends=ends,
    )


def list_stages(wiring: Wiring) -> list[range]:
    """Writers in groups that write one after the other but cannot see each other, in order.

    A stage is the embedding, the heads and memory reads of a layer, or its MLP and bank blocks; in a parallel model
    a whole layer.
    """
    starts = [0]
    for index in range(1, len(wiring.writers)):
        if (wiring.visible[index] != wiring.visible[starts[-1]]).any():
            starts.append(index)
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(wiring.writers)], strict=True)]


_RECORDS = (
    Method(
        name="eap",
        label="EAP",
        explanation="Edge attribution patching: first-order estimate at the clean run, all edges from one backward "
        "pass.",
        source="Syed et al. 2023",
        level="edges",
        exact=False,
        cost="1 backward (the clean run is the problem's own)",
        count=lambda size, options: Passes(0, 1),
        at_clean=True,
        reuses_run=True,
    ),
    Method(
        name="eap-ig",
        label="EAP-IG (inputs)",
        explanation="Edge attribution patching with the gradient averaged along the straight path of inputs from "
        "ablated to clean.",
        source="Hanna et al. 2024, section 3",
        level="edges",
        exact=False,
        cost="steps x (forward + backward)",
        count=lambda size, options: Passes(options.steps, options.steps),
        needs=("steps",),
    ),
    Method(
        name="eap-ig-activations",
        label="EAP-IG (activations)",
        explanation="Edge attribution patching with the gradient averaged while what the writer's stage (the heads of "
        "a layer, or its MLP) writes goes from ablated to clean; a stage's scores add up to its exact effect.",
        source="Hanna et al. 2024; Mueller et al. 2025 (MIB)",
        level="edges",
        exact=False,
        cost="stages x steps x (forward + backward); a model of n layers has 1 + 2n stages",
        count=lambda size, options: Passes(size.stages * options.steps, size.stages * options.steps),
        needs=("steps",),
    ),
    Method(
        name="atp",
        label="AtP (nodes)",
        explanation="Attribution patching of nodes: gradient at each node's output times what the node would lose; "
        "equals the sum of the node's outgoing EAP edges. Edges take the score of their weaker end.",
        source="Nanda 2023; Kramár et al. 2024, section 2",
        level="nodes",
        exact=False,
        cost="1 backward (the clean run is the problem's own)",
        count=lambda size, options: Passes(0, 1),
        at_clean=True,
        reuses_run=True,
    ),
    Method(
        name="relp",
        label="RelP (relevance)",
        explanation="As EAP with relevance in place of gradients: norm scales and attention patterns are constants, "
        "activations f(x) count as x times f(x) / x, products give half to either factor. Edges into queries and keys "
        "score 0.",
        source="Jafari et al. 2025; Achtibat et al. 2024",
        level="edges",
        exact=False,
        cost="forward + backward",
        count=lambda size, options: Passes(1, 1),
        at_clean=True,
    ),
    Method(
        name="attnlrp",
        label="AttnLRP (relevance)",
        explanation="As RelP, but relevance also flows through attention patterns: the products of queries with keys "
        "and of patterns with values give half to either factor, the softmax its gradient.",
        source="Achtibat et al. 2024, section 3",
        level="edges",
        exact=False,
        cost="forward + backward",
        count=lambda size, options: Passes(1, 1),
        at_clean=True,
    ),
    Method(
        name="acdc",
        label="ACDC (pruning)",
        explanation="From the logits back, every edge is ablated on top of those already gone and stays so if the "
        "metric moves by less than the threshold. A kept edge scores the drop when it was tried, others 0.",
        source="Conmy et al. 2023, algorithm 1",
        level="edges",
        exact=True,
        cost="1 backward + at most 2 x edges forward, edges masked (edges of cut-off readers take none)",
        count=lambda size, options: Passes(2 * size.edges, 1),
        needs=("threshold",),
        bounded=True,
        additive=False,
    ),
    Method(
        name="edge-masks",
        label="Edge masks (trained)",
        explanation="A gate on every edge, trained to keep the metric while all but the wanted number close; the "
        "score is the probability that the edge is kept, without sign.",
        source="Bhaskar et al. 2024; Louizos et al. 2018",
        level="edges",
        exact=False,
        cost="updates x (forward + backward), edges masked",
        count=lambda size, options: Passes(options.updates, options.updates),
        needs=("edges", "updates", "seed"),
        unit="probability",
        additive=False,
    ),
    Method(
        name="exact",
        label="Exact patching",
        explanation="Every edge ablated alone (its direct effect) and every node ablated with all its edges (its "
        "total effect), the metric measured again each time; no estimate, slow.",
        source="Wang et al. 2023, path patching; Conmy et al. 2023",
        level="edges",
        exact=True,
        cost="edges + nodes forward, each from the layer where it acts on",
        count=lambda size, options: Passes(size.edges + size.nodes, 0),
    ),
    Method(
        name="exact-nodes",
        label="Exact patching (nodes)",
        explanation="Total effect of every node: its whole output ablated and the metric measured again. Edges take "
        "the score of their weaker end.",
        source="Vig et al. 2020; Meng et al. 2022",
        level="nodes",
        exact=True,
        cost="nodes forward, each from the layer where it acts on",
        count=lambda size, options: Passes(size.nodes, 0),
    ),
    Method(
        name="direct",
        label="Direct effect on the logits",
        explanation="Exact effect of every node on the logits alone: only its edge into the logits is ablated, no "
        "later component notices. Edges take the score of their weaker end.",
        source="McGrath et al. 2023; Wang et al. 2023",
        level="nodes",
        exact=True,
        cost="writers x positions at which the logits are read, unembedded alone",
        count=lambda size, options: Passes(size.writers * size.ends, 0),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _RECORDS}
