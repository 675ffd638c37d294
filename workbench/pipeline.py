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
from workbench.cases import Case, resolve
from workbench.engine import Engine, open_engine
from workbench.parts import list_kinds
from workbench.problems import batch, pose
from workbench.provenance import build_command, describe_memories, list_versions
from workbench.runs import Recording, Run
from workbench.settings import Question, Settings, read_question, restore_settings

if TYPE_CHECKING:
    import numpy as np

    from circuits.batches import Batches, Sweep
    from circuits.circuit import Circuit, EdgeScores
    from circuits.faithfulness import Faithfulness
    from circuits.graph import Kind
    from circuits.parts import KeptParts
    from circuits.problem import Problem
    from circuits.selection import Goal

__all__ = ["Check", "Engine", "Tick", "ask", "check_node", "open_engine", "quiet", "trace"]


def trace(engine: Engine, question: Question, settings: Settings, tick: Tick = quiet) -> Run:
    """Trace one question: from prompt to circuit. Raises UserError for what a person can put right."""
    settings.check()
    cases = resolve(engine, question, settings)
    conditions = ask(engine, question, settings, tick) if not question.several else ()
    batches = batch(engine, cases, settings)
    kinds, left_out = list_kinds(cases)
    found = sweep(batches, settings, kinds, tick)
    pairs = score_pairs(engine, cases, settings, tick) if settings.selection == "stable" else None
    recording = record_attention(batches, tick)
    circuit, notes = select(found, recording, settings, pairs)
    parts = keep_parts(found, circuit, settings, left_out)
    faithfulness = evaluate(batches, found, circuit, settings, tick)
    about = {
        "question": question.to_json(),
        "settings": settings.to_json(),
        "model": engine.model.describe(),
        "memories": describe_memories(engine, cases, settings.reading),
        "fact": cases[0].fact.to_json() if cases[0].fact is not None and len(cases) == 1 else None,
        "pairs": [case.to_json() for case in cases],
        "summed": found.summed,
        "conditions": [condition.to_json() for condition in conditions],
        "selection": {"name": settings.selection, **notes},
        "faithfulness": faithfulness.to_json(),
        "versions": list_versions(),
        "command": build_command(question, settings),
    }
    return Run(about=round_trip(about), circuit=circuit, scores=found.scores, recording=recording, parts=parts)


def ask(engine: Engine, question: Question, settings: Settings, tick: Tick = quiet) -> tuple[Condition, ...]:
    """Next-token answers with parameters alone, with the bank, with explicit memory and with text."""
    from circuits.limits import explain_memory
    from workbench.conditions import answer_conditions

    with explain_memory("asking in the four conditions"):
        return answer_conditions(engine, question, settings, tick)


def score(problem: Problem, settings: Settings, tick: Tick) -> EdgeScores:
    """Scores of every edge and node by the chosen method."""
    from circuits.scoring import score as score_edges

    return score_edges(problem, settings.method, settings.choose_options(), tick)


def sweep(batches: Batches, settings: Settings, kinds: Sequence[Kind], tick: Tick) -> Sweep:
    """Scores of every edge and node by the chosen method, and of the parts where these are asked for."""
    from circuits.batches import sweep as sweep_batches

    options, readers = settings.choose_options(), settings.into or ("logits",)
    if not settings.parts:
        return sweep_batches(batches, settings.method, options, tick)
    return sweep_batches(batches, settings.method, options, tick, readers, kinds)


def keep_parts(found: Sweep, circuit: Circuit, settings: Settings, left_out: Sequence[str]) -> KeptParts | None:
    """The strongest FFN units, bank units, memory slots and attention edges; None where they were not asked for."""
    from circuits.part_selection import select_parts

    if found.parts is None:
        return None
    readers = settings.into or ("logits",)
    return select_parts(found.parts, {node.id for node in circuit.nodes}, settings.parts, readers, left_out)


def score_pairs(engine: Engine, cases: Sequence[Case], settings: Settings, tick: Tick) -> np.ndarray:
    """Scores of every case alone, `[pair, 1, writer, reader]`, positions summed; their mean is that of all cases."""
    import numpy as np

    found = []
    for done, case in enumerate(cases):
        tick("pairs scored alone", done, len(cases))
        found.append(score(pose(engine, (case,), settings, summed=True), settings, quiet).edges)
    return np.stack(found)


def record_attention(batches: Batches, tick: Tick) -> Recording:
    """Attention of the clean run. Empty for several pairs: patterns belong to one prompt."""
    import numpy as np

    if sum(batches.sizes) > 1:
        return Recording(np.zeros((0,) * 4, dtype=np.float16), np.zeros((0,) * 5, dtype=np.float16))
    ((recording, _),) = batches.each(read_attention, tick)
    return recording


def read_attention(problem: Problem) -> Recording:
    """Attention of one prompt to the context and to memory slots, as probabilities of one softmax."""
    import numpy as np
    import torch

    record = problem.clean_record
    nothing = np.zeros((0,) * 5, dtype=np.float16)
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


def set_goal(ends: tuple[int, ...], settings: Settings, pairs: np.ndarray | None) -> Goal:
    """What the settings ask of a selection; the logits are read at `ends`.

    `pairs` are the scores of each pair alone, where the rule wants them.
    """
    from circuits.selection import Goal

    return Goal(
        edges=settings.edges,
        ends=ends,
        threshold=settings.threshold,
        seconds=settings.solver_seconds,
        pairs=pairs,
        seed=settings.seed,
    )


def select(
    found: Sweep, recording: Recording, settings: Settings, pairs: np.ndarray | None = None
) -> tuple[Circuit, dict[str, float]]:
    """Circuit by the chosen rule, and what the rule has to say about it."""
    from circuits.assembly import assemble
    from circuits.limits import explain_memory
    from circuits.selection import select_edges

    with explain_memory(f"selecting edges by {settings.selection}"):
        selected = select_edges(found.scores, settings.selection, set_goal(found.ends, settings, pairs))
    attention = found.context if found.summed else recording.context
    return assemble(found.scores, selected.mask, settings.edges, attention), selected.notes


def evaluate(batches: Batches, found: Sweep, circuit: Circuit, settings: Settings, tick: Tick) -> Faithfulness:
    """How faithful a circuit is, beside random ones."""
    from circuits.batches import measure_faithfulness
    from circuits.circuit import UNITS, mask_edges

    scores = found.scores
    mask = mask_edges(circuit, scores.wiring, scores.edges.shape[0])
    return measure_faithfulness(batches, scores.wiring, mask, UNITS[scores.metric], settings.seed, tick)


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
    wiring = run.scores.wiring
    readers = [i for i, reader in enumerate(wiring.readers) if reader.component == component]

    def patch(problem: Problem) -> float:
        if readers and component not in wiring.writers:
            return patch_reader(problem, readers, position, tick)
        return patch_node(problem, wiring.find_writer(name), position, tick)

    exact = restore_batches(engine, run).average(patch, tick)
    estimate = score_node(run.scores, component, position)
    unit = UNITS[run.scores.metric]
    own = run.scores.unit if run.scores.unit != unit else ""
    return Check(node, estimate, exact, unit, run.scores.method, run.scores.ablation, own)


def restore_cases(engine: Engine, run: Run) -> tuple[tuple[Case, ...], Settings]:
    """Cases and settings of a saved run. Raises UserError when model, memories or tokens are no longer the run's."""
    settings, question = restore_settings(run.about["settings"]), read_question(run.about["question"])
    cases = resolve(engine, question, settings)
    if engine.model.sha256 != run.about["model"]["sha256"]:
        raise UserError("the loaded model is not the one of this run (its hash differs): trace again")
    check_banks(describe_memories(engine, cases, settings.reading), run.about["memories"])
    now = [(list(case.pair.clean_ids), list(case.pair.answer_ids)) for case in cases]
    if now != [(pair["clean_ids"], pair["answer_ids"]) for pair in run.pairs]:
        raise UserError("the question no longer gives the run's tokens (facts or tokenizer changed): trace again")
    return cases, settings


def check_banks(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raise UserError unless the banks attached now have the hashes of those that a run says it read."""
    for name, words in (("bank", "memory bank"), ("explicit", "bank of explicit memories")):
        if (now.get(name) or {}).get("sha256") != (then.get(name) or {}).get("sha256"):
            raise UserError(f"the {words} is not the one of this run (its hash differs): trace again")


def restore_problem(engine: Engine, run: Run, tick: Tick = quiet) -> Problem:
    """Problem of a saved run, all its pairs at once. Raises UserError as `restore_cases`, and out of memory."""
    cases, settings = restore_cases(engine, run)
    return pose(engine, cases, settings, tick)


def restore_batches(engine: Engine, run: Run, parts: bool | None = None) -> Batches:
    """Problems of a saved run in its batches; `parts` as in `pose`. Raises UserError as `restore_cases`."""
    cases, settings = restore_cases(engine, run)
    return batch(engine, cases, settings, parts)


def round_trip(about: dict[str, Any]) -> dict[str, Any]:
    """The object as it will be read back from JSON, so that a fresh run equals a loaded one."""
    import json

    value: dict[str, Any] = json.loads(json.dumps(about, allow_nan=False))
    return value
