"""The same question asked a little differently: other seeds, ablations and paraphrases, and how far circuits overlap.

Two circuits can each keep the behaviour and share few edges, so a circuit is shown with how much of it comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from probes.errors import UserError
from probes.facts import Fact, find_fact
from probes.progress import Tick, quiet
from probes.prompts import list_counterfactuals
from workbench.cases import resolve
from workbench.engine import Engine
from workbench.pipeline import score, score_pairs, set_goal
from workbench.problems import pose
from workbench.runs import Run
from workbench.settings import ABLATIONS, Question, Settings, read_question

# Seeds and paraphrases that are tried beside the run's own.
MOST_VARIANTS = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """One other way of asking and the circuit it gives, against the run's.

    `jaccard` is the share of edges in both among those in either, positions aside; `spearman` the rank correlation of
    the absolute scores of all edges. Both None with the `reason` when it could not be asked.
    """

    kind: str
    name: str
    jaccard: float | None = None
    spearman: float | None = None
    edges: int | None = None
    reason: str = ""


def list_variants(
    engine: Engine, question: Question, settings: Settings
) -> Iterator[tuple[str, str, Question, Settings]]:
    """Kind, name, question and settings of every variant that the question allows."""
    if (question.fact and not question.counterfactual) or question.facts:
        for seed in range(settings.seed + 1, settings.seed + 1 + MOST_VARIANTS):
            yield "seed", f"seed {seed}", question, replace(settings, seed=seed)
    for ablation, choice in ABLATIONS.items():
        if ablation != settings.ablation and not choice.memories_only:
            yield "ablation", choice.label, question, replace(settings, ablation=ablation)
    if question.fact and not question.counterfactual:
        fact = find_fact(engine.facts, question.fact)
        for text, other in islice(pair_paraphrases(engine, fact, settings.seed), MOST_VARIANTS):
            asked = Question(
                prompt=text[0],
                counterfactual=text[1],
                answer=question.answer or fact.answer,
                foil=question.foil or other.answer,
            )
            yield "paraphrase", text[0], asked, settings


def pair_paraphrases(engine: Engine, fact: Fact, seed: int) -> Iterator[tuple[tuple[str, str], Fact]]:
    """Paraphrases of a fact's prompt, each with the same paraphrase about another fact that is as long in tokens."""
    ways = [*fact.paraphrases, *fact.heldout_paraphrases]
    for place, text in enumerate(ways):
        if text == fact.prompt:
            continue
        for other in list_counterfactuals(engine.model, fact, engine.facts, seed):
            theirs = [*other.paraphrases, *other.heldout_paraphrases][place : place + 1]
            if theirs and len(engine.model.encode(theirs[0])) == len(engine.model.encode(text)):
                yield (text, theirs[0]), other
                break


def compare_variants(engine: Engine, run: Run, settings: Settings, tick: Tick) -> list[Variant]:
    """Every variant scored by the run's method, selected by its rule, and compared with the run's circuit."""
    variants = list(list_variants(engine, read_question(run.about["question"]), settings))
    found = []
    for done, (kind, name, question, changed) in enumerate(variants):
        tick("other seeds, ablations, paraphrases", done, len(variants))
        try:
            found.append(compare_variant(engine, run, kind, name, question, changed))
        except UserError as error:
            found.append(Variant(kind, name, reason=str(error)))
    return found


def compare_variant(engine: Engine, run: Run, kind: str, name: str, question: Question, settings: Settings) -> Variant:
    """One variant. Raises UserError when it cannot be asked, or has other memories and so another graph."""
    from circuits.agreement import compare_circuits
    from circuits.circuit import mask_edges
    from circuits.selection import select_edges

    cases = resolve(engine, question, settings)
    problem = pose(engine, cases, settings)
    if problem.wiring.plan != run.circuit.plan:
        raise UserError("other memories are attached, so the graphs are not the same")
    scores = score(problem, settings, quiet)
    pairs = score_pairs(engine, cases, settings, quiet) if settings.selection == "stable" else None
    mask = select_edges(scores, settings.selection, set_goal(problem.list_ends(), settings, pairs)).mask
    own = mask_edges(run.circuit, run.scores.wiring, run.scores.edges.shape[0])
    overlap = compare_circuits(name, (run.scores, own), (scores, mask))
    return Variant(kind, name, overlap.jaccard, overlap.spearman, overlap.edges)
