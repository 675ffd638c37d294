"""What stands under a figure: what it shows, of how many, how measured, on which model, and its command."""

from __future__ import annotations

from typing import Any

from circuits.circuit import Circuit
from workbench.circuit_files import Traced
from workbench.ledgers.table import Ledger
from workbench.settings import ABLATIONS, METHODS, METRICS
from workbench.views.text import show_line, show_token

# Digits of a hash that a caption shows.
DIGITS = 12
# How numbers that are no scores of the circuit were measured.
RECORDED = "Method: recorded attention; ablation: none; metric: probability."
LENS = "Method: logit lens; ablation: none; metric: probability of the softmax."


def name_method(circuit: Circuit) -> str:
    """Method, ablation, metric and unit in words."""
    method, ablation, metric = (
        table[name].label if name in table else name
        for table, name in (
            (METHODS, circuit.method),
            (ABLATIONS, circuit.ablation),
            (METRICS, circuit.metric),
        )
    )
    return f"Method: {method}; ablation: {ablation}; metric: {metric}, in {circuit.unit}; positive helps the answer."


def name_hashes(about: dict[str, Any]) -> str:
    """Model and memories with the first digits of their SHA-256."""
    model = about.get("model") or {}
    memories = about.get("memories") or {}
    found = [f"Model {show_line(str(model.get('name', 'not stated')))}{name_hash(model)}"]
    for key, word in (("bank", "bank"), ("explicit", "explicit memories")):
        if memories.get(key):
            found.append(f"{word} {show_line(str(memories[key].get('name', '')))}".rstrip() + name_hash(memories[key]))
    if memories.get("text"):
        found.append("text before the prompt")
    return "; ".join(found) + "."


def name_hash(about: dict[str, Any]) -> str:
    """First digits of a SHA-256, where there is one."""
    return f" (sha256 {str(about['sha256'])[:DIGITS]})" if about.get("sha256") else ""


def name_faithfulness(about: dict[str, Any], of: str = "") -> str:
    """Normalised faithfulness, of all the circuit's edges, beside random circuits; empty where it was not measured."""
    value = about.get("faithfulness") or {}
    if "normalised" not in value:
        return ""
    random = value.get("random") or {}
    beside = f"; {random['n']} random circuits of that size: {random['mean']:z.3f}" if random.get("n") else ""
    return f"Faithfulness{of} {value['normalised']:z.3f} (1: the whole model){beside}."


def write_caption(what: str, source: Traced, command: str, measured: str = "") -> str:
    """Caption of a figure of a run or circuit; `command` draws it again, the run's own makes the run.

    `measured` says how the numbers were measured, where they are not scores of the run's circuit.
    """
    pairs = len(source.pairs)
    first = show_line(source.title).strip()
    sentences = [
        what,
        f"n = {pairs} prompt pair{'s' if pairs > 1 else ''}: {first}." if first not in ("", "→") else f"n = {pairs}.",
        measured or name_method(source.circuit),
        name_hashes(source.about),
        f"Drawn by: {command}" if command else "",
        f"Run by: {show_line(str(source.about['command']))}" if source.about.get("command") else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_circuit(source: Traced, shown: int) -> str:
    """First sentences under the picture of a circuit."""
    circuit = source.circuit
    return " ".join(
        (
            f"A circuit: its {shown} strongest of {len(circuit.edges)} edges ({circuit.total} in the whole graph), one "
            "of many possible. Lines grow with the square root of the score.",
            name_faithfulness(
                source.about, f" of all {len(circuit.edges)} edges:" if shown < len(circuit.edges) else ""
            ),
        )
    ).strip()


def name_memories(about: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Hashes of the memories that a ledger or table tells, as a run tells them."""
    return {name: {"sha256": about[key]} for name, key in (("bank", "bank"), ("explicit", "memory")) if about.get(key)}


def caption_specificity(about: dict[str, Any], components: int, command: str) -> str:
    """Caption of a table of components: what it tells of itself in its file (nothing in those of older releases)."""
    unknown = "not stated"
    words = (
        f"Specificity index and largest effect of {components} components. n = {about.get('facts', unknown)} facts of "
        f"{about.get('relations', unknown)} relations, in {about.get('items', unknown)} prompts. Method: "
        f"{about.get('method', unknown)}; ablation: zero; metric: {about.get('metric', unknown)}, in "
        f"{about.get('unit', unknown)}; positive helps the answer.",
        name_hashes(about | {"memories": name_memories(about)}),
        f"Drawn by: {command}",
        f"Table by: {show_line(str(about['command']))}" if about.get("command") else "",
    )
    return " ".join(filter(None, words))


def caption_ledger(ledger: Ledger, about: dict[str, Any], command: str) -> str:
    """Caption of one ledger; `about` is what its file says of model and memories."""
    known = "" if ledger.known else f" The model says {show_token(ledger.said)} instead."
    words = (
        f"The margin of {show_token(ledger.answer)} divided over what brings it.{known} n = 1 question: "
        f"{show_line(ledger.prompt)}. Method: {ledger.method}; ablation: explicit memories that are off: "
        f"{ledger.removal}; metric: {ledger.metric}, in {ledger.unit}; positive helps the answer.",
        name_hashes(about | {"memories": name_memories(about)}),
        f"Drawn by: {command}",
    )
    return " ".join(words)
