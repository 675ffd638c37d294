"""A synthetic study with everything that the Memory page can show, hostile text among it; its ledgers add up."""

from __future__ import annotations

from typing import Any

from workbench.answers import Condition, Prediction
from workbench.ledgers.table import Entry, Interaction, Ledger, Part
from workbench.settings import Question, Settings
from workbench.studies import Level, Reference, Study

HOSTILE = "<img src=x onerror=alert(1)> **x** $y$ :red[z]"


def make_ledger(answer: str = " Oskarville", removal: str = "renormalised", held: float = 0.0) -> Ledger:
    """A ledger that adds up: anchor 1, memory 2.5, level -0.5, text 1, attention held."""
    parts = (Part("x1.h0.b0.s2", 2.0, " Oskarville"), Part("x1.h1.b0.s0", 0.25, HOSTILE))
    entries = (
        Entry("anchor", "anchor", "nothing attached", 1.0, 1.0, 1.0, (Part("a2.h1", 0.75, "", 0.5),), 9, 0.25, 0.0),
        Entry(
            "memory 1",
            "explicit",
            HOSTILE,
            2.5,
            3.0,
            2.0,
            parts,
            6,
            0.125,
            0.125,
            ((" Oskarville", 2.0),),
            (("a1.h0", 2.25),),
        ),
        Entry("level 1", "bank", "cluster 3", -0.5, 0.5, -1.0, (), 4, -0.5, 0.0),
        Entry("text", "text", "text before the prompt", 1.0, 2.0, 0.5, (), 3, 1.0, 0.0),
    )
    return Ledger(
        fact="norland-capital",
        prompt="The capital of Norland is",
        answer=answer,
        foil=" Tannstad",
        metric="logit-diff",
        unit="logits",
        removal=removal,
        margin=4.0 + held,
        held=held,
        entries=entries,
        interactions=(Interaction("memory 1", "text", -0.75),),
        combinations=(((), 1.0), (("memory 1",), 4.0)),
        known=False,
        said=HOSTILE,
    )


def make_study(name: str, kind: str = "ledger", **more: Any) -> Study:
    """A synthetic study with everything that a page can show."""
    attention = (((0.5, 0.25), (0.125, 0.0)),)
    references = (
        Reference("memory 1", HOSTILE, ("The", HOSTILE, " Oskarville"), (1,), 2, (((2, -1),),), attention),
        Reference("text", "text before the prompt", (" a", " b"), (1,), 2, (), attention),
    )
    path = (Level(1, 0, ((0, 5, ("Norland",)), (1, 2, (HOSTILE,)))), Level(2, 3, ((2, 0, ()), (3, 4, ("Norland",)))))
    prediction = Prediction(" Oskarville", 17, 0.5)
    answers = (Condition("everything on", "The capital of Norland is", (prediction,), prediction),)
    about = {
        "kind": kind,
        "question": Question(fact="norland-capital").to_json(),
        "settings": Settings(memory="own", text="auto").to_json(),
        "model": {"name": "shipped", "sha256": "0" * 64},
        **more,
    }
    ledgers = (make_ledger(), make_ledger(removal="contribution", held=-0.5))
    return Study(name, about, ledgers, references, path, answers)
