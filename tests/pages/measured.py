"""Small results of the commands that measure components, as their --json prints them; invented numbers."""

from __future__ import annotations

from typing import Any

HOSTILE = "<img src=x onerror=alert(1)> **b** $y$"


def make_component(name: str, kind: str, label: str, index: float | None, **more: Any) -> dict[str, Any]:
    """One row of `specificity`."""
    row = {
        "component": name, "kind": kind, "effect": 0.5, "largest": 2.0, "strongest": "capital/Norland",
        "participation": 1.5, "relations": 1, "everything": 0.1, "relation": 0.2, "fact": 0.6, "wording": 0.1,
        "index": index, "low": 0.5, "high": 0.9, "label": label, "level": "relation" if label == "abstract" else label,
    }  # fmt: skip
    return row | more


SPECIFICITY: dict[str, Any] = {
    "method": "zero ablation, exact; FFN units first order",
    "metric": "log-odds of the answer",
    "unit": "nats",
    "facts": 4,
    "relations": 2,
    "items": 8,
    "negligible": 0.1,
    "seed": 0,
    "components": [
        make_component("m1.u3", "units", "specific", 0.75, largest=4.0, drop_own=3.5, drop_neighbours=0.1,
                       drop_others=0.0, drop_text=0.001),
        make_component("a0.h1", "heads", "abstract", 0.1, largest=-3.0),
        make_component("a2.h0", "heads", "specific", 0.8, strongest=HOSTILE),
        make_component("bank 1:5", "bank", "specific", 0.9),
        make_component("memory d-1", "memories", "undecided", 0.4),
        make_component("m0.u0", "units", "inert", None, largest=0.0, low=None, high=None),
    ],
    "skipped": [{"fact": "river/France", "reason": "the model does not give its answer in any wording"}],
}  # fmt: skip


def make_score(finder: str, metric: str, unit: str, head: int, value: float, **more: Any) -> dict[str, Any]:
    """One row of `heads`, of layer 0."""
    row = {"finder": finder, "metric": metric, "layer": 0, "head": head, "value": value, "unit": unit, "n": 16}
    return row | {"low": value - 0.1, "high": value + 0.1} | more


HEADS: dict[str, Any] = {
    "model": "shipped",
    "window": 16,
    "texts": 16,
    "rows": [
        make_score("memory", "drop", "nats a token", 0, -0.2, candidate=False),
        make_score("memory", "drop", "nats a token", 1, 0.7, candidate=True),
        make_score("induction", "score", "attention", 0, 0.1),
        make_score("induction", "score", "attention", 1, 0.3),
    ],
    "comparisons": [{"finders": ["memory", "induction"], "spearman": None, "low": None, "high": None, "n": 2}],
}

UNITS: dict[str, Any] = {
    "method": "integrated gradients",
    "unit": "probability",
    "facts": 2,
    "items": 4,
    "steps": 20,
    "adaptive": 0.2,
    "shared": 0.7,
    "neurons": [{"fact": HOSTILE, "unit": "m1.u3", "score": 0.25, "facts": 1}],
    "parametric_knowledge": {
        "unit": "nats",
        "layers": [{"layer": layer, "value": 0.5, "n": 4, "low": 0.4, "high": 0.6} for layer in range(2)],
    },
    "skipped": [],
}


def make_class(verdict: str, variability: float, **more: Any) -> dict[str, Any]:
    """One class of circuits."""
    row = {
        "edges": ["a0.h1 0>3", "m1.u3 3"],
        "example": "capital/Norland",
        "members": 4,
        "rate": {"value": 0.5, "n": 8, "low": 0.25, "high": 0.75},
        "weight": 1.5,
        "inputs": [{"text": " Norland", "members": 4}],
        "outputs": [{"text": HOSTILE, "members": 4}],
        "variability": variability,
        "verdict": verdict,
    }
    return row | more


CLASSES: dict[str, Any] = {
    "settings": {
        "weight": "ablation",
        "pieces": "pairs",
        "threshold": 0.1,
        "fraction": 0.2,
        "candidates": 9,
        "seed": 0,
    },
    "unit": "nats",
    "texts": 8,
    "subgraphs": 8,
    "edges_kept": 12,
    "classes": [
        make_class("specific", 0.0, facts=[{"fact": "capital/Norland", "members": 4}]),
        make_class("abstract", 0.5),
    ],
    "skipped": [],
}

TABLE: dict[str, Any] = {
    "tokens": ["The", "\n"],
    "ids": [5, 6],
    "best": [[" of", " is"], [" a", " Oskarville"]],
    "probability": [[0.1, 0.2], [0.3, 0.9]],
    "answer": " Oskarville",
    "answer_probability": [[0.0, 0.1], [0.0, 0.9]],
    "answer_rank": [[9, 3], [7, 1]],
}
LENS: dict[str, Any] = {
    "lens": "logit",
    "prompt": "The\n",
    "answer": " Oskarville",
    "position": 1,
    "layers": [
        {"layer": 0, "best": " is", "best_probability": 0.2, "answer_probability": 0.1, "answer_rank": 3},
        {"layer": 1, "best": HOSTILE, "best_probability": 0.9, "answer_probability": 0.9, "answer_rank": 1},
    ],
    "everywhere": TABLE,
    "training": None,
}
PROBE: dict[str, Any] = {
    "label": "relation",
    "position": "last token of the prompt",
    "items": 8,
    "facts": 4,
    "labels": 2,
    "folds": "wordings",
    "layers": [
        {
            "layer": layer,
            "accuracy": 0.9,
            "control": 0.4,
            "selectivity": 0.5,
            "majority": 0.5,
            "examples": 8,
            "labels": 2,
        }
        for layer in range(3)
    ],
    "skipped": [],
}
RESTORE: dict[str, Any] = {
    "method": "causal tracing",
    "state": "mlp",
    "metric": "logit-diff",
    "unit": "logits",
    "clean": 4.0,
    "corrupted": -1.0,
    "prompt": "The capital",
    "counterfactual": HOSTILE,
    "tokens": ["The", " capital"],
    "restored": [[0.0, 1.0], [2.0, 4.0]],
    "share": [[0.2, 0.4], [0.6, 1.0]],
}
FOUND = {
    "specificity": SPECIFICITY,
    "heads": HEADS,
    "units": UNITS,
    "classes": CLASSES,
    "lens": LENS,
    "probe": PROBE,
    "restore": RESTORE,
}
