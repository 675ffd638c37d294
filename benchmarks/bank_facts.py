"""Facts that the shipped model never saw, learnt by a bank alone: `python -m benchmarks.bank_facts`.

Documents about never-seen facts become a bank (`bank train`, frozen model); then every fact's bare prompt is asked as
`ask --bank BANK --reading MODE` does. Accuracy is the share of prompts whose most likely next token is the answer's
first. The document states a fact in one of the model's wordings, the prompt may ask in another. `none` is the model
without blocks, `generic` blocks that belong to no cluster, `wrong` those of another subtree: the controls. A row reads
the generic blocks once in k + 1 times, so that with few children a cluster, or many steps, they learn the facts too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.facts import Fact
from workbench.answers import Condition
from workbench.banks.reading import choose_route
from workbench.cases import Side
from workbench.conditions import answer_side
from workbench.engine import Engine, open_engine
from workbench.library import find_shipped, read_shipped_facts
from workbench.settings import Settings
from workbench.training.bank import train_bank
from workbench.training.bank_plan import BankPlan

READINGS = ("none", "generic", "fetched", "wrong")


def choose_facts(documents: int) -> list[Fact]:
    """Never-seen facts of the first so many documents; 0 takes all."""
    unseen = [fact for fact in read_shipped_facts() if fact.split == "never-seen" and fact.document]
    named = list(dict.fromkeys(fact.document_id for fact in unseen))[: documents or None]
    return [fact for fact in unseen if fact.document_id in named]


def write_corpus(facts: Sequence[Fact], path: Path) -> None:
    """The facts' documents, a row each."""
    texts = {fact.document_id: fact.document for fact in facts}
    rows = (json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    path.write_text("".join(rows), encoding="utf-8")


def ask_fact(engine: Engine, fact: Fact, reading: str) -> Condition:
    """What the model answers to a fact's bare prompt in a reading mode."""
    path = choose_route(engine.bank, reading, None, fact.prompt).path
    return answer_side(engine, reading, Side(fact.prompt, path), fact.answer, "")


def is_right(condition: Condition) -> bool:
    """Whether the most likely next token is the answer's first."""
    first = condition.steps[0] if condition.steps else condition.answer
    return first is not None and condition.top[0].token == first.token


def measure_facts(bank: Path, facts: Sequence[Fact]) -> dict[str, float]:
    """Accuracy in every reading mode."""
    engine = open_engine(Settings(bank=str(bank), memory="none"))
    return {
        reading: sum(is_right(ask_fact(engine, fact, reading)) for fact in facts) / len(facts) for reading in READINGS
    }


def run(folder: Path, documents: int, plan: BankPlan, limit: int = 0) -> dict[str, Any]:
    """Train a bank on the documents of never-seen facts and ask `limit` of these facts (0: all)."""
    facts = choose_facts(documents)
    write_corpus(facts, folder / "facts.jsonl")
    began = time.perf_counter()
    model = str(find_shipped() / "model")
    corpus = [str(folder / "facts.jsonl")]
    record = train_bank(model, corpus, folder / "bank", plan, "auto", 5.0, True, lambda *_: None)
    seconds = time.perf_counter() - began
    asked = facts[: limit or None]
    return {
        "documents": len({fact.document_id for fact in facts}),
        "facts": len(asked),
        "steps": plan.steps,
        "seconds": seconds,
        "sentences_that_reach_their_cluster": record["sentences_that_reach_their_cluster"],
        "loss": record["loss"],
        "accuracy": measure_facts(folder / "bank", asked),
    }


def main() -> None:
    """Run at the size that the options say and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=0, help="documents to learn; 0 takes all")
    parser.add_argument("--limit", type=int, default=0, help="facts to ask; 0 asks all")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--branching", type=int, default=8)
    parser.add_argument("--plain-router", action="store_true", help="the paper's plain sentence vectors")
    parser.add_argument("--out", metavar="FOLDER", help="keep corpus and bank there; left out, nothing is kept")
    options = parser.parse_args()
    plan = BankPlan(
        units=(24, 24), branching=options.branching, steps=options.steps, rows=options.rows, length=64, rate=1e-2,
        whiten=not options.plain_router,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(run(folder, options.documents, plan, options.limit), indent=1))


if __name__ == "__main__":
    main()
