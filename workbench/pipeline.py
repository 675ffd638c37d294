"""The whole flow on one screen: a question becomes cases, a traced run, edge scores, a circuit and its faithfulness.

    Question -> Cases (prompt pairs, memories) -> Problem (traced runs) -> EdgeScores -> Circuit -> Faithfulness -> Run

Commands, pages and tests call these functions; none restates them. Torch is imported inside, so that importing this
module is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.answers import Condition
from workbench.cases import Case, build_inputs, resolve
from workbench.engine import Engine, open_engine
from workbench.parts import list_kinds
from workbench.provenance import build_command, describe_memories, list_versions
from workbench.runs import Recording, Run
from workbench.settings import METHODS, Question, Settings, read_question, restore_settings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from circuits.circuit import Circuit, EdgeScores
    from circuits.faithfulness import Faithfulness
    from circuits.parts import KeptParts
    from circuits.problem import Problem
    from circuits.selection import Goal

__all__ = ["Check", "Engine", "Tick", "ask", "check_node", "open_engine", "quiet", "trace"]

# Prompts that mean ablation averages over.
REFERENCES = 32


def trace(engine: Engine, question: Question, settings: Settings, tick: Tick = quiet) -> Run:
    """Trace one question: from prompt to circuit. Raises UserError for what a person can put right."""
    settings.check()
    cases = resolve(engine, question, settings)
    conditions = ask(engine, question, settings, tick) if not question.several else ()
    problem = pose(engine, cases, settings, tick)
    check_readers(problem, settings)
    scores = score(problem, settings, tick)
    pairs = score_pairs(engine, cases, settings, tick) if settings.selection == "stable" else None
    recording = record_attention(problem)
    circuit, notes = select(scores, problem, recording, settings, pairs)
    parts = keep_parts(problem, cases, circuit, settings, tick) if settings.parts else None
    faithfulness = evaluate(problem, circuit, settings, tick)
    about = {
        "question": question.to_json(),
        "settings": settings.to_json(),
        "model": engine.model.describe(),
        "memories": describe_memories(engine, cases, settings.reading),
        "fact": cases[0].fact.to_json() if cases[0].fact is not None and len(cases) == 1 else None,
        "pairs": [case.to_json() for case in cases],
        "summed": problem.summed,
        "conditions": [condition.to_json() for condition in conditions],
        "selection": {"name": settings.selection, **notes},
        "faithfulness": faithfulness.to_json(),
        "versions": list_versions(),
        "command": build_command(question, settings),
    }
    return Run(about=round_trip(about), circuit=circuit, scores=scores, recording=recording, parts=parts)


def ask(engine: Engine, question: Question, settings: Settings, tick: Tick = quiet) -> tuple[Condition, ...]:
    """Next-token answers with parameters alone, with the bank, with explicit memory and with text."""
    from workbench.conditions import answer_conditions

    return answer_conditions(engine, question, settings, tick)


def pose(
    engine: Engine,
    cases: Sequence[Case],
    settings: Settings,
    tick: Tick = quiet,
    summed: bool | None = None,
    parts: bool | None = None,
) -> Problem:
    """Problem of one case or several: clean and ablated run recorded, metric set up.

    `summed` as in `pose_problem`: by default positions are summed when there are several cases. `parts` records what
    writers are made of, by default where the settings ask for parts.
    """
    from circuits.limits import explain_memory
    from circuits.problem import pose_problem

    with explain_memory("running the prompts"):
        return pose_problem(
            engine.model,
            build_inputs(engine, cases, settings.metric),
            settings.ablation,
            settings.metric,
            list_references(engine, settings) if settings.ablation == "mean" else (),
            summed=summed,
            tick=tick,
            differentiable=METHODS[settings.method].reuses_run,
            attention=True,
            parts=bool(settings.parts) if parts is None else parts,
        )


def list_references(engine: Engine, settings: Settings) -> list[Tensor]:
    """Token ids of the prompts that mean ablation averages over: a sample of the shipped facts' prompts."""
    import random

    import torch

    chosen = random.Random(settings.seed).sample(engine.facts, min(REFERENCES, len(engine.facts)))
    return [torch.tensor([engine.model.encode(fact.prompt)]) for fact in chosen]


def score(problem: Problem, settings: Settings, tick: Tick) -> EdgeScores:
    """Scores of every edge and node by the chosen method."""
    from circuits.scoring import score as score_edges

    return score_edges(problem, settings.method, settings.choose_options(), tick)


def check_readers(problem: Problem, settings: Settings) -> None:
    """Raise UserError when one of the readers that parts are to be scored into is not there."""
    for name in settings.into:
        problem.wiring.find_reader(name)


def keep_parts(problem: Problem, cases: Sequence[Case], circuit: Circuit, settings: Settings, tick: Tick) -> KeptParts:
    """The strongest FFN units, bank units, memory slots and attention edges."""
    from circuits.part_selection import score_parts, select_parts

    kinds, left_out = list_kinds(cases)
    readers = settings.into or ("logits",)
    table = score_parts(problem, readers, kinds, tick)
    return select_parts(table, {node.id for node in circuit.nodes}, settings.parts, readers, left_out)


def score_pairs(engine: Engine, cases: Sequence[Case], settings: Settings, tick: Tick) -> np.ndarray:
    """Scores of every case alone, `[pair, 1, writer, reader]`, positions summed; their mean is that of all cases."""
    import numpy as np

    found = []
    for done, case in enumerate(cases):
        tick("pairs scored alone", done, len(cases))
        found.append(score(pose(engine, (case,), settings, summed=True), settings, quiet).edges)
    return np.stack(found)


def record_attention(problem: Problem) -> Recording:
    """Attention of the clean run, to the context and to memory slots, as probabilities of one softmax.

    Empty for several pairs: patterns belong to one prompt.
    """
    import numpy as np
    import torch

    record = problem.clean_record
    nothing = np.zeros((0,) * 5, dtype=np.float16)
    if problem.inputs.clean.shape[0] > 1:
        return Recording(np.zeros((0,) * 4, dtype=np.float16), nothing)
    context, memory = [], []
    for layer in range(problem.model.layers):
        pattern = record.pattern[layer][0]
        if layer in record.share:
            pattern = pattern * record.share[layer][0].T[:, :, None]
            memory.append(record.slot_weights[layer][0].transpose(0, 1).detach().to("cpu", torch.float16))
        context.append(pattern.detach().to("cpu", torch.float16))
    return Recording(
        context=torch.stack(context).numpy(),
        memory=torch.stack(memory).numpy() if memory else nothing,
    )


def share_context(problem: Problem) -> np.ndarray:
    """Share of each head's attention that goes to the context, `[layer, head, 1, 1]`, where positions are summed.

    The mean over the pairs and their positions; 1 at layers that read no memory.
    """
    import torch

    readout, record = problem.inputs.readout, problem.clean_record
    last = (readout.positions * (readout.weights > 0)).max(dim=1).values
    real = torch.arange(problem.inputs.clean.shape[1], device=last.device) <= last[:, None]
    ones = torch.ones(problem.model.heads)
    rows = [
        record.share[layer].detach().float()[real].mean(dim=0).cpu() if layer in record.share else ones
        for layer in range(problem.model.layers)
    ]
    return torch.stack(rows)[:, :, None, None].numpy()


def set_goal(problem: Problem, settings: Settings, pairs: np.ndarray | None) -> Goal:
    """What the settings ask of a selection; `pairs` are the scores of each pair alone, where the rule wants them."""
    from circuits.selection import Goal

    return Goal(
        edges=settings.edges,
        ends=problem.list_ends(),
        threshold=settings.threshold,
        seconds=settings.solver_seconds,
        pairs=pairs,
        seed=settings.seed,
    )


def select(
    scores: EdgeScores, problem: Problem, recording: Recording, settings: Settings, pairs: np.ndarray | None = None
) -> tuple[Circuit, dict[str, float]]:
    """Circuit by the chosen rule, and what the rule has to say about it."""
    from circuits.assembly import assemble
    from circuits.selection import select_edges

    selected = select_edges(scores, settings.selection, set_goal(problem, settings, pairs))
    attention = share_context(problem) if problem.summed else recording.context
    return assemble(scores, selected.mask, settings.edges, attention), selected.notes


def evaluate(problem: Problem, circuit: Circuit, settings: Settings, tick: Tick) -> Faithfulness:
    """How faithful a circuit is, beside random ones."""
    from circuits.circuit import UNITS, mask_edges
    from circuits.faithfulness import measure_faithfulness

    mask = mask_edges(circuit, problem.wiring, problem.positions)
    return measure_faithfulness(problem, mask, UNITS[problem.metric_name], settings.seed, tick)


@dataclass(frozen=True, slots=True)
class Check:
    """Estimate of one node beside exact patching, a drop of the metric in `unit`, clean minus ablated.

    The estimate is one too, unless its method scores in a unit of its own (`estimate_unit`, else empty).
    """

    node: str
    estimate: float
    exact: float
    unit: str
    method: str
    ablation: str
    estimate_unit: str = ""


def check_node(engine: Engine, run: Run, node: str, tick: Tick = quiet) -> Check:
    """Patch one node of a saved run exactly. Raises UserError when the node or the run's facts are not there."""
    from circuits.assembly import score_node
    from circuits.circuit import UNITS
    from circuits.graph import Kind, parse_component, split_node
    from circuits.patching import patch_node, patch_reader

    name, position = split_node(node)
    component = parse_component(name, run.circuit.plan.layers)
    if position >= len(run.tokens):
        raise UserError(f"{node}: the prompt has positions 0 to {len(run.tokens) - 1}")
    if component.kind is Kind.LOGITS:
        raise UserError("the logits are what is measured: choose a node that writes to them")
    problem = restore_problem(engine, run, tick)
    wiring = run.scores.wiring
    readers = [i for i, reader in enumerate(wiring.readers) if reader.component == component]
    if readers and component not in wiring.writers:
        exact = patch_reader(problem, readers, position, tick)
    else:
        exact = patch_node(problem, wiring.find_writer(name), position, tick)
    estimate = score_node(run.scores, component, position)
    unit = UNITS[run.scores.metric]
    own = run.scores.unit if run.scores.unit != unit else ""
    return Check(node, estimate, exact, unit, run.scores.method, run.scores.ablation, own)


def restore_problem(engine: Engine, run: Run, tick: Tick = quiet, parts: bool | None = None) -> Problem:
    """Problem of a saved run; `parts` as in `pose`.

    Raises UserError when model or tokens are no longer those of the run.
    """
    settings, question = restore_settings(run.about["settings"]), read_question(run.about["question"])
    cases = resolve(engine, question, settings)
    if engine.model.sha256 != run.about["model"]["sha256"]:
        raise UserError("the loaded model is not the one of this run (its hash differs): trace again")
    now = [(list(case.pair.clean_ids), list(case.pair.answer_ids)) for case in cases]
    if now != [(pair["clean_ids"], pair["answer_ids"]) for pair in run.pairs]:
        raise UserError("the question no longer gives the run's tokens (facts or tokenizer changed): trace again")
    return pose(engine, cases, settings, tick, parts=parts)


def round_trip(about: dict[str, Any]) -> dict[str, Any]:
    """The object as it will be read back from JSON, so that a fresh run equals a loaded one."""
    import json

    value: dict[str, Any] = json.loads(json.dumps(about, allow_nan=False))
    return value
