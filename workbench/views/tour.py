"""The three-minute tour: what each step says, and on which page it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.facts import Fact


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `text` is Markdown of our own. `with_fact`: its link chooses the tour's fact."""

    title: str
    page: str
    text: str
    with_fact: bool = False


STEPS = (
    Step(
        "Ask for a fact that training never stated",
        "ask",
        "The table lists the invented facts of the shipped model. One is chosen whose *split* is **never-seen**: no "
        "training text states it, so the parameters alone have no way to know it. Press **Ask**.",
        with_fact=True,
    ),
    Step(
        "One prompt, four sources",
        "ask",
        "Each column answers the same prompt: with the parameters alone, with memory-bank blocks of the fact's "
        "cluster, with explicit memory (key-values that were written from the fact's document), and with the document "
        "as text. Compare the probability of the answer. A click on a token makes it the answer or the *foil*, the "
        "answer to compare with.",
    ),
    Step(
        "Trace the answer",
        "ask",
        "Press **Trace** below the answers. A score is given to every edge of the model: how much the difference "
        "between the logits of answer and foil drops when that edge is ablated. It takes some seconds, shows how far "
        "it is, and can be cancelled; the circuit opens by itself.",
    ),
    Step(
        "Read the circuit",
        "circuit",
        "Tokens stand side by side, layers above one another, the output is at the top; memories have a lane of their "
        "own on the left. Circles are attention heads, squares MLPs, diamonds heads that read explicit memory, "
        "hexagons memory-bank blocks. Move the slider to see fewer or more edges, and click a **diamond**: on the "
        "right is the text that it reads, with the kept tokens outlined.",
    ),
    Step(
        "Doubt it",
        "circuit",
        "Scores are estimates. **Check exactly** removes the selected node and runs the model again. Above the graph, "
        "*faithfulness* says how much of the metric the circuit alone keeps (0: nothing, 1: the whole model), beside "
        "random circuits of its size. It is one of many possible circuits.",
    ),
    Step(
        "Which memory holds it?",
        "memory",
        "Press **Divide**: the answer's margin over its rival is divided over the model alone, the bank's blocks and "
        "the explicit memory, each combination run exactly. The rows add up to the margin. *What was read* shows the "
        "text that was read, *Block and ask again* answers without a memory.",
        with_fact=True,
    ),
    Step(
        "Keep it",
        "runs",
        "Every trace is saved with its question, settings, seed and versions. The link of a circuit restores the view; "
        "figures and tables are under *Download and replay* on the Circuit page, with the command that makes the run "
        "again. The other pages ask of many facts: *Specific or abstract* which components serve one fact or all, "
        "*Placement* where a fact is cheapest to keep, *Sweeps* what holds over thousands.",
    ),
)


def read_step(text: str) -> int:
    """Number of a step in a link, from 1; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 3 and 1 <= int(text) <= len(STEPS) else 0


def pick_fact(facts: Sequence[Fact]) -> str:
    """Id of the tour's fact: the first never-seen one with a document; the first of all where there is none."""
    told = [fact.id for fact in facts if fact.split == "never-seen" and fact.document]
    return told[0] if told else facts[0].id if facts else ""
