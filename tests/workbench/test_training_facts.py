"""A small bank trained for the shipped model answers facts that it never saw, and only where its blocks are fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bank_facts import READINGS, choose_facts, run
from workbench.training.bank_plan import BankPlan


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bank_alone_holds_facts_that_the_model_never_saw(tmp_path: Path) -> None:
    plan = BankPlan(units=(24, 24), branching=8, steps=45, rows=12, length=64, rate=1e-2)
    found = run(tmp_path, 40, plan, limit=40)
    accuracy = found["accuracy"]
    assert set(accuracy) == set(READINGS) and found["documents"] == 40
    assert accuracy["fetched"] > 2 * max(accuracy[reading] for reading in ("none", "generic", "wrong"))
    assert found["loss"]["fetched"] < min(found["loss"][reading] for reading in ("none", "generic", "wrong"))


def test_facts_come_with_the_documents_that_state_them() -> None:
    facts = choose_facts(3)
    assert len({fact.document_id for fact in facts}) == 3
    assert all(fact.subject in fact.document and fact.object in fact.document for fact in facts)
