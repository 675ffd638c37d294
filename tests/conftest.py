"""Shared fixtures: a small synthetic run made of numpy arrays alone, with a bank block and an explicit memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# The models here are so small that a second thread only gets in the way of the other test worker. Read at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import beartype
import numpy as np
import pytest

# Static checkers take an int where a float is meant (PEP 484); the checks that jaxtyping's import hook puts into every
# function look this name up and shall agree. Before our packages are imported.
beartype.beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

# ruff: noqa: E402
from circuits.circuit import Circuit, Edge, EdgeScores, Move, Node
from circuits.graph import Component, Kind, Plan, Wiring, wire
from circuits.parts import PART_KINDS, WEIGHED, KeptPart, KeptParts
from workbench.runs import Recording, Run, save_run
from workbench.settings import Question, Settings

TOKENS = ("The", " capital", " of", " Norland", " is")
PLAN = Plan(layers=3, heads=4, kv_heads=2, explicit_layers=(1,), blocks=2, bank_layers=(0, 2), levels=2)
SLOTS = 6

RunBuilder = Callable[..., Run]


def score_edges(wiring: Wiring, positions: int, generator: np.random.Generator) -> EdgeScores:
    """Random scores on the edges that exist; a node's score is the sum of what it sends out."""
    edges = generator.normal(size=(positions, *wiring.visible.shape)) * wiring.visible
    return EdgeScores(
        wiring=wiring,
        edges=edges.astype(np.float32),
        nodes=edges.sum(-1).astype(np.float32),
        method="eap",
        ablation="counterfactual",
        metric="logit-diff",
        unit="logits",
    )


def list_moves(plan: Plan, used: set[str], positions: int) -> tuple[Move, ...]:
    """One move from each used key-value head to each used head that shares it at a later or equal position."""
    moves = []
    for layer in range(plan.layers):
        for head in range(plan.heads):
            source = Component(Kind.KEY_VALUE, layer, head // plan.group)
            target = Component(Kind.HEAD, layer, head)
            for end in range(positions):
                for start in range(end + 1):
                    pair = f"{source.name}@{start}", f"{target.name}@{end}"
                    if used.issuperset(pair):
                        moves.append(Move(*pair, weight=round(1 / (end + 1), 6)))
    return tuple(moves)


def select_strongest(scores: EdgeScores, count: int) -> Circuit:
    """The strongest edges with the nodes and moves they bring in; dead ends are kept."""
    wiring = scores.wiring
    positions = scores.edges.shape[0]
    order = np.argsort(-np.abs(scores.edges), axis=None, kind="stable")[:count]
    edges, values = [], {}
    for position, w, r in zip(*np.unravel_index(order, scores.edges.shape), strict=True):
        writer, reader = wiring.writers[w], wiring.readers[r]
        ends = Node(writer, int(position), float(scores.nodes[position, w])), Node(reader.component, int(position), 0.0)
        score = float(scores.edges[position, w, r])
        edges.append(Edge(ends[0].id, ends[1].id, reader.role, score))
        values[ends[0].id] = ends[0]
        values.setdefault(ends[1].id, ends[1])
    nodes = tuple(sorted(values.values(), key=lambda node: (node.position, node.component.layer, node.id)))
    return Circuit(
        plan=wiring.plan,
        nodes=nodes,
        edges=tuple(edges),
        moves=list_moves(wiring.plan, set(values), positions),
        method=scores.method,
        ablation=scores.ablation,
        metric=scores.metric,
        unit=scores.unit,
        requested=count,
        total=wiring.edges * positions,
    )


def describe_run(tokens: Sequence[str], edges: int) -> dict[str, Any]:
    """The JSON object that a trace of an invented fact would carry."""
    prompt, answer, foil = "".join(tokens), " Oskarville", " Tannstad"
    other = [*tokens[:3], " Southia", *tokens[4:]]
    prediction = {"text": answer, "token": 17, "probability": 0.75}
    return {
        "question": Question(fact="norland-capital").to_json(),
        "settings": Settings(edges=edges).to_json(),
        "model": {"name": "synthetic", "sha256": "0" * 64, "architecture": "LlamaForCausalLM"},
        "memories": {
            "bank": {"name": "bank", "sha256": "1" * 64, "path": [0, 3]},
            "explicit": {"name": "memory", "sha256": "2" * 64, "blocks": [{"id": "d-1"}, {"id": "d-2"}]},
            "text": None,
        },
        "fact": None,
        "pairs": [
            {
                "clean": prompt,
                "counterfactual": "".join(other),
                "clean_tokens": list(tokens),
                "counterfactual_tokens": other,
                "clean_ids": list(range(len(tokens))),
                "counterfactual_ids": [0, 1, 2, 9, 4][: len(tokens)],
                "answer": answer,
                "foil": foil,
                "answer_ids": [17],
                "foil_ids": [18],
                "answer_tokens": [answer],
                "foil_tokens": [foil],
                "spans": [],
            }
        ],
        "summed": False,
        "selection": {"name": "top-n"},
        "conditions": [
            {
                "name": "parameters",
                "prompt": prompt,
                "top": [prediction],
                "answer": prediction,
                "source": "",
                "reason": "",
            }
        ],
        "faithfulness": {
            "metric_whole": 4.5,
            "metric_empty": -1.25,
            "metric_circuit": 3.75,
            "normalised": 0.869565,
            "random": {"mean": 0.125, "low": 0.0, "high": 0.25, "n": 5},
            "unit": "logits",
        },
        "versions": {"memory-circuits": "0.1.0", "numpy": np.__version__},
        "command": "memory-circuits trace --fact norland-capital --edges 30 --out RUN",
    }


def keep_parts(circuit: Circuit, count: int, generator: np.random.Generator) -> KeptParts:
    """`count` parts of every node of a circuit that has parts, and as many into the logits; numbers are random."""
    parts = []
    for node in circuit.nodes:
        component, most = node.component, node.position + 1 if node.component.kind is Kind.HEAD else SLOTS
        for part in range(min(count, most) if component.kind in PART_KINDS else 0):
            scores = generator.normal(size=3) * [1.0, *[float(component.kind in WEIGHED)] * 2]
            others = (float(scores[1]), float(scores[2])) if component.kind in WEIGHED else (None, None)
            for reader in ("",) if component.kind is Kind.HEAD else ("", "logits"):
                whole = replace(component, part=part)
                parts.append(KeptPart(whole, node.position, reader, float(scores[0]), *others))
    order = list(PART_KINDS)
    parts.sort(key=lambda part: (order.index(part.component.kind), part.reader, -abs(part.score), part.id))
    about = circuit.method, circuit.ablation, circuit.metric, circuit.unit
    return KeptParts(tuple(parts), count, ("logits",), *about)


def make_run(tokens: Sequence[str] = TOKENS, edges: int = 30, seed: int = 0, plan: Plan = PLAN, parts: int = 0) -> Run:
    """A run whose numbers come from a seed; equal arguments give equal runs. `parts` are kept of every node."""
    generator = np.random.default_rng(seed)
    scores = score_edges(wire(plan), len(tokens), generator)
    causal = np.tril(np.ones((len(tokens), len(tokens))))
    context = generator.random((plan.layers, plan.heads, len(tokens), len(tokens))) * causal
    memory = generator.random((len(plan.explicit_layers), plan.heads, len(tokens), plan.blocks, SLOTS))
    recording = Recording(context.astype(np.float16), memory.astype(np.float16))
    circuit = select_strongest(scores, edges)
    kept = keep_parts(circuit, parts, generator) if parts else None
    return Run(describe_run(tokens, edges), circuit, scores, recording, kept)


@pytest.fixture(scope="session")
def build_run() -> RunBuilder:
    """`build_run(tokens=..., edges=..., seed=..., plan=...) -> Run`, every argument optional."""
    return make_run


@pytest.fixture
def run() -> Run:
    """The default synthetic run: 5 positions, 30 edges, one bank, two explicit-memory blocks."""
    return make_run()


@pytest.fixture
def run_folder(tmp_path: Path, run: Run) -> Path:
    """Folder of the default synthetic run, saved."""
    folder = tmp_path / "runs" / "norland-capital-00000000"
    save_run(run, folder)
    return folder
